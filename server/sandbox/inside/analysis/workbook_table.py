"""The table of a sheet: where it is, what its columns are, and the code that reads it."""

import datetime
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import cell_types
from .cell_types import OTHER_MISSING, PANDAS_MISSING, NumberFormat
from .csv_reading import MAX_CODE, MAX_SPELLED, RENAME, Conversion, code_of
from .csv_rows import cell_of
from .frame import describe_frame, left_out_columns
from .result import counted
from .table_layout import Cell, Layout, Row, find_footer, find_layout

_LAYOUT_ROWS = 300

Range = tuple[tuple[int, int], tuple[int, int]]


@dataclass
class SheetRows:
    """Rows start at the sheet's first row and column, even if these are empty."""

    head: list[list[Any]]
    tail: list[list[Any]]
    """The last rows after `head`."""
    height: int
    merged: Sequence[Range]
    """Row and column of the first and last cell of each merged range, from 0."""


def describe_sheet(file: str, name: str, rows: SheetRows, skipped: list[str]) -> dict[str, Any]:
    """What the analysis says about a sheet, its `how_to_read` included. Adds what was left out to `skipped`."""
    columns = _used_columns(rows.head + rows.tail)
    if not columns:
        return {"rows": 0, "column_count": 0}
    first, last = columns[0], columns[-1]
    head = [_cut(row, first, last) for row in rows.head]
    width = last - first + 1
    layout = find_layout([_row(row) for row in _with_merged(head, rows.merged, first, width)[:_LAYOUT_ROWS]], width)
    footer, end = _footer(head, rows, layout, first, last)
    count = max(0, end - layout.data)
    data = head[layout.data : end]
    plan = _Plan(layout.names, data, name, file)
    header = layout.first if layout.header_rows == 1 and layout.units is None else None
    # pandas refuses to choose columns where there is no row: of a table without data it reads the header.
    top = layout.data if data else layout.data - 1
    plan.place(header, top, f"{_letters(first)}:{_letters(last)}" if first else None, count if footer else None)
    frame = plan.read(data)
    details: dict[str, Any] = {"rows": count, **describe_frame(frame, plan.notes)}
    if layout.units is not None:
        details["units"] = dict(zip(layout.names, layout.units, strict=False))
    above = [text for row in head[: layout.first] for text in map(str, row) if text.strip()]
    if above:
        details["text_above"] = above[:20]
    if footer:
        details["left_out_at_the_end"] = footer
    if not layout.header_rows:
        details["has_header"] = False
    if rows.merged:
        details["merged_ranges"] = len(rows.merged)
    if count > len(data):
        skipped.append(
            f"Missing values and ranges of the sheet {name!r} are those of its first {counted(len(data), 'row')}."
        )
    skipped += left_out_columns(width)
    return details | {"how_to_read": plan.code()}


class _Plan:
    """The arguments of `pandas.read_excel` and the conversions after it."""

    def __init__(self, names: list[str], data: list[list[Any]], sheet: str, file: str) -> None:
        self._names, self._sheet, self._file = names, sheet, file
        self._texts: dict[str, str] = {}
        self._missing: dict[str, list[str]] = {}
        self._conversions: list[Conversion] = []
        self._place: dict[str, Any] = {}
        self._header: int | None = None
        self._has_data = bool(data)
        self.notes: dict[str, str] = {}
        columns = [[row[index] for row in data if row[index] != ""] for index in range(len(names))]
        texts = [[value for value in values if isinstance(value, str)] for values in columns]
        for name, values, words in zip(names, columns, texts, strict=True):
            if len(words) == len(values):
                self._plan_texts(name, words)
            else:
                others = {word.strip() for word in words} - PANDAS_MISSING
                if others and others <= OTHER_MISSING:
                    self._missing[name] = sorted(others)

    def place(self, header: int | None, skiprows: int, usecols: str | None, nrows: int | None) -> None:
        """Where the table is. `header` is the row of the names, if one row has them and data follows it."""
        self._header = header
        self._place = {"skiprows": skiprows, "usecols": usecols, "nrows": nrows}

    def _plan_texts(self, name: str, words: list[str]) -> None:
        """A column of texts: pandas makes numbers of those that look like some."""
        numbers, _ = cell_types.number_format([words], ";")
        kind = cell_types.classify(words, numbers, None)
        if kind.note:
            self.notes[name] = kind.note
        if kind.missing:
            self._missing[name] = kind.missing
        if kind.type == "code":
            self._texts[name] = "str"
        elif kind.type == "date":
            self._texts[name] = "str"
            self._conversions.append(Conversion(name, kind.format))
        elif kind.type == "decorated" or (kind.type == "number" and numbers != NumberFormat()):
            bare = cell_types.decorated_format(words, numbers)
            if bare:
                self._texts[name] = "str"
                self._conversions.append(Conversion(name, numbers=bare))
        if kind.type in ("number", "decorated") and words:
            self.notes.setdefault(name, "numbers that the workbook stores as text")

    def read(self, data: list[list[Any]]) -> Any:
        """The DataFrame of these rows, as `read_excel` makes it."""
        from pandas.io.parsers import TextParser

        if not data:
            data = [[None] * len(self._names)]
            return self.read(data).iloc[:0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser = TextParser(
                data, header=None, names=self._names, dtype=self._texts or None, na_values=self._missing or None
            )
            frame = parser.read()
        for conversion in list(self._conversions):
            try:
                conversion.apply(frame)
            except ValueError:
                self._conversions.remove(conversion)
                self.notes[conversion.column] = "texts of several formats: left as text"
        return frame

    def code(self) -> str:
        spelled = len(repr(self._names)) <= MAX_SPELLED
        arguments: dict[str, Any] = {"sheet_name": self._sheet, "engine": "calamine"}
        place = dict(self._place)
        if not spelled and self._header is not None:
            place["skiprows"] = self._header  # pandas then reads the names
        else:
            arguments["header"] = None if self._has_data else 0
        arguments |= {key: value for key, value in place.items() if value}
        if spelled:
            arguments["names"] = self._names
        typed = {"dtype": self._texts, "na_values": self._missing}
        given = arguments | {key: value for key, value in typed.items() if value}
        code = self._code(given, code_of(self._conversions), spelled)
        return code if len(code) <= MAX_CODE else self._code(arguments, [], spelled)

    def _code(self, arguments: dict[str, Any], conversions: list[str], spelled: bool) -> str:
        given = "".join(f"    {key}={value!r},\n" for key, value in arguments.items())
        lines = ["import pandas as pd", "", f"df = pd.read_excel(\n    {self._file!r},\n{given})"]
        if not spelled and self._header is not None:
            lines.append(RENAME)
        return "\n".join([*lines, *conversions])


def _used_columns(rows: list[list[Any]]) -> list[int]:
    width = max(map(len, rows), default=0)
    return [column for column in range(width) if any(len(row) > column and row[column] != "" for row in rows)]


def _cut(row: list[Any], first: int, last: int) -> list[Any]:
    part = row[first : last + 1]
    return [*part, *[""] * (last - first + 1 - len(part))]


def _row(values: Sequence[Any]) -> Row:
    return Row([_text(value) for value in values], [_cell(value) for value in values])


def _text(value: Any) -> str:
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(value)


def _cell(value: Any) -> Cell:
    return cell_of(value) if isinstance(value, str) else Cell.NUMBER


def _with_merged(head: list[list[Any]], merged: Sequence[Range], first: int, width: int) -> list[list[Any]]:
    """The first rows, with the value of a merged range in each of its columns: a header above several columns.

    A range over the whole table is a title, and stays one cell.
    """
    filled = [list(row) for row in head[:_LAYOUT_ROWS]]
    for (top, left), (bottom, right) in merged[:2_000]:
        if (
            bottom < min(20, len(filled))
            and left < right < first + width
            and right - left + 1 < width
            and left >= first
        ):
            for row in range(top, bottom + 1):
                for column in range(left, right + 1):
                    if filled[row][column - first] == "":
                        filled[row][column - first] = filled[top][left - first]
    return filled


def _footer(head: list[list[Any]], rows: SheetRows, layout: Layout, first: int, last: int) -> tuple[list[str], int]:
    """Totals and remarks below the data, and the index of the row after the last row of data."""
    tail = [_cut(row, first, last) for row in rows.tail] or head[layout.data :][-30:]
    width = last - first + 1
    # Rows of the sheet that are empty at its end are no data either.
    end = len(head) if not rows.tail else rows.height
    while tail and not any(value != "" for value in tail[-1]):
        tail.pop()
        end -= 1
    footer = find_footer([_row(row) for row in tail], width)
    for _ in footer:
        while tail and not any(value != "" for value in tail[-1]):
            tail.pop()
            end -= 1
        tail.pop()
        end -= 1
    while footer and tail and not any(value != "" for value in tail[-1]):
        tail.pop()
        end -= 1
    if rows.height > end and not rows.tail and rows.height > len(head):
        end = rows.height  # a large sheet of which only the first rows were read
    return footer, end


def _letters(column: int) -> str:
    """`A` for 0, `AA` for 26."""
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(65 + rest) + letters
    return letters
