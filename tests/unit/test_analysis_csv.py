"""Dialects of CSV: each is read right, by the code that the analysis gives."""

import csv
import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.sandbox.inside.analysis import analyse, profile
from tests.support.analysed import analyse_bytes, execute, values_of


@dataclass(frozen=True)
class Case:
    name: str
    content: str | bytes
    types: dict[str, str]
    """Of the columns, in order: `i` integer, `f` float, `t` text, `d` date, `b` boolean."""
    first: list[Any]
    rows: int
    last: list[Any] | None = None
    file: str = "data.csv"
    note: str = ""
    """A part of one of the notes or remarks about columns."""

    def bytes(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.encode()


CASES = [
    Case("plain", "a,b\n1,2\n3,4\n", {"a": "i", "b": "i"}, [1, 2], 2, [3, 4]),
    Case("no line end at the end", "a,b\n1,2\n3,4", {"a": "i", "b": "i"}, [1, 2], 2, [3, 4]),
    Case("CRLF", "a,b\r\n1,2\r\n3,4\r\n", {"a": "i", "b": "i"}, [1, 2], 2),
    Case("CR alone", "a,b\r1,2\r3,4\r", {"a": "i", "b": "i"}, [1, 2], 2),
    Case("semicolons and decimal commas", "a;b\n1,5;2\n3,25;4\n", {"a": "f", "b": "i"}, [1.5, 2], 2),
    Case("semicolons, points and quoted words", 'a;b\n1.5;"x; y"\n2.5;"z"\n', {"a": "f", "b": "t"}, [1.5, "x; y"], 2),
    Case("thousands with points", "p;q\n1.234,5;1\n12.234,75;2\n", {"p": "f", "q": "i"}, [1234.5, 1], 2),
    Case("thousands with commas, quoted", 'p,q\n"1,234.5",1\n"12,234.75",2\n', {"p": "f", "q": "i"}, [1234.5, 1], 2),
    Case(
        "thousands with commas, tabs",
        "p\tq\n1,234\t1\n12,345\t2\n",
        {"p": "i", "q": "i"},
        [1234, 1],
        2,
        note="thousands",
    ),
    Case("thousands with spaces", "p;q\n1 234,5;1\n12 234,5;2\n", {"p": "f", "q": "i"}, [1234.5, 1], 2),
    Case(
        "thousands with no-break spaces",
        "p;q\n1\u00a0234,5;1\n12\u00a0234,5;2\n",
        {"p": "f", "q": "i"},
        [1234.5, 1],
        2,
    ),
    Case(
        "thousands with narrow spaces", "p;q\n1\u202f234,5;1\n2\u202f234,5;2\n", {"p": "f", "q": "i"}, [1234.5, 1], 2
    ),
    Case("thousands with apostrophes", "p;q\n1'234.5;1\n12'234.5;2\n", {"p": "f", "q": "i"}, [1234.5, 1], 2),
    Case(
        "thousands, and dates with points",
        "p;d\n1.234,5;01.02.2023\n2.234,5;13.02.2023\n",
        {"p": "f", "d": "d"},
        [1234.5, "2023-02-01"],
        2,
    ),
    Case(
        "thousands, and versions", "p;v\n1.234,5;1.2.3\n2.234,5;1.3.0\n", {"p": "f", "v": "t"}, [1234.5, "1.2.3"], 2
    ),
    Case("decimal comma before three digits", "p;q\n1,234;1\n0,345;2\n", {"p": "f", "q": "i"}, [1.234, 1], 2),
    Case("decimal comma in the only column", "value\n1,5\n2,5\n", {"value": "f"}, [1.5], 2),
    Case("decimal comma, commas as separators", 'p,q\n"1,5",1\n"2,25",2\n', {"p": "f", "q": "i"}, [1.5, 1], 2),
    Case("negative numbers and exponents", "p,q\n-1.5,1e3\n+2.5,2.5E-3\n", {"p": "f", "q": "f"}, [-1.5, 1000.0], 2),
    Case("minus sign", "p,q\n\u22121.5,1\n2.5,2\n", {"p": "f", "q": "i"}, [-1.5, 1], 2),
    Case("percent", "p,q\n12%,1\n50%,2\n", {"p": "i", "q": "i"}, [12, 1], 2, note="percent"),
    Case("percent with decimal commas", "p;q\n12,5 %;1\n50,0 %;2\n", {"p": "f", "q": "i"}, [12.5, 1], 2),
    Case("dollars", 'p,q\n"$1,200.50",1\n$20.00,2\n', {"p": "f", "q": "i"}, [1200.5, 1], 2),
    Case("euros", "p;q\n1.200,50 €;1\n20,00 €;2\n", {"p": "f", "q": "i"}, [1200.5, 1], 2),
    Case("tabs", "a\tb\nx y\t2\nz\t4\n", {"a": "t", "b": "i"}, ["x y", 2], 2, file="data.tsv"),
    Case("tabs in a .csv", "a\tb\n1\t2\n3\t4\n", {"a": "i", "b": "i"}, [1, 2], 2),
    Case("tabs with empty rows of fields", "a\tb\n1\t2\n\t\n3\t4\n", {"a": "f", "b": "f"}, [1.0, 2.0], 3),
    Case("pipes", "a|b|c\n1|x|+\n2|y|-\n", {"a": "i", "b": "t", "c": "t"}, [1, "x", "+"], 2, [2, "y", "-"]),
    Case("carets", "a^b\n1^x\n2^y\n", {"a": "i", "b": "t"}, [1, "x"], 2),
    Case("tildes", "a~b\n1~x, y\n2~y\n", {"a": "i", "b": "t"}, [1, "x, y"], 2),
    Case("unit separators", "a\x1fb\n1\x1fx\n2\x1fy\n", {"a": "i", "b": "t"}, [1, "x"], 2),
    Case(
        "columns of spaces",
        "time   value\n1      2.5\n10     3.5\n100    4.5\n",
        {"time": "i", "value": "f"},
        [1, 2.5],
        3,
        file="data.dat",
    ),
    Case(
        "lines that begin with spaces",
        "  t  v\n  1  2.5\n 10  3.5\n",
        {"t": "i", "v": "f"},
        [1, 2.5],
        2,
        file="data.dat",
    ),
    Case("sep=", "sep=;\na;b\n1,5;2\n2,5;3\n", {"a": "f", "b": "i"}, [1.5, 2], 2),
    Case("sep= with a comma", "sep=,\r\na,b\r\n1.5,2\r\n", {"a": "f", "b": "i"}, [1.5, 2], 1),
    Case(
        "space after commas", 'a, b, c\n1, "x, y", 2\n3, "z", 4\n', {"a": "i", "b": "t", "c": "i"}, [1, "x, y", 2], 2
    ),
    Case("line ends in quotes", 'a,b\n"one\ntwo",1\n"three",2\n', {"a": "t", "b": "i"}, ["one\ntwo", 1], 2),
    Case("doubled quotes", 'a,b\n"5"" pipe",1\n"x",2\n', {"a": "t", "b": "i"}, ['5" pipe', 1], 2),
    Case("escaped quotes", 'a,b\n"x \\"q\\", 1",2\n"y",3\n', {"a": "t", "b": "i"}, ['x "q", 1', 2], 2),
    Case("single quotes", "a,b\n'x,1',2\n'y,2',3\n'z,3',4\n", {"a": "t", "b": "i"}, ["x,1", 2], 3),
    Case("apostrophes", "a,b\nO'Neil,2\nd'Or,3\n", {"a": "t", "b": "i"}, ["O'Neil", 2], 2),
    Case("inches", 'a,b\n5" pipe,1\n6" pipe,2\n', {"a": "t", "b": "i"}, ['5" pipe', 1], 2),
    Case("all quoted", '"a","b"\n"1","x"\n"2","y"\n', {"a": "i", "b": "t"}, [1, "x"], 2),
    Case("leading zeros", "zip,n\n01234,1\n99999,2\n", {"zip": "t", "n": "i"}, ["01234", 1], 2, note="leading zeros"),
    Case("telephone numbers", "tel,n\n+4912345678,1\n+4923456789,2\n", {"tel": "t", "n": "i"}, ["+4912345678", 1], 2),
    Case(
        "long digits",
        "id,n\n12345678901234567890,1\n22345678901234567891,2\n",
        {"id": "t", "n": "i"},
        ["12345678901234567890", 1],
        2,
    ),
    Case(
        "wells that look like exponents",
        "well,v\n1E05,1\n2E05,2\n",
        {"well": "t", "v": "i"},
        ["1E05", 1],
        2,
        note="name",
    ),
    Case("no header", "1,2\n3,4\n5,6\n", {"column_1": "i", "column_2": "i"}, [1, 2], 3),
    Case(
        "no header, with words",
        "Ann,12,1.5\nBob,13,2.5\n",
        {"column_1": "t", "column_2": "i", "column_3": "f"},
        ["Ann", 12, 1.5],
        2,
    ),
    Case(
        "no header, words that come again",
        "Ann,Rome\nBob,Paris\nAnn,Bonn\n",
        {"column_1": "t", "column_2": "t"},
        ["Ann", "Rome"],
        3,
    ),
    Case("header only", "a,b,c\n", {"a": "t", "b": "t", "c": "t"}, [], 0),
    Case("one column", "name\nAnn\nBob\n", {"name": "t"}, ["Ann"], 2),
    Case(
        "years as names", "land,1990,1991\nDE,1,2\nFR,2,3\n", {"land": "t", "1990": "i", "1991": "i"}, ["DE", 1, 2], 2
    ),
    Case("index without a name", ",a,b\n0,1,2\n1,3,4\n", {"column_1": "i", "a": "i", "b": "i"}, [0, 1, 2], 2),
    Case(
        "names of rows, as R writes", "a,b\nr1,1,2\nr2,3,4\n", {"column_1": "t", "a": "i", "b": "i"}, ["r1", 1, 2], 2
    ),
    Case(
        "R, quoted",
        '"a" "b"\n"r1" 1 2.5\n"r2" 3 4.5\n',
        {"column_1": "t", "a": "i", "b": "f"},
        ["r1", 1, 2.5],
        2,
        file="data.dat",
    ),
    Case("names that are equal", "a,a,b\n1,2,3\n4,5,6\n", {"a": "i", "a.1": "i", "b": "i"}, [1, 2, 3], 2),
    Case("names with spaces around", " a , b \n1,2\n3,4\n", {"a": "i", "b": "i"}, [1, 2], 2),
    Case("an empty name", "a,,c\n1,x,3\n4,y,6\n", {"a": "i", "column_2": "t", "c": "i"}, [1, "x", 3], 2),
    Case(
        "separator at the end of all lines",
        "a,b,\n1,2,\n3,4,\n",
        {"a": "i", "b": "i", "column_3": "f"},
        [1, 2, None],
        2,
    ),
    Case("separator at the end of the data", "a,b\n1,2,\n3,4,\n", {"a": "i", "b": "i"}, [1, 2], 2),
    Case("fields left out at the end", "a,b,c\n1,2,3\n4,5\n6,7,8\n", {"a": "i", "b": "i", "c": "f"}, [1, 2, 3.0], 3),
    Case("a line with too many fields", "a,b\n1,2\n3,4\n5,6,7\n8,9\n", {"a": "i", "b": "i"}, [1, 2], 3, [8, 9]),
    Case("empty lines", "\n\na,b\n\n1,2\n\n3,4\n\n", {"a": "i", "b": "i"}, [1, 2], 2),
    Case("a title", "Results of 2024\na,b,c\n1,2,3\n4,5,6\n", {"a": "i", "b": "i", "c": "i"}, [1, 2, 3], 2),
    Case(
        "a title and an empty line",
        "Results, all\n\na;b;c\n1;2;3\n4;5;6\n",
        {"a": "i", "b": "i", "c": "i"},
        [1, 2, 3],
        2,
    ),
    Case(
        "lines of an instrument",
        "Operator;Ann\nDate;2024-01-02\n\nt;temp;ok\n1;2,5;True\n2;3,5;False\n",
        {"t": "i", "temp": "f", "ok": "b"},
        [1, 2.5, True],
        2,
    ),
    Case(
        "a title padded with separators",
        "Report,,\n,,\na,b,c\n1,x,3\n2,y,4\n",
        {"a": "i", "b": "t", "c": "i"},
        [1, "x", 3],
        2,
    ),
    Case(
        "units below the header",
        "name,temp,p\n,°C,bar\nA,1.5,2\nB,2.5,3\n",
        {"name": "t", "temp": "f", "p": "i"},
        ["A", 1.5, 2],
        2,
    ),
    Case(
        "units below a title",
        "T\nt,v,w\n[s],[V],[A]\n1,2.5,1\n2,3.5,1\n",
        {"t": "i", "v": "f", "w": "i"},
        [1, 2.5, 1],
        2,
    ),
    Case(
        "a total", "name,score\nAnn,10\nBob,20\nTotal,30\n", {"name": "t", "score": "i"}, ["Ann", 10], 2, ["Bob", 20]
    ),
    Case(
        "a total below dates",
        "d;n;m\n01.02.2023;1;2\n02.02.2023;2;3\nSumme;3;5\n",
        {"d": "d", "n": "i", "m": "i"},
        ["2023-02-01", 1, 2],
        2,
    ),
    Case(
        "a remark at the end",
        "a,b,c\n1,2,3\n4,5,6\n\nSource: the ministry\n",
        {"a": "i", "b": "i", "c": "i"},
        [1, 2, 3],
        2,
    ),
    Case("comments above", "# made by x\n# on Monday\na,b\n1,2\n3,4\n", {"a": "i", "b": "i"}, [1, 2], 2),
    Case(
        "a comment as header",
        "# made by x\n# time value\n1 2.5\n2 3.5\n3 4.5\n",
        {"time": "i", "value": "f"},
        [1, 2.5],
        3,
        file="data.dat",
    ),
    Case("comments among the data", "a,b\n1,2\n# a pause\n3,4\n", {"a": "i", "b": "i"}, [1, 2], 2, [3, 4]),
    Case(
        "values that begin with #",
        "#1 5\n#2 6\n#3 7\n",
        {"column_1": "t", "column_2": "i"},
        ["#1", 5],
        3,
        file="data.dat",
    ),
    Case("an apostrophe in a comment", "# Ann's file\na,b\n1,2\n3,4\n", {"a": "i", "b": "i"}, [1, 2], 2),
    Case("NA and empty fields", "a,b\n1,\nNA,x\n3,y\n", {"a": "f", "b": "t"}, [1.0, None], 3),
    Case("dashes for missing numbers", "a,b\n1,-\n2,3\n3,4\n", {"a": "i", "b": "f"}, [1, None], 3),
    Case("dashes that are values", "strand,n\n+,1\n-,2\n", {"strand": "t", "n": "i"}, ["+", 1], 2, ["-", 2]),
    Case("n/a and k.A.", "a;b\n1,5;n/a\nk.A.;3\n2,5;4\n", {"a": "f", "b": "f"}, [1.5, None], 3),
    Case("errors of Excel", "a,b\n1,#DIV/0!\n2,3.5\n3,#N/A\n4,1.5\n", {"a": "i", "b": "f"}, [1, None], 4),
    Case("points for missing, as SAS writes", "a,b\n1,.\n2,3.5\n3,4.5\n", {"a": "i", "b": "f"}, [1, None], 3),
    Case("missing dates", "d,n\n2024-01-02,1\n-,2\n2024-01-03,3\n", {"d": "d", "n": "i"}, ["2024-01-02", 1], 3),
    Case("booleans", "a,b\ntrue,1\nfalse,2\n", {"a": "b", "b": "i"}, [True, 1], 2),
    Case("dates, ISO", "d,n\n2024-01-02,1\n2024-01-03,2\n", {"d": "d", "n": "i"}, ["2024-01-02", 1], 2),
    Case(
        "times, ISO",
        "d,n\n2024-01-02T10:11:12,1\n2024-01-03T10:11:12.5,2\n",
        {"d": "d", "n": "i"},
        ["2024-01-02T10:11:12", 1],
        2,
    ),
    Case(
        "times with zones",
        "d,n\n2024-01-01T10:00:00+02:00,1\n2024-07-01T10:00:00+01:00,2\n",
        {"d": "d", "n": "i"},
        ["2024-01-01T08:00:00+00:00", 1],
        2,
    ),
    Case(
        "times with Z",
        "d,n\n2024-01-01 10:00Z,1\n2024-07-01 10:00Z,2\n",
        {"d": "d", "n": "i"},
        ["2024-01-01T10:00:00+00:00", 1],
        2,
    ),
    Case(
        "day first, shown by a day above 12",
        "d,n\n01/02/2023,1\n13/02/2023,2\n",
        {"d": "d", "n": "i"},
        ["2023-02-01", 1],
        2,
    ),
    Case(
        "month first, shown by a day above 12",
        "d,n\n01/02/2023,1\n02/13/2023,2\n",
        {"d": "d", "n": "i"},
        ["2023-01-02", 1],
        2,
    ),
    Case(
        "day first, shown by another column",
        "d,e\n01/02/2023,25/02/2023\n03/04/2023,26/04/2023\n",
        {"d": "d", "e": "d"},
        ["2023-02-01", "2023-02-25"],
        2,
    ),
    Case("day first, with points", "d,n\n01.02.2023,1\n03.04.2023,2\n", {"d": "d", "n": "i"}, ["2023-02-01", 1], 2),
    Case(
        "day first, with semicolons",
        "d;n\n01/02/2023;1,5\n03/04/2023;2,5\n",
        {"d": "d", "n": "f"},
        ["2023-02-01", 1.5],
        2,
    ),
    Case(
        "day or month first, undecided",
        "d,n\n01/02/2023,1\n03/04/2023,2\n",
        {"d": "t", "n": "i"},
        ["01/02/2023", 1],
        2,
        note="left as text",
    ),
    Case("years of two digits", "d;n\n01.02.23;1\n13.04.23;2\n", {"d": "d", "n": "i"}, ["2023-02-01", 1], 2),
    Case("names of months", "d,n\n01-Feb-2023,1\n13-Mar-2023,2\n", {"d": "d", "n": "i"}, ["2023-02-01", 1], 2),
    Case(
        "long names of months",
        'd,n\n"February 1, 2023",1\n"March 13, 2023",2\n',
        {"d": "d", "n": "i"},
        ["2023-02-01", 1],
        2,
    ),
    Case(
        "times of twelve hours",
        "d,n\n02/13/2023 01:05 PM,1\n02/14/2023 11:05 AM,2\n",
        {"d": "d", "n": "i"},
        ["2023-02-13T13:05:00", 1],
        2,
    ),
    Case("times of day", "t,n\n10:05,1\n11:05,2\n", {"t": "t", "n": "i"}, ["10:05", 1], 2),
    Case(
        "a date that does not exist", "d,n\n2023-02-30,1\n2023-03-01,2\n", {"d": "t", "n": "i"}, ["2023-02-30", 1], 2
    ),
    Case("form feeds", "a,b\nx\fy,1\nz,2\n", {"a": "t", "b": "i"}, ["x\fy", 1], 2),
]
LETTERS = {"i": "iu", "f": "f", "t": "OT", "d": "M", "b": "b"}


def _letter(dtype: Any) -> str:
    return (
        "t"
        if str(dtype) in ("str", "object", "string")
        else next(k for k, kinds in LETTERS.items() if dtype.kind in kinds)
    )


def check(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    analysis = analyse_bytes(folder, case.file, case.bytes())
    assert analysis["kind"] in ("csv", "tsv")
    frame = execute(analysis, folder, monkeypatch)["df"]
    described = {column["name"]: column["type"] for column in analysis["details"]["columns"]}
    assert list(frame.columns) == list(case.types) == list(described)
    assert len(frame) == case.rows == analysis["details"]["rows"]
    if case.rows:
        assert {name: _letter(dtype) for name, dtype in frame.dtypes.items()} == case.types
        assert values_of(frame) == case.first
    if case.last:
        assert values_of(frame, -1) == case.last
    if case.note:
        remarks = [
            *analysis["details"]["notes"],
            *(column.get("note", "") for column in analysis["details"]["columns"]),
        ]
        assert any(case.note in remark for remark in remarks)
    assert "Unnamed" not in str(analysis)
    assert "nan" not in str(analysis["details"]["first_rows"])
    return analysis


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_dialect_is_read_right(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case, tmp_path, monkeypatch)


SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
NUMBERS = {"point": (".", ""), "decimal comma": (",", ""), "1.234,5": (",", "."), "1,234.5": (".", ",")}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252")


def _number(value: float, decimal: str, thousands: str) -> str:
    text = f"{value:,.2f}" if thousands else f"{value:.2f}"
    return text.replace(",", "\0").replace(".", decimal).replace("\0", thousands)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("separator", "numbers"), [*itertools.product(SEPARATORS, NUMBERS)])
def test_a_table_is_read_right_in_each_combination(
    separator: str, numbers: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 dialects of one table, which has a title, quotes, leading zeros, dates, missing values and a total."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=SEPARATORS[separator])
    writer.writerow(["Prüfung"])
    writer.writerow(["Nr", "Größe", "Tag", "Ort"])
    writer.writerow(["007", _number(1234.5, *NUMBERS[numbers]), "01.02.2023", f"Köln{SEPARATORS[separator]} Süd"])
    writer.writerow(["008", "-", "13.02.2023", "Łódź" if encoding != "cp1252" else "Bäch"])
    writer.writerow(["010", _number(-0.25, *NUMBERS[numbers]), "14.02.2023", 'das "alte" Tor'])
    writer.writerow(["Summe", _number(1234.25, *NUMBERS[numbers]), "", ""])
    case = Case(
        "a combination",
        stream.getvalue().encode(encoding),
        {"Nr": "t", "Größe": "f", "Tag": "d", "Ort": "t"},
        ["007", 1234.5, "2023-02-01", f"Köln{SEPARATORS[separator]} Süd"],
        3,
        ["010", -0.25, "2023-02-14", 'das "alte" Tor'],
    )
    analysis = check(case, tmp_path, monkeypatch)
    assert analysis["details"]["columns"][1]["missing"] == 1
    assert analysis["details"]["text_above"] == ["Prüfung"]


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1251", ["имя", "Анна", "Иван", "Мария", "Сергей", "Ольга", "Наталья"]),
        ("shift_jis", ["名前", "東京都", "大阪府", "京都府", "北海道", "福岡県", "東京湾の水温"]),
        ("gb18030", ["姓名", "北京市", "上海市", "广州市", "深圳市", "今天天气很好", "我们都是学生"]),
        ("latin-1", ["Größe", "Köln", "Düren", "Münster", "Gießen", "Mölln", "Würzburg"]),
    ],
)
def test_encodings_without_a_mark_are_recognised(
    encoding: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{words[0]};n\n" + "".join(f"{word};{number}\n" for number, word in enumerate(words[1:] * 3))
    analysis = analyse_bytes(tmp_path, "data.csv", text.encode(encoding))
    frame = execute(analysis, tmp_path, monkeypatch)["df"]
    assert list(frame.columns) == [words[0], "n"]
    assert frame.iloc[:, 0].tolist() == words[1:] * 3


def test_what_only_shows_late_in_the_file_is_seen_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{number},{number}.5\n" for number in range(60_000)]
    lines[50_000] = "-,7.5\n"
    text = "a,b\n" + "".join(lines)
    analysis = analyse_bytes(tmp_path, "data.csv", text.encode())
    assert analysis["details"]["columns"][0] | {"mean": 0} == {
        "name": "a", "missing": 1, "type": "integer", "min": 0.0, "max": 59_999.0, "mean": 0,
    }  # fmt: skip
    frame = execute(analysis, tmp_path, monkeypatch)["df"]
    assert frame["a"].isna().sum() == 1 and frame["a"].dtype.kind == "f"


def test_a_word_among_numbers_is_said(tmp_path: Path) -> None:
    lines = [f"{number},1\n" for number in range(60_000)]
    lines[50_000] = "broken,1\n"
    analysis = analyse_bytes(tmp_path, "data.csv", ("a,b\n" + "".join(lines)).encode())
    assert "'broken'" in analysis["details"]["columns"][0]["note"]


def test_a_large_file_is_described_by_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.csv"
    with open(path, "w") as file:
        file.write("number,name\n")
        for number in range(1_000_000):
            file.write(f"{number},a name that takes place\n")
    analysis = analyse(str(path))
    assert analysis["details"]["rows"] == 1_000_000 or not analysis["details"]["rows_are_exact"]
    assert any("first" in reason and "rows" in reason for reason in analysis["skipped"])
    assert len(execute(analysis, tmp_path, monkeypatch)["df"]) == 1_000_000


def test_many_columns_are_described_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ",".join(f"gene_{number}" for number in range(5_000))
    row = ",".join(str(number % 7) for number in range(5_000))
    analysis = analyse_bytes(tmp_path, "wide.csv", f"{names}\n{row}\n{row}\n".encode())
    assert analysis["details"]["column_count"] == 5_000
    assert any("4,8" in reason and "columns" in reason for reason in analysis["skipped"])
    assert execute(analysis, tmp_path, monkeypatch)["df"].shape == (2, 5_000)


def test_many_columns_with_odd_names_and_types_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ";".join(f" a rather long name {number} " if number % 9 else "" for number in range(900))
    row = ";".join("01.02.2023" if number % 2 else "007" for number in range(900))
    analysis = analyse_bytes(tmp_path, "wide.csv", f"{names}\n{row}\n{row}\n".encode())
    assert len(analysis["how_to_read"]) <= 16_000
    frame = execute(analysis, tmp_path, monkeypatch)["df"]
    assert frame.shape == (2, 900) and not any("Unnamed" in name for name in frame.columns)


def test_the_profile_has_what_a_model_needs(tmp_path: Path) -> None:
    rows = "".join(f"{number:03};0{number % 9 + 1}.02.2023;{'ab'[number % 2]};{number},5\n" for number in range(50))
    text = profile(analyse_bytes(tmp_path, "data.csv", f"id;day;group;value\n{rows}".encode()))
    for part in (
        "50 rows",
        "4 columns",
        "id: text",
        "day: date",
        "a (25), b (25)",
        "0.5 to 49.5",
        "decimal=','",
        "| 000 |",
    ):
        assert part in text


def test_prose_is_no_table(tmp_path: Path) -> None:
    text = "Dear Ann, I hope, you are well.\nWe met, as you know, in Rome.\nYours, Bob, as ever.\n"
    assert analyse_bytes(tmp_path, "letter.txt", text.encode())["kind"] == "text"
