"""Workbooks: each sheet is read right, by the code that the analysis gives."""

import datetime
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlwt

from server.sandbox.inside.analysis import workbook, xlsx_parts
from tests.support.analysed import analyse_bytes, execute, values_of

DAY = datetime.datetime(2024, 1, 2)
NEXT = datetime.datetime(2024, 1, 3)


@dataclass(frozen=True)
class Case:
    name: str
    rows: list[list[Any]]
    types: dict[str, str]
    """`i` integer, `f` float, `t` text, `d` date, `b` boolean."""
    first: list[Any]
    count: int
    last: list[Any] | None = None
    at: tuple[int, int] = (1, 1)
    """Row and column of the first cell, from 1."""
    merged: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    """A part of what the analysis says about the sheet."""


CASES = [
    Case("plain", [["a", "b"], [1, "x"], [2, "y"]], {"a": "i", "b": "t"}, [1, "x"], 2, [2, "y"]),
    Case(
        "floats, booleans, dates",
        [["f", "b", "d"], [1.5, True, DAY], [2.5, False, NEXT]],
        {"f": "f", "b": "b", "d": "d"},
        [1.5, True, "2024-01-02"],
        2,
    ),
    Case("not at A1", [["a", "b"], [1, "x"], [2, "y"]], {"a": "i", "b": "t"}, [1, "x"], 2, at=(4, 3)),
    Case("empty rows above", [["a", "b"], [1, 2], [2, 3]], {"a": "i", "b": "i"}, [1, 2], 2, at=(6, 1)),
    Case(
        "a title",
        [["Results"], ["a", "b", "c"], [1, 2, 3], [4, 5, 6]],
        {"a": "i", "b": "i", "c": "i"},
        [1, 2, 3],
        2,
        details={"text_above": ["Results"]},
    ),
    Case(
        "a merged title",
        [["Results", None, None], ["a", "b", "c"], [1, 2, 3], [4, 5, 6]],
        {"a": "i", "b": "i", "c": "i"},
        [1, 2, 3],
        2,
        merged=("A1:C1",),
    ),
    Case(
        "a title and an empty row",
        [["Results"], [], ["a", "b", "c"], [1, 2, 3], [4, 5, 6]],
        {"a": "i", "b": "i", "c": "i"},
        [1, 2, 3],
        2,
    ),
    Case(
        "merged groups",
        [["Name", 2020, None, 2021, None], [None, "Q1", "Q2", "Q1", "Q2"], ["Ann", 1, 2, 3, 4], ["Bob", 2, 3, 4, 5]],
        {"Name": "t", "2020 Q1": "i", "2020 Q2": "i", "2021 Q1": "i", "2021 Q2": "i"},
        ["Ann", 1, 2, 3, 4],
        2,
        merged=("A1:A2", "B1:C1", "D1:E1"),
    ),
    Case(
        "groups with words",
        [
            ["Name", "before", None, "after", None],
            [None, "mean", "sd", "mean", "sd"],
            ["Ann", 1.5, 2.5, 3.5, 4.5],
            ["Bob", 2.5, 3.5, 4.5, 5.5],
        ],
        {"Name": "t", "before mean": "f", "before sd": "f", "after mean": "f", "after sd": "f"},
        ["Ann", 1.5, 2.5, 3.5, 4.5],
        2,
        merged=("A1:A2", "B1:C1", "D1:E1"),
    ),
    Case(
        "units",
        [["t", "v"], ["[s]", "[V]"], [1, 2.5], [2, 3.5]],
        {"t": "i", "v": "f"},
        [1, 2.5],
        2,
        details={"units": {"t": "[s]", "v": "[V]"}},
    ),
    Case(
        "a total",
        [["n", "v"], ["a", 1], ["b", 2], ["Total", 3]],
        {"n": "t", "v": "i"},
        ["a", 1],
        2,
        ["b", 2],
        details={"left_out_at_the_end": ["Total"]},
    ),
    Case(
        "a total after an empty row",
        [["n", "v"], ["a", 1], ["b", 2], [], ["Summe", 3]],
        {"n": "t", "v": "i"},
        ["a", 1],
        2,
        ["b", 2],
    ),
    Case(
        "a remark at the end",
        [["a", "b", "c"], [1, 2, 3], [4, 5, 6], [], ["Source: us"]],
        {"a": "i", "b": "i", "c": "i"},
        [1, 2, 3],
        2,
    ),
    Case("leading zeros as text", [["id", "n"], ["007", 1], ["008", 2]], {"id": "t", "n": "i"}, ["007", 1], 2),
    Case("numbers as text", [["v", "n"], ["1.5", 1], ["2.5", 2]], {"v": "f", "n": "i"}, [1.5, 1], 2),
    Case("decimal commas as text", [["v", "n"], ["1,5", 1], ["2,5", 2]], {"v": "f", "n": "i"}, [1.5, 1], 2),
    Case("thousands as text", [["v", "n"], ["1.234,5", 1], ["2.234,5", 2]], {"v": "f", "n": "i"}, [1234.5, 1], 2),
    Case(
        "many texts that are numbers",
        [[*"abcd"], ["1,5", "2,5", "3,5", "5 %"], ["1,5", "2,5", "3,5", "6 %"]],
        {"a": "f", "b": "f", "c": "f", "d": "i"},
        [1.5, 2.5, 3.5, 5],
        2,
    ),
    Case("a header only", [["a", "b"]], {"a": "t", "b": "t"}, [], 0, at=(2, 3)),
    Case(
        "dates as text",
        [["d", "n"], ["13.02.2023", 1], ["14.02.2023", 2]],
        {"d": "d", "n": "i"},
        ["2023-02-13", 1],
        2,
    ),
    Case("missing cells", [["a", "b"], [1, None], [None, "x"], [3, "y"]], {"a": "f", "b": "t"}, [1.0, None], 3),
    Case("dashes among numbers", [["a", "b"], [1, "-"], [2, 5], [3, 6]], {"a": "i", "b": "f"}, [1, None], 3),
    Case(
        "n/a among dates", [["d", "b"], [DAY, 1], ["n/a", 5], [NEXT, 6]], {"d": "d", "b": "i"}, ["2024-01-02", 1], 3
    ),
    Case(
        "no header",
        [[1, "x"], [2, "y"], [3, "z"]],
        {"column_1": "i", "column_2": "t"},
        [1, "x"],
        3,
        details={"has_header": False},
    ),
    Case(
        "a name that is missing",
        [[None, "a", "b"], ["r1", 1, 2], ["r2", 3, 4]],
        {"column_1": "t", "a": "i", "b": "i"},
        ["r1", 1, 2],
        2,
    ),
    Case("names that are equal", [["a", "a"], [1, 2], [3, 4]], {"a": "i", "a.1": "i"}, [1, 2], 2),
    Case(
        "years as names",
        [["land", 2020, 2021], ["DE", 1, 2], ["FR", 3, 4]],
        {"land": "t", "2020": "i", "2021": "i"},
        ["DE", 1, 2],
        2,
    ),
    Case("an empty row among the data", [["a", "b"], [1, "x"], [], [2, "y"]], {"a": "f", "b": "t"}, [1.0, "x"], 3),
    Case(
        "times of day",
        [["t", "n"], [datetime.time(10, 5), 1], [datetime.time(11, 5), 2]],
        {"t": "t", "n": "i"},
        ["10:05:00", 1],
        2,
    ),
    Case(
        "texts of several lines",
        [["t", "n"], ["one\ntwo", 1], ["three", 2]],
        {"t": "t", "n": "i"},
        ["one\ntwo", 1],
        2,
    ),
    Case("one column", [["name"], ["Ann"], ["Bob"]], {"name": "t"}, ["Ann"], 2),
    Case(
        "large integers", [["n", "m"], [12345678901, 1], [22345678901, 2]], {"n": "i", "m": "i"}, [12345678901, 1], 2
    ),
]


def _letter(dtype: Any) -> str:
    return "t" if str(dtype) in ("str", "object") else {"i": "i", "f": "f", "M": "d", "b": "b"}[dtype.kind]


def check(case: Case, name: str, content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    analysis = analyse_bytes(folder, name, content)
    sheet = analysis["details"]["sheets"][0]
    frame = execute(analysis, folder, monkeypatch)["df"]
    assert sheet["how_to_read"] == analysis["how_to_read"]
    assert list(frame.columns) == list(case.types) == [column["name"] for column in sheet["columns"]]
    assert len(frame) == case.count == sheet["rows"]
    if case.count:
        assert {key: _letter(dtype) for key, dtype in frame.dtypes.items()} == case.types
        assert values_of(frame) == case.first
    if case.last:
        assert values_of(frame, -1) == case.last
    for key, value in case.details.items():
        assert sheet[key] == value
    assert "Unnamed" not in str(analysis) and "nan" not in str(sheet["first_rows"])
    return analysis


def xlsx(case: Case) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Data"
    for row, values in enumerate(case.rows, case.at[0]):
        for column, value in enumerate(values, case.at[1]):
            sheet.cell(row, column, value)
    for merged in case.merged:
        sheet.merge_cells(merged)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def xls(case: Case) -> bytes:
    book = xlwt.Workbook()
    sheet = book.add_sheet("Data")
    formats = {datetime.datetime: "YYYY-MM-DD", datetime.time: "HH:MM:SS"}
    covered = {cell for merged in case.merged for cell in _cells(merged)}
    for row, values in enumerate(case.rows, case.at[0] - 1):
        for column, value in enumerate(values, case.at[1] - 1):
            if value is None or (row, column) in covered:
                continue
            if type(value) in formats:
                sheet.write(row, column, value, xlwt.easyxf(num_format_str=formats[type(value)]))
            else:
                sheet.write(row, column, value)
    for merged in case.merged:
        (top, left), (bottom, right) = _corners(merged)
        sheet.write_merge(top, bottom, left, right, case.rows[top][left])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def _corners(merged: str) -> list[tuple[int, int]]:
    return [(int(cell[1:]) - 1, ord(cell[0]) - 65) for cell in merged.split(":")]


def _cells(merged: str) -> list[tuple[int, int]]:
    (top, left), (bottom, right) = _corners(merged)
    return [(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)]


def ods(case: Case) -> bytes:
    """The least that is an OpenDocument spreadsheet. Merged ranges are left out."""
    empty_rows = "<table:table-row><table:table-cell/></table:table-row>" * (case.at[0] - 1)
    rows = "".join(
        "<table:table-row>"
        + "<table:table-cell/>" * (case.at[1] - 1)
        + "".join(map(_ods_cell, row))
        + "</table:table-row>"
        for row in case.rows
    )
    content = (
        '<?xml version="1.0" encoding="UTF-8"?><office:document-content'
        ' xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
        ' xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"'
        ' xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:spreadsheet>'
        f'<table:table table:name="Data">{empty_rows}{rows}</table:table>'
        "</office:spreadsheet></office:body></office:document-content>"
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet", zipfile.ZIP_STORED)
        archive.writestr("content.xml", content)
        archive.writestr(
            "META-INF/manifest.xml",
            '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>',
        )
    return stream.getvalue()


def _ods_cell(value: Any) -> str:
    if value is None:
        return "<table:table-cell/>"
    if isinstance(value, bool):
        kind = f'office:value-type="boolean" office:boolean-value="{str(value).lower()}"'
    elif isinstance(value, int | float):
        kind = f'office:value-type="float" office:value="{value}"'
    elif isinstance(value, datetime.datetime):
        kind = f'office:value-type="date" office:date-value="{value.date().isoformat()}"'
    else:
        kind = 'office:value-type="string"'
    text = "".join(f"<text:p>{line}</text:p>" for line in str(value).split("\n"))
    return f"<table:table-cell {kind}>{text}</table:table-cell>"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_xlsx_is_read_right(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case, "book.xlsx", xlsx(case), tmp_path, monkeypatch)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_xls_is_read_right(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case, "book.xls", xls(case), tmp_path, monkeypatch)


PLAIN = [case for case in CASES if not case.merged and case.name != "times of day"]


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_an_ods_is_read_right(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case, "book.ods", ods(case), tmp_path, monkeypatch)


def _saved(change: Callable[[openpyxl.Workbook], None]) -> bytes:
    book = openpyxl.Workbook()
    change(book)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def test_dates_since_1904(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(book: openpyxl.Workbook) -> None:
        from openpyxl.utils.datetime import CALENDAR_MAC_1904

        book.epoch = CALENDAR_MAC_1904
        for row in (["d", "n"], [DAY, 1], [NEXT, 2]):
            book.active.append(row)

    analysis = analyse_bytes(tmp_path, "mac.xlsx", _saved(change))
    assert values_of(execute(analysis, tmp_path, monkeypatch)["df"]) == ["2024-01-02", 1]


def test_sheets_hidden_ones_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(book: openpyxl.Workbook) -> None:
        for name, state in (("seen", "visible"), ("hidden", "hidden"), ("deep", "veryHidden"), ("empty", "visible")):
            sheet = book.create_sheet(name)
            sheet.sheet_state = state
            if name != "empty":
                sheet.append(["who", name])
                sheet.append(["x", 1])
                sheet.append(["y", 2])
        del book["Sheet"]

    analysis = analyse_bytes(tmp_path, "book.xlsx", _saved(change))
    sheets = {sheet["name"]: sheet for sheet in analysis["details"]["sheets"]}
    assert [sheet.get("hidden") for sheet in sheets.values()] == [None, "hidden", "very hidden", None]
    assert sheets["empty"]["rows"] == 0 and analysis["details"]["main_sheet"] == "seen"
    for name in ("seen", "hidden", "deep"):
        frame = execute(analysis, tmp_path, monkeypatch, sheets[name]["how_to_read"])["df"]
        assert list(frame.columns) == ["who", name]


def test_formulas_and_their_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import xlsxwriter

    path = tmp_path / "formulas.xlsx"
    book = xlsxwriter.Workbook(str(path))
    sheet = book.add_worksheet("Sum")
    for row, values in enumerate([["a", "b"], [1, 2], [3, 4]]):
        sheet.write_row(row, 0, values)
    sheet.write("C1", "c")
    sheet.write_formula("C2", "=A2+B2", None, 3)
    sheet.write_formula("C3", "=SUM(A3:B3)", None, 7)
    book.close()
    analysis = analyse_bytes(tmp_path, "formulas.xlsx", path.read_bytes())
    described = analysis["details"]["sheets"][0]
    assert described["formulas"] == 2
    assert described["formula_examples"] == [
        {"cell": "C2", "formula": "=A2+B2", "value": 3},
        {"cell": "C3", "formula": "=SUM(A3:B3)", "value": 7},
    ]
    assert execute(analysis, tmp_path, monkeypatch)["df"]["c"].tolist() == [3, 7]


def test_formulas_without_a_saved_value_are_said(tmp_path: Path) -> None:
    def change(book: openpyxl.Workbook) -> None:
        for row in (["a", "b"], [1, "=A2*2"], [2, "=A3*2"]):
            book.active.append(row)

    analysis = analyse_bytes(tmp_path, "book.xlsx", _saved(change))
    assert any("no saved value" in reason for reason in analysis["skipped"])


def test_many_columns_are_named_by_their_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(book: openpyxl.Workbook) -> None:
        book.active.append([f"a rather long name {number}" for number in range(900)])
        for row in range(3):
            book.active.append([row] * 900)

    analysis = analyse_bytes(tmp_path, "wide.xlsx", _saved(change))
    assert len(analysis["how_to_read"]) <= 16_000
    frame = execute(analysis, tmp_path, monkeypatch)["df"]
    assert frame.shape == (3, 900) and frame.columns[-1] == "a rather long name 899"


def test_a_large_sheet_is_described_by_its_first_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import xlsxwriter

    path = tmp_path / "large.xlsx"
    book = xlsxwriter.Workbook(str(path), {"constant_memory": True})
    sheet = book.add_worksheet("Data")
    sheet.write_row(0, 0, ["a", "b", "c"])
    for row in range(1, 60_001):
        sheet.write_row(row, 0, [row, row * 0.5, row % 3])
    book.close()
    for module, name in ((workbook, "SECONDS"), (xlsx_parts, "COUNTING_SECONDS")):
        monkeypatch.setattr(module, name, 60.0)  # a slow machine counts fewer rows in its time
    analysis = analyse_bytes(tmp_path, "large.xlsx", path.read_bytes())
    assert analysis["details"]["sheets"][0]["rows"] == 60_000
    assert any("first" in reason for reason in analysis["skipped"])
    assert len(execute(analysis, tmp_path, monkeypatch)["df"]) == 60_000
