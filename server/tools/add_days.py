"""A date some days away from another."""

import datetime

from langchain_core.tools import ToolException, tool

from .dates import read_date


@tool
def add_days(date: str, days: int) -> str:
    """Find the date a number of days after (or, with a minus, before) a date."""
    try:
        return (read_date(date) + datetime.timedelta(days=days)).isoformat()
    except OverflowError as error:
        raise ToolException(f"{days} days from {date} is outside the calendar's years 1 to 9999.") from error
