"""Workbooks: xlsx, xls, xlsb and ods. Values come from calamine, formulas from openpyxl."""

import datetime
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .result import Analysis, Deadline, File, Refused, counted, listed, long_text
from .workbook_table import SheetRows, describe_sheet
from .xlsx_formulas import find_formulas
from .xlsx_parts import Extent, ods_cells, sheet_extents, stream_rows
from .zip_bounds import check_office_zip

MAX_CELLS = 2_500_000
"""Of a sheet's bounding box, which calamine holds in memory: more are described by their first rows."""
MAX_XLS = 24 * 1024 * 1024
"""Bytes."""
SECONDS = 1.2
"""Until what is not read yet is left out."""
_MAX_SHEETS = 20
_HEAD_CELLS = 100_000
_TAIL_ROWS = 30
_MAX_CODE = 1_500
"""Characters of the code of one sheet among others."""


@dataclass
class _Workbook:
    file: File
    kind: str
    book: Any
    """calamine's, or None if the file is too large for it."""
    extents: dict[str, Extent]
    """Of the sheets of an xlsx, by their names."""
    deadline: Deadline = field(default_factory=lambda: Deadline(SECONDS))


def analyse(file: File, kind: str) -> Analysis:
    workbook = _open(file, kind)
    names, hidden, others = _sheet_names(workbook)
    if not names:
        raise Refused("The workbook has no sheet with cells.")
    skipped = [f"{counted(len(others), 'sheet')} without cells, such as charts: {listed(others)}."] if others else []
    sheets = []
    for index, name in enumerate(names):
        if index == _MAX_SHEETS or workbook.deadline.passed():
            skipped.append(
                f"{counted(len(names) - index, 'sheet')} not read, for lack of time: {listed(names[index:])}."
            )
            break
        sheets.append(_analyse_sheet(workbook, name, hidden, skipped))
    if kind == "xlsx" and any(extent.formulas for extent in workbook.extents.values()):
        _add_formulas(workbook, sheets, skipped)
    main = max(
        sheets, key=lambda sheet: (not sheet.get("hidden"), sheet.get("rows", 0) * sheet.get("column_count", 0))
    )
    code = main.get("how_to_read", "")
    for sheet in sheets:
        if len(sheet.get("how_to_read", "")) > _MAX_CODE:
            del sheet["how_to_read"]
            skipped.append(f"The code that reads the sheet {sheet['name']!r} alone is long: left out.")
        elif "how_to_read" in sheet:
            sheet["how_to_read"] = long_text(sheet["how_to_read"], _MAX_CODE)
    shown = ", ".join(f"{sheet['name']} ({counted(sheet.get('rows', 0), 'row')})" for sheet in sheets[:6])
    summary = f"Workbook ({kind}) with {counted(len(names), 'sheet')}: {shown}{', …' if len(names) > 6 else ''}"
    return Analysis(kind, summary, {"sheets": sheets, "main_sheet": main["name"]}, code, skipped)


def _open(file: File, kind: str) -> _Workbook:
    import python_calamine

    extents: dict[str, Extent] = {}
    if kind == "xls":
        if file.size > MAX_XLS:
            raise Refused(f"An xls file of {file.size:,} bytes; the maximum is {MAX_XLS:,}. Save it as xlsx or CSV.")
    else:
        check_office_zip(file)
    if kind == "xlsx":
        extents = sheet_extents(file, MAX_CELLS)
        if any(extent.is_too_large(MAX_CELLS) for extent in extents.values()):
            return _Workbook(file, kind, None, extents)
    elif kind == "ods" and (cells := ods_cells(file)) > MAX_CELLS:
        raise Refused(f"The sheets repeat cells to {cells:,}; the maximum is {MAX_CELLS:,}.")
    try:
        book = python_calamine.CalamineWorkbook.from_path(str(file.path))
    except python_calamine.PasswordError as error:
        raise Refused("The workbook is encrypted. Save it without a password.") from error
    return _Workbook(file, kind, book, extents)


def _sheet_names(workbook: _Workbook) -> tuple[list[str], dict[str, str], list[str]]:
    """The sheets with cells, how hidden ones are hidden, and the other sheets."""
    from python_calamine import SheetTypeEnum, SheetVisibleEnum

    if workbook.book is None:
        return list(workbook.extents), {}, []
    metadata = workbook.book.sheets_metadata
    hidden = {
        sheet.name: "hidden" if sheet.visible == SheetVisibleEnum.Hidden else "very hidden"
        for sheet in metadata
        if sheet.visible != SheetVisibleEnum.Visible
    }
    names = [sheet.name for sheet in metadata if sheet.typ == SheetTypeEnum.WorkSheet]
    return names, hidden, [sheet.name for sheet in metadata if sheet.name not in names]


def _analyse_sheet(workbook: _Workbook, name: str, hidden: dict[str, str], skipped: list[str]) -> dict[str, Any]:
    rows = _rows_of(workbook, name, skipped)
    described: dict[str, Any] = {"name": name}
    if name in hidden:
        described["hidden"] = hidden[name]
    return described | describe_sheet(workbook.file.name, name, rows, skipped)


def _rows_of(workbook: _Workbook, name: str, skipped: list[str]) -> SheetRows:
    """The first and the last rows of a sheet, as pandas gets them from calamine."""
    if workbook.book is None:
        extent = workbook.extents[name]
        skipped.append(f"The sheet {name!r} is large: only its first 200 rows were read.")
        first = stream_rows(workbook.file, name, 200)
        return SheetRows([_as_pandas(row) for row in first], [], max(extent.rows, len(first)), [])
    sheet = workbook.book.get_sheet_by_name(name)
    if sheet.end is None or sheet.start is None:
        return SheetRows([], [], 0, [])
    height, width = sheet.end[0] + 1, sheet.end[1] + 1
    if height * width > MAX_CELLS:
        skipped.append(f"The sheet {name!r} spans {height:,} x {width:,} cells: not read.")
        return SheetRows([], [], height, [])
    head: list[list[Any]] = []
    most = max(50, _HEAD_CELLS // width)
    tail: deque[list[Any]] = deque(maxlen=_TAIL_ROWS)
    left = [""] * sheet.start[1]
    for row in sheet.iter_rows():  # from the sheet's first row on, but without its empty first columns
        if len(head) < most:
            head.append(_as_pandas([*left, *row]))
        else:
            tail.append([*left, *row])
            if workbook.deadline.passed():
                skipped.append(f"The end of the sheet {name!r} was not looked at, for lack of time.")
                tail.clear()
                break
    merged = sheet.merged_cell_ranges or []
    return SheetRows(head, [_as_pandas(row) for row in tail], height, merged)


def _as_pandas(row: Sequence[Any]) -> list[Any]:
    """The conversions that pandas makes of calamine's values."""
    converted: list[Any] = []
    for value in row:
        if isinstance(value, float) and value.is_integer():
            converted.append(int(value))
        elif isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            converted.append(datetime.datetime(value.year, value.month, value.day))
        else:
            converted.append("" if value is None else value)
    return converted


def _add_formulas(workbook: _Workbook, sheets: list[dict[str, Any]], skipped: list[str]) -> None:
    """Puts the number of formulas, examples, and how many have no saved value into the sheets."""
    found, whole = find_formulas(workbook.file, [sheet["name"] for sheet in sheets], Deadline(0.5))
    for sheet in sheets:
        extent = workbook.extents.get(sheet["name"])
        if extent and extent.formulas:
            sheet["formulas"] = extent.formulas
            sheet["formula_examples"] = found.get(sheet["name"], [])
            without = sum(example["value"] is None for example in sheet["formula_examples"])
            if without:
                skipped.append(
                    f"Formulas of the sheet {sheet['name']!r} have no saved value, and are read as missing: "
                    "open and save the workbook in a spreadsheet program."
                )
    if not whole:
        skipped.append("Examples of formulas come from the beginning of the workbook.")
