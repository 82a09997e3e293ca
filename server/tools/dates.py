"""Reading dates."""

import datetime
import re

from dateutil import parser
from langchain_core.tools import ToolException

MAX_LENGTH = 60  # characters of a date

DAYS_FROM_TODAY = {"today": 0, "tomorrow": 1, "yesterday": -1}


def read_date(text: str) -> datetime.date:
    """The date that `text` names: ISO (2026-03-01), in words (3 March 2026, March 3, 2026), or today,
    tomorrow, yesterday by the server's clock.

    Raises ToolException for anything that isn't one full date, also when day and month could be swapped.
    """
    wording = " ".join(text.lower().split()).removeprefix("the ")
    if wording in DAYS_FROM_TODAY:
        return datetime.date.today() + datetime.timedelta(days=DAYS_FROM_TODAY[wording])
    if len(wording) > MAX_LENGTH:
        raise ToolException(f"A date has at most {MAX_LENGTH} characters, this one has {len(wording)}.")
    numbers = re.match(r"(\d{1,2})[/. -](\d{1,2})[/. -](\d+)\b", wording)
    if numbers and _is_ambiguous(*numbers.groups()):
        raise ToolException(f"{text!r} can be read as several dates; write it as YYYY-MM-DD.")
    try:
        # The default completes a partial date. If two defaults give different results, the date is not complete.
        dates: set[datetime.date] = {
            parser.parse(wording, default=default, ignoretz=True).date()
            for default in (datetime.datetime(2000, 1, 1), datetime.datetime(2005, 6, 15))
        }
    except (ValueError, OverflowError) as error:
        raise ToolException(f"{text!r} is not a date; write it as YYYY-MM-DD.") from error
    if len(dates) > 1:
        raise ToolException(f"{text!r} is not a full date; give day, month and year, as YYYY-MM-DD.")
    return dates.pop()


def _is_ambiguous(first: str, second: str, third: str) -> bool:
    """Whether three numbers can be read as more than one date: 03/04/2026, or 26-03-01."""
    either_is_a_month = int(first) <= 12 and int(second) <= 12 and int(first) != int(second)
    return either_is_a_month or len(third) != len("2026")
