"""The days from one date to another."""

from langchain_core.tools import tool

from .dates import read_date


@tool
def days_between(start: str, end: str) -> str:
    """Count the days from one date to another."""
    return str((read_date(end) - read_date(start)).days)
