"""Tables in text files: CSV, TSV and their dialects."""

import csv
import re
import warnings
from collections import Counter
from typing import Any

from . import cell_types
from .cell_types import OTHER_MISSING, ColumnType, NumberFormat
from .csv_dialect import SEPARATORS, WHITESPACE, Dialect, sniff
from .csv_plan import plan_reading
from .csv_reading import Reading
from .csv_rows import MAX_LINE, SAMPLE, Table, cell_of, count_rows, footer_of, row_of
from .encoding import Encoding
from .frame import describe_frame, left_out_columns
from .result import Analysis, File, Refused, counted
from .table_layout import Cell, Row, find_layout

MAX_COLUMNS = 20_000
_READ_WHOLE = 16 * 1024 * 1024
"""Bytes. Of a larger file the first rows are described."""
_SNIFFED = 64 * 1024
_LONG_SAMPLE = 2 * 1024 * 1024
_LAYOUT_ROWS = 1_000
_READ_CELLS = 1_500_000
_NAMES = (".csv", ".tsv", ".tab", ".psv", ".ssv", ".dat")


def looks_like_table(file: File, encoding: Encoding) -> bool:
    """Do the first lines have the same number of fields, or does the name say so?"""
    if encoding.longest_run > MAX_LINE:
        return False
    return sniff(_whole_lines(_decided_by(encoding.read(file, SAMPLE)), _SNIFFED), file.suffix in _NAMES) is not None


def analyse(file: File, encoding: Encoding) -> Analysis:
    table = _recognise(file, encoding)
    reading, types = plan_reading(table)
    total, exact = count_rows(table)
    footer = footer_of(table)
    rows = max(0, total - len(footer))
    if footer and exact:
        reading.arguments["nrows"] = rows
        table.notes.append(
            f"Left out at the end: {counted(len(footer), 'row')} without data ({'; '.join(footer)[:200]})."
        )
    frame, reading = _read(table, reading, types, rows)
    if not _is_read_in_part(table, rows, len(reading.names)):
        rows, exact = len(frame), True
    elif "on_bad_lines" in reading.arguments:
        exact = False
    return _report(table, reading, types, frame, rows, exact)


def _decided_by(sample: str) -> str:
    """The sample with its last line, which is cut off, left out, and its comments as empty lines."""
    sample = _whole_lines(sample, len(sample) - 1) if len(sample) in (SAMPLE, _LONG_SAMPLE) else sample
    # A comment that is the header (`# time value`) is a comment here too: `_commented_header` looks for it.
    rest = re.sub(r"^#[^\r\n]*", "", sample, flags=re.MULTILINE)
    return rest if rest.strip() else sample  # values that begin with #


def _whole_lines(text: str, maximum: int) -> str:
    """The text up to the last line end within the maximum; all of it if it is shorter."""
    if len(text) <= maximum:
        return text
    end = max(text.rfind("\n", 0, maximum), text.rfind("\r", 0, maximum))
    return text[: end + 1] if end > 0 else text[:maximum]


def _recognise(file: File, encoding: Encoding) -> Table:
    whole = _beginning(file, encoding)
    sample = _decided_by(whole)
    found = sniff(_whole_lines(sample, _SNIFFED), True)
    assert found is not None
    dialect, fitting = found
    dialect = _decimals_in_one_column(dialect, sample)
    records = dialect.records(sample)
    lengths = Counter(len(record) for record in records if any(map(str.strip, record)))
    if not lengths:
        raise Refused("The file has no line with a value.")
    width = max(lengths, key=lambda length: (lengths[length], length))
    if width > MAX_COLUMNS:
        raise Refused(f"A table of {width:,} columns; the maximum is {MAX_COLUMNS:,}.")
    rows = [row_of(record) for record in records[:_LAYOUT_ROWS]]
    if dialect.first_line_names_separator:
        rows[0] = Row([], [])
    layout = find_layout(rows, width)
    if layout.header_rows:
        width = max(width, len(records[layout.first]))
        layout = find_layout(rows, width)
    table = Table(file, encoding, dialect, records, layout, width)
    if sample.count("#") < whole.count("#"):
        _look_at_comments(table, whole)
    if fitting < 0.8 and width > 1 and not layout.first:
        table.notes.append("The lines differ in their number of fields.")
    return table


def _beginning(file: File, encoding: Encoding) -> str:
    """The first characters; more of a file with very long lines, which are a table of many columns."""
    text = encoding.read(file, SAMPLE)
    if len(text) == SAMPLE and text.count("\n") + text.count("\r") < 3:
        text = encoding.read(file, _LONG_SAMPLE)
        line = text.splitlines()[0]
        most = max(line.count(separator) for separator in SEPARATORS)
        if most >= MAX_COLUMNS:
            raise Refused(f"A table of {most + 1:,} columns; the maximum is {MAX_COLUMNS:,}.")
    return text


def _decimals_in_one_column(dialect: Dialect, sample: str) -> Dialect:
    """A header without a comma above lines such as `1,5`: one column, whose comma is a decimal comma."""
    lines = [line for line in sample.splitlines() if line.strip()]
    if dialect.separator == "," and len(lines) > 1 and "," not in lines[0]:
        pattern = cell_types.PATTERNS[NumberFormat(",")]
        if all(pattern.match(line.strip()) for line in lines[1:500]):
            return Dialect(";")
    return dialect


def _look_at_comments(table: Table, whole: str) -> None:
    """Comments above the data are skipped rows, or the last of them is the header. Others need an argument."""
    lines = whole.splitlines()
    above = [line for line in lines[: table.layout.first] if line.startswith("#")]
    if above and not table.layout.header_rows:
        names = [name.strip() for name in table.dialect.records(above[-1].lstrip("# "))[0]]
        if len(names) == table.width and all(names) and all(cell_of(name) is not Cell.NUMBER for name in names):
            table.layout.names = names
            table.notes.append("The names of the columns are from the last comment.")
    inside = [line for line in lines[table.layout.first :] if line.startswith("#")]
    if inside:
        table.comments = True
        if any("#" in line[1:] for line in lines[table.layout.first :] if not line.startswith("#")):
            table.notes.append("Lines begin with # and fields contain it too: pandas cuts these fields.")


def _is_read_in_part(table: Table, rows: int, width: int) -> bool:
    return table.file.size > _READ_WHOLE or rows * width > _READ_CELLS


def _read(table: Table, reading: Reading, types: dict[str, ColumnType], rows: int) -> tuple[Any, Reading]:
    """The DataFrame that is described. Adapts the reading to what only shows after the sample."""
    more: dict[str, Any] = {}
    width = len(reading.names)
    if _is_read_in_part(table, rows, width):
        more["nrows"] = max(20, min(_READ_CELLS // width, int(rows * _READ_WHOLE / 2 / table.file.size)))
        if "nrows" in reading.arguments:
            more["nrows"] = min(more["nrows"], rows)
    for _ in range(6):  # each attempt repairs one thing
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wanted = Reading(
                    {**reading.arguments, **more}, reading.names, reading.conversions, reading.names_differ
                )
                frame = wanted.read(table.file.path)
        except Exception as error:
            repaired = _repaired(table, reading, error)
            if repaired is None:
                raise
            reading = repaired
            continue
        if not _late_missing(reading, types, frame):
            break
    else:
        raise Refused("The table can't be read: its lines do not fit one another.")
    if more:
        table.skipped.append(f"Missing values and ranges are those of the first {counted(len(frame), 'row')}.")
    return frame, reading


def _repaired(table: Table, reading: Reading, error: Exception) -> Reading | None:
    message = str(error)
    if "Expected" in message and "fields" in message and "on_bad_lines" not in reading.arguments:
        table.skipped.append("Lines with more fields than the header has are left out, by on_bad_lines.")
        return reading.without_bad_lines()
    if found := re.search(r"Too many columns specified: expected \d+ and found (\d+)", message):
        names = reading.names[: int(found[1])]
        return (
            Reading(reading.arguments, names, reading.conversions, True) if len(names) < len(reading.names) else None
        )
    if "EOF inside string" in message and "quoting" not in reading.arguments:
        table.notes.append("A quote is never closed: quotes are read as ordinary characters.")
        return Reading(
            {**reading.arguments, "quoting": csv.QUOTE_NONE}, reading.names, reading.conversions, reading.names_differ
        )
    if isinstance(error, ValueError) and reading.conversions:
        for conversion in reading.conversions:
            if conversion.column in message:
                return reading.as_text(conversion.column)
        # pandas does not say which column: the last conversion first.
        column = reading.conversions[-1].column
        table.notes.append(f"The column {column!r} has values that do not fit its first rows: left as text.")
        return reading.as_text(column)
    return None


def _late_missing(reading: Reading, types: dict[str, ColumnType], frame: Any) -> bool:
    """Was there a word for missing values that the sample had not? Then the reading has it now."""
    found = False
    for name, kind in types.items():
        if kind.type != "number" or name not in frame.columns or frame[name].dtype.kind in "iufb":
            continue
        decimal, thousands = reading.arguments.get("decimal", "."), reading.arguments.get("thousands")
        pattern = cell_types.PATTERNS[NumberFormat(decimal, thousands)]
        others = {str(value).strip() for value in frame[name].dropna() if not pattern.match(str(value).strip())}
        if others and others <= OTHER_MISSING and not others <= set(kind.missing):
            kind.missing = sorted({*kind.missing, *others})
            reading.arguments.setdefault("na_values", {})[name] = kind.missing
            found = True
        elif others:
            kind.note = f"mostly numbers, but not {sorted(others)[0][:60]!r}"
    return found


def _report(
    table: Table, reading: Reading, types: dict[str, ColumnType], frame: Any, rows: int, exact: bool
) -> Analysis:
    layout, dialect = table.layout, table.dialect
    notes = {name: kind.note for name, kind in types.items() if kind.note}
    described = describe_frame(frame, notes)
    width = len(frame.columns)
    details: dict[str, Any] = {
        "rows": rows,
        "rows_are_exact": exact,
        **described,
        "separator": "whitespace" if dialect.separator == WHITESPACE else dialect.separator,
        "encoding": table.encoding.name,
        "decimal": reading.arguments.get("decimal", "."),
        "thousands": reading.arguments.get("thousands"),
        "has_header": layout.header_rows > 0 or any("last comment" in note for note in table.notes),
        "lines_above_header": layout.first,
        "notes": table.notes,
    }
    if layout.units is not None:
        details["units"] = dict(zip(reading.names, layout.units, strict=False))
    above = [line.strip() for line in table.lines_above()[: layout.first] if line.strip()]
    if above:
        details["text_above"] = above[:20]
    if not exact:
        table.skipped.append("The number of rows is estimated from the first part of the file.")
    about = "" if exact else "about "
    summary = f"Table of {about}{counted(rows, 'row')} and {counted(width, 'column')}, {table.encoding.name}"
    table.skipped += left_out_columns(width)
    kind = "tsv" if dialect.separator == "\t" else "csv"
    return Analysis(kind, summary, details, reading.code(table.file.name), table.skipped)
