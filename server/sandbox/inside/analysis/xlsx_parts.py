"""The parts of an xlsx or ods file, read as streams: how large its sheets really are, before anything loads them."""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .result import Deadline, File, Refused
from .zip_bounds import open_zip

_CHUNK = 512 * 1024
_CELL = re.compile(rb"<(?:\w+:)?c\s[^>]*?\br=\"([A-Z]{1,3})(\d{1,7})\"")
_ROW = re.compile(rb"<(?:\w+:)?row\s[^>]*?\br=\"(\d{1,7})\"")
_FORMULA = re.compile(rb"<(?:\w+:)?f[\s>/]")
_MAX_WORKBOOK = 4 * 1024 * 1024
COUNTING_SECONDS = 0.8
_MAX_SHARED = 48 * 1024 * 1024
"""Bytes of the part that has the texts of all cells: it is loaded whole."""
_REPEATED = re.compile(
    rb"<table:table-row\b[^>]*?number-rows-repeated=\"(\d+)\"|<table:(table-row)\b"
    rb"|<table:table-cell\b([^>]*?office:value-type[^>]*)>"
)


@dataclass
class Extent:
    """Of the cells of a sheet that the file really has."""

    rows: int = 0
    columns: int = 0
    cells: int = 0
    formulas: int = 0
    counted: bool = True
    """False if counting took too long: there are more cells."""

    def is_too_large(self, maximum: int) -> bool:
        return not self.counted or self.rows * self.columns > maximum or self.cells > maximum


def sheet_extents(file: File, maximum: int) -> dict[str, Extent]:
    """The extent of each worksheet, by name. Counting stops above `maximum` cells, or after
    `COUNTING_SECONDS`.

    Raises `Refused` if the workbook has too many texts.
    """
    deadline = Deadline(COUNTING_SECONDS)
    extents = {}
    with open_zip(file) as archive:
        shared = archive.NameToInfo.get("xl/sharedStrings.xml")
        if shared and shared.file_size > _MAX_SHARED:
            raise Refused("The workbook has more than 48 MiB of texts. Save it in parts, or as CSV or Parquet.")
        for name, part in _worksheets(archive):
            extents[name] = _extent(archive, part, maximum, deadline)
    return extents


def ods_cells(file: File) -> int:
    """The number of cells with a value in an ods, with all repetitions that it declares."""
    cells, row_times, tail = 0, 1, b""
    with open_zip(file) as archive, archive.open("content.xml") as content:
        while chunk := content.read(_CHUNK):
            data = tail + chunk
            end = data.rfind(b"<") if len(chunk) == _CHUNK else len(data)
            for match in _REPEATED.finditer(data, 0, end):
                if match[3] is None:
                    row_times = int(match[1] or 1)
                else:
                    times = re.search(rb'number-columns-repeated="(\d+)"', match[3])
                    cells += row_times * (int(times[1]) if times else 1)
            tail = data[end:][-_CHUNK:]
    return cells


def stream_rows(file: File, sheet: str, count: int) -> list[list[Any]]:
    """The first rows of a large sheet, at most 500 columns. Missing values are empty texts."""
    import openpyxl

    book = openpyxl.load_workbook(file.path, read_only=True, data_only=True)
    try:
        worksheet = book[sheet]
        # What the file claims as its size is padded with empty cells: 16,384 columns for one value.
        worksheet.reset_dimensions()
        rows = worksheet.iter_rows(max_row=count, max_col=500, values_only=True)
        return [["" if value is None else value for value in row] for row in rows]
    finally:
        book.close()


def _worksheets(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Name and part of each worksheet, in order."""
    from defusedxml import ElementTree

    def parse(part: str) -> Any:
        if archive.NameToInfo[part].file_size > _MAX_WORKBOOK:
            raise Refused(f"The part {part!r} is larger than 4 MiB.")
        return ElementTree.fromstring(archive.read(part))

    names = set(archive.namelist())
    if "xl/workbook.xml" not in names or "xl/_rels/workbook.xml.rels" not in names:
        raise Refused("The workbook lacks its list of sheets: the file is damaged.")
    targets = {
        relation.get("Id"): str(relation.get("Target", ""))
        for relation in parse("xl/_rels/workbook.xml.rels")
        if str(relation.get("Type", "")).endswith("/worksheet")
    }
    for element in parse("xl/workbook.xml").iter():
        if element.tag.rpartition("}")[2] == "sheet":
            identifier = next((value for key, value in element.attrib.items() if key.endswith("}id")), None)
            target = targets.get(identifier)
            if target is not None:
                part = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
                if part in names:
                    yield str(element.get("name")), part


def _extent(archive: zipfile.ZipFile, part: str, maximum: int, deadline: Deadline) -> Extent:
    extent, tail = Extent(), b""
    with archive.open(part) as content:
        while chunk := content.read(_CHUNK):
            data = tail + chunk
            # Not in the middle of a tag.
            end = max(data.rfind(b"<"), 0) if len(data) < 2 * _CHUNK else len(data)
            found = _CELL.findall(data, 0, end)
            if found:
                extent.cells += len(found)
                extent.columns = max(extent.columns, *map(_column, {letters for letters, _ in found}))
                extent.rows = max(extent.rows, *(int(row) for _, row in found))
            extent.rows = max(extent.rows, *map(int, _ROW.findall(data, 0, end)), 0)
            extent.formulas += len(_FORMULA.findall(data, 0, end))
            tail = data[end:]
            if extent.cells > maximum or deadline.passed():
                extent.counted = False
                break
    return extent


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number
