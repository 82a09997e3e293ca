"""From what is known of a table in a text file: the arguments for pandas, and the type of each column."""

import csv
import re
from typing import Any

from . import cell_types
from .cell_types import ColumnType
from .csv_dialect import WHITESPACE
from .csv_reading import Conversion, Reading
from .csv_rows import Table, row_of
from .table_layout import find_footer, find_layout

_CLASSIFIED_CELLS = 20_000
_CLASSIFIED_COLUMNS = 2_000


def plan_reading(table: Table) -> tuple[Reading, dict[str, ColumnType]]:
    """The arguments for pandas, and the type of each column."""
    layout, dialect = table.layout, table.dialect
    arguments: dict[str, Any] = {}
    if dialect.separator != ",":
        arguments["sep"] = dialect.separator
    if dialect.quote is None and dialect.separator != WHITESPACE:
        arguments["quoting"] = csv.QUOTE_NONE
    elif dialect.quote == "'":
        arguments["quotechar"] = "'"
    if dialect.escape:
        arguments |= {"escapechar": dialect.escape, "doublequote": False}
    if dialect.skip_initial_space:
        arguments["skipinitialspace"] = True
    if table.encoding.name != "utf-8":
        arguments["encoding"] = table.encoding.name
    if layout.units is not None:
        below = layout.first + layout.header_rows
        arguments["skiprows"] = [*range(layout.first), below] if layout.first else [below]
    elif skipped := layout.first + (layout.header_rows if layout.header_rows == 2 else 0):
        arguments["skiprows"] = skipped
    if layout.header_rows != 1:
        arguments["header"] = None
    if table.comments:
        arguments["comment"] = "#"
    names, differ = _names(table, arguments)
    reading = Reading(arguments, names, names_differ=differ)
    return reading, _plan_types(table, reading)


def _names(table: Table, arguments: dict[str, Any]) -> tuple[list[str], bool]:
    """The columns' names, and whether pandas would make others. Sees to rows that are longer than the header."""
    layout = table.layout
    if layout.header_rows != 1:
        return layout.names, True
    header = table.records[layout.first]
    body = [record for record in table.records[layout.data :] if any(map(str.strip, record))]
    longer = [record for record in body if len(record) == len(header) + 1]
    if len(longer) > 0.5 * len(body):
        if not any(record[-1].strip() for record in longer):
            arguments["index_col"] = False  # else the first column would be the index
            return layout.names[: len(header)], layout.names[: len(header)] != header
        # As R writes a table: the rows have names, and their column has none.
        shifted = find_layout([row_of(["", *header]), *map(row_of, body[:50])], len(header) + 1)
        return shifted.names, True
    return layout.names, layout.names != header


def _columns_of_cells(table: Table, width: int) -> list[list[str]]:
    """The cells of each column, from the first rows and the last."""
    count = max(20, _CLASSIFIED_CELLS // width)
    rows = table.records[table.layout.data :]
    rows = rows if len(rows) <= count else [*rows[: count - 20], *rows[-20:]]
    rows = [row for row in rows if any(map(str.strip, row))]
    if footer := find_footer([row_of(row) for row in rows[-100:]], table.width):
        rows = rows[: -len(footer)]
    return [
        [row[index] if index < len(row) else "" for row in rows] for index in range(min(width, _CLASSIFIED_COLUMNS))
    ]


def _plan_types(table: Table, reading: Reading) -> dict[str, ColumnType]:
    columns = _columns_of_cells(table, len(reading.names))
    numbers, doubt = cell_types.number_format(columns, table.dialect.separator)
    if doubt:
        table.notes.append(doubt)
    day_first = cell_types.dates_are_day_first(columns, table.dialect.separator, numbers)
    if numbers.decimal != ".":
        reading.arguments["decimal"] = numbers.decimal
    if numbers.thousands:
        reading.arguments["thousands"] = numbers.thousands
    types = {
        name: cell_types.classify(cells, numbers, day_first)
        for name, cells in zip(reading.names, columns, strict=False)
    }
    texts: dict[str, str] = {}
    missing: dict[str, list[str]] = {}
    for (name, kind), cells in zip(types.items(), columns, strict=True):
        if kind.type in ("code", "date", "decorated") or (kind.type == "text" and numbers.thousands):
            texts[name] = "str"  # else pandas would take 01.02.2023 for a number with thousands
        if kind.missing:
            missing[name] = kind.missing
        if kind.type == "date":
            utc = kind.format == "ISO8601" and any(
                re.search(r"(Z|[+-]\d{2}:?\d{2})$", cell.strip()[10:]) for cell in cells
            )
            reading.conversions.append(Conversion(name, kind.format, utc))
        elif kind.type == "decorated":
            if bare := cell_types.decorated_format(cells, numbers):
                reading.conversions.append(Conversion(name, numbers=bare))
            else:
                kind.note = "numbers with signs, in several formats: left as text"
    if texts:
        reading.arguments["dtype"] = texts
    if missing:
        reading.arguments["na_values"] = missing
    return types
