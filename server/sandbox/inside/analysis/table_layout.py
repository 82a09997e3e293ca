"""Where a table begins and ends among the rows of a sheet or text file, and what its columns are called."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

TOTAL = re.compile(
    r"\W*(grand |sub-?)?(total|sum|summe|gesamt|gesamtsumme|insgesamt|somme|suma|totale|totaal)"
    r"(s|e)?\W*$",
    re.IGNORECASE,
)
_LOOKED_AT = 200
"""Rows of the body that decide whether there is a header."""


class Cell(Enum):
    """All that the layout depends on."""

    EMPTY = 0
    TEXT = 1
    NUMBER = 2  # dates too


@dataclass(frozen=True)
class Row:
    texts: Sequence[str]
    kinds: Sequence[Cell]

    @property
    def filled(self) -> int:
        return sum(kind is not Cell.EMPTY for kind in self.kinds)


@dataclass
class Layout:
    first: int
    """Index of the header's first row, or of the first row of data without a header."""
    header_rows: int
    """0 without a header, 2 if the columns are grouped."""
    units: list[str] | None
    """The row of units below the header, if there is one."""
    names: list[str]
    """Of the columns: not empty, different from one another."""
    footer: list[str] = field(default_factory=list)
    """The first text of each row below the data: totals and remarks."""

    @property
    def data(self) -> int:
        """Index of the first row of data."""
        return self.first + self.header_rows + (self.units is not None)


def find_layout(rows: Sequence[Row], width: int) -> Layout:
    """The layout of a table of this width whose first rows are these."""
    usual = _usual_filled(rows)
    first = next((index for index in range(len(rows)) if _may_be_first(rows, index, usual, width)), 0)
    if not rows or not _has_header(rows[first], rows[first + 1 :], width):
        return Layout(first, 0, None, [f"column_{index + 1}" for index in range(width)])
    header, below = rows[first], rows[first + 1 :]
    texts = _padded(header.texts, width)
    if below and _is_second_header(texts, below[0], below[1:], width):
        groups, subs = texts, _padded(below[0].texts, width)
        if _has_repeats(groups):
            joined = [
                " ".join(dict.fromkeys(part for part in pair if part)) for pair in zip(groups, subs, strict=True)
            ]
            return Layout(first, 2, None, unique_names(joined))
        return Layout(first, 1, subs, unique_names(texts))
    return Layout(first, 1, None, unique_names(texts))


def find_footer(rows: Sequence[Row], width: int) -> list[str]:
    """The first text of each row at the end that is no data, from top to bottom. Empty rows do not count."""
    usual = _usual_filled(rows)
    footer: list[str] = []
    numeric = any(kind is Cell.NUMBER for row in rows for kind in row.kinds)
    for row in reversed(rows):
        if not row.filled:
            continue
        text = next((text.strip() for text in row.texts if text.strip()), "")
        is_remark = usual >= 3 and row.filled == 1 and row.kinds[0] is Cell.TEXT
        is_total = numeric and row.filled >= 2 and bool(TOTAL.match(text))
        if not (is_remark or is_total) or len(footer) == 20:
            break
        footer.append(text)
    return footer[::-1] if len(footer) < sum(row.filled > 0 for row in rows) else []


def unique_names(texts: Sequence[str]) -> list[str]:
    """Names for columns, made as pandas makes them, but `column_3` where there is none."""
    names: list[str] = []
    used: Counter[str] = Counter()
    taken = {text.strip() for text in texts}
    for index, text in enumerate(texts):
        name = " ".join(text.split()) or f"column_{index + 1}"
        candidate = name
        while used[candidate]:
            candidate = f"{name}.{used[name]}"
            used[name] += 1
            if candidate in taken:
                used[candidate] += 1
        used[candidate] += 1
        names.append(candidate)
    return names


def _usual_filled(rows: Sequence[Row]) -> int:
    """The number of filled cells of most rows that are not empty; of the second half, where there are no titles."""
    filled = [row.filled for row in rows if row.filled]
    half = filled[len(filled) // 2 :] or [0]
    counts = Counter(half)
    return max(counts, key=lambda number: (counts[number], number))


def _may_be_first(rows: Sequence[Row], index: int, usual: int, width: int) -> bool:
    """Has the row enough cells to be the header or data? Titles and remarks above have fewer."""
    row = rows[index]
    if row.filled >= max(1, min(usual, 0.6 * usual + 0.5)):
        return True
    if not 0 < row.filled == usual - 1:
        return False
    if len(row.kinds) >= width and row.kinds[0] is Cell.EMPTY:
        return True  # the corner above the names of rows
    # A column without a name; or as R writes it: the header is a field shorter than the data below.
    below = rows[index + 1] if index + 1 < len(rows) else None
    return (
        len(row.kinds) in (width - 1, width)
        and Cell.NUMBER not in row.kinds
        and below is not None
        and below.filled >= usual
        and Cell.NUMBER in below.kinds
    )


def _has_header(row: Row, below: Sequence[Row], width: int) -> bool:
    body = [other for other in below[:_LOOKED_AT] if other.filled > 1 or width == 1]
    if not body:
        return all(kind is not Cell.NUMBER for kind in row.kinds)
    differs = same = texts = 0
    for column, kind in enumerate(row.kinds):
        others = [other.kinds[column] for other in body if len(other.kinds) > column]
        others = [other for other in others if other is not Cell.EMPTY]
        if kind is Cell.EMPTY or not others:
            continue
        numeric = others.count(Cell.NUMBER) > 0.5 * len(others)
        differs += kind is Cell.TEXT and numeric
        same += kind is Cell.NUMBER and numeric
        texts += kind is Cell.TEXT and not numeric
    if same:
        return differs > 0 or _names_are_numbers(row)
    if differs:
        return True
    # All is text: a header's words are different, and do not come again below.
    words = [text.strip() for text in row.texts]
    repeated = sum(
        any(len(other.texts) > column and other.texts[column].strip() == word for other in body)
        for column, word in enumerate(words)
        if word
    )
    return texts > 0 and not repeated and len(set(words)) == len(words)


def _names_are_numbers(row: Row) -> bool:
    """Is this a row of years, or of 0, 1, 2 … as pandas writes unnamed columns?"""
    numbers = [text.strip() for text, kind in zip(row.texts, row.kinds, strict=True) if kind is Cell.NUMBER]
    if len(numbers) < 2 or row.kinds[0] is Cell.NUMBER or not all(number.isdecimal() for number in numbers):
        return False
    values = [int(number) for number in numbers if len(number) < 10]
    # A year may be above several columns.
    steps = {later - earlier for earlier, later in itertools.pairwise(values)} - {0}
    if len(values) != len(numbers) or len(steps) > 1 or not steps <= {1, -1, 2, 5, 10}:
        return False
    return all(1500 <= value <= 2200 for value in values) or (row.kinds[0] is Cell.EMPTY and values[0] in (0, 1))


def _is_second_header(header: list[str], row: Row, below: Sequence[Row], width: int) -> bool:
    """Has the row below the header texts only, where the columns have numbers?"""
    if Cell.NUMBER in row.kinds or not row.filled or not below:
        return False
    if any(len(text) > 20 for text in row.texts):
        return False
    grouped = _has_repeats(header)
    above_numbers = 0
    for column in range(min(width, len(row.kinds))):
        others = [other.kinds[column] for other in below[:_LOOKED_AT] if len(other.kinds) > column]
        numeric = others.count(Cell.NUMBER) > 0.5 * max(1, len(others) - others.count(Cell.EMPTY))
        is_text = row.kinds[column] is Cell.TEXT and not numeric
        if is_text and header[column] and not grouped and not _is_unit(row.texts[column]):
            return False
        # A column of numbers with a word for a missing value is no column with a unit.
        if row.kinds[column] is Cell.TEXT and numeric:
            above_numbers += 1
    return above_numbers > 0


def _is_unit(text: str) -> bool:
    return len(text.strip()) < 4 or text.strip()[0] in "[("


def _has_repeats(texts: list[str]) -> bool:
    given = [text for text in texts if text]
    return len(set(given)) < len(given)


def _padded(texts: Sequence[str], width: int) -> list[str]:
    return [*(text.strip() for text in texts), *[""] * (width - len(texts))][:width]
