"""The rows of a table in a text file: how many there are, and what is at its end."""

from dataclasses import dataclass, field

from .cell_types import ANY_DATE, ANY_NUMBER, OTHER_MISSING, PANDAS_MISSING
from .csv_dialect import Dialect
from .encoding import Encoding
from .result import Deadline, File
from .table_layout import Cell, Layout, Row, find_footer

MAX_LINE = 8 * 1024 * 1024
"""Bytes. pandas holds a whole line in memory, several times."""
SAMPLE = 128 * 1024
"""Characters at the beginning that decide the dialect."""
_TAIL = 64 * 1024
"""Bytes at the end that are searched for totals."""


@dataclass
class Table:
    """What is known of the file before pandas reads it."""

    file: File
    encoding: Encoding
    dialect: Dialect
    records: list[list[str]]
    """The first ones."""
    layout: Layout
    width: int
    """The usual number of fields."""
    comments: bool = False
    """Are there comments among the data?"""
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def lines_above(self) -> list[str]:
        """The lines above the data, the header's included."""
        return self.encoding.read(self.file, SAMPLE).splitlines()[: self.layout.data]


def row_of(record: list[str]) -> Row:
    return Row(record, [cell_of(text) for text in record])


def cell_of(text: str) -> Cell:
    text = text.strip()
    if not text:
        return Cell.EMPTY
    if text in PANDAS_MISSING or text in OTHER_MISSING:
        return Cell.TEXT if text in (".", "?", "*") else Cell.EMPTY
    return Cell.NUMBER if ANY_NUMBER.match(text) or ANY_DATE.match(text) else Cell.TEXT


def count_rows(table: Table) -> tuple[int, bool]:
    """The number of rows of data, with totals and remarks; and whether it is exact or estimated.

    A line end in quotes ends no row.
    """
    deadline, separator, quote = Deadline(0.8), table.dialect.separator, table.dialect.quote
    rows = characters = 0
    inside, exact = False, True
    with table.encoding.open(table.file) as text:
        while line := text.readline(MAX_LINE):
            characters += len(line)
            if quote and line.count(quote) & 1:
                inside = not inside
            if inside or _is_blank(line, separator) or (table.comments and line.startswith("#")):
                continue
            rows += 1
            if not rows & 0xFFF and deadline.passed():
                exact = False
                width = 2 if table.encoding.name.startswith("utf-16") else 4 if table.encoding.name == "utf-32" else 1
                rows = max(rows, int(rows * table.file.size / (characters * width)))
                break
    above = sum(len(record) > 1 or any(map(str.strip, record)) for record in table.records[: table.layout.data])
    if table.dialect.first_line_names_separator:
        above = max(above, 1)
    if not table.comments:
        above += sum(line.startswith("#") for line in table.lines_above())
    return max(0, rows - above), exact


def footer_of(table: Table) -> list[str]:
    """The first text of each row at the end of the file that is a total or a remark."""
    if table.file.size <= _TAIL:
        rows = table.records[table.layout.data :]
    else:
        with open(table.file.path, "rb") as content:
            # A multiple of 4, for UTF-16 and UTF-32.
            content.seek((table.file.size - _TAIL) // 4 * 4)
            without_mark = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}
            name = without_mark.get(table.encoding.name, table.encoding.name)
            tail = content.read().decode(name, "replace")
        rows = table.dialect.records(tail.partition("\n")[2])
    return find_footer([row_of(row) for row in rows], table.width)


def _is_blank(line: str, separator: str) -> bool:
    return not (line.strip(" \r\n") if separator in ("\t", "\x1f") else line.strip())
