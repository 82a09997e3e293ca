"""The day of the week of a date."""

from langchain_core.tools import tool

from .dates import read_date

# Not strftime, which uses the server's language.
NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@tool
def weekday(date: str) -> str:
    """Tell the day of the week of a date."""
    return NAMES[read_date(date).weekday()]
