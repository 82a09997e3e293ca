"""A comparison as CSV, for spreadsheets and data frames."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from server.comparisons.comparison import Cell, Row

OF_A_SIDE = ("answer", "error", "correct", "score", "check_error", "tokens", "seconds", "run_id")
COLUMNS = ("number", "question", "expected", "changed", *(f"{side}_{one}" for side in "ab" for one in OF_A_SIDE))
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a formula of a spreadsheet begins with: https://owasp.org/www-community/attacks/CSV_Injection"""


def as_csv(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of the file, the headings first."""
    yield _line(COLUMNS)
    for row in rows:
        cells = [*_side(row.a), *_side(row.b)]
        yield _line([row.number, row.question, row.expected, _as_text(row.has_changed), *cells])


def _side(cell: Cell | None) -> list[Any]:
    if cell is None:
        return [None] * len(OF_A_SIDE)
    errors = [None if one is None else f"{one['type']}: {one['message']}" for one in (cell.error, cell.check_error)]
    correct = _as_text(cell.correct)
    return [cell.answer, errors[0], correct, cell.score, errors[1], cell.tokens, round(cell.seconds, 4), cell.run_id]


def _as_text(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _line(values: Iterable[Any]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow([_harmless(one) if isinstance(one, str) else one for one in values])
    return buffer.getvalue()


def _harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe before what would be one."""
    text = text.replace("\x00", "")
    return f"'{text}" if text.startswith(FORMULA) else text
