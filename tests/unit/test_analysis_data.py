"""JSON, Parquet, SQLite, archives and images: what an analysis says is what the file has."""

import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from PIL import Image

from server.sandbox.inside.analysis import analyse
from tests.support.analysed import analyse_bytes, execute

PEOPLE = [{"id": "007", "age": 5, "at": {"city": "Rome"}}, {"id": "008", "age": None, "at": {"city": "Oslo"}}]


def test_a_list_of_objects_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = analyse_bytes(tmp_path, "people.json", json.dumps(PEOPLE).encode())
    assert analysis["kind"] == "json"
    paths = {entry["path"]: entry["type"] for entry in analysis["details"]["paths"]}
    assert paths["$[*].age"] == "integer or null" and paths["$[*].at.city"] == "text"
    frame = execute(analysis, tmp_path, monkeypatch)["df"]
    assert frame["id"].tolist() == ["007", "008"] and frame["at.city"].tolist() == ["Rome", "Oslo"]
    assert analysis["details"]["rows"] == 2


def test_a_table_inside_an_object_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"meta": {"by": "x"}, "data": {"people": PEOPLE}, "a key": 1}
    analysis = analyse_bytes(tmp_path, "people.json", json.dumps(value).encode("utf-16"))
    assert analysis["details"]["table_at"] == "$.data.people"
    assert {"path": "$['a key']", "type": "integer", "count": 1, "example": 1} in analysis["details"]["paths"]
    assert len(execute(analysis, tmp_path, monkeypatch)["df"]) == 2


def test_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(map(json.dumps, PEOPLE * 3)) + "\n\n"
    analysis = analyse_bytes(tmp_path, "people.txt", text.encode())
    assert analysis["kind"] == "jsonl" and analysis["details"]["rows"] == 6
    assert execute(analysis, tmp_path, monkeypatch)["df"]["id"].tolist() == ["007", "008"] * 3


def test_json_lines_that_are_no_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = analyse_bytes(tmp_path, "rows.jsonl", b"[1, 2]\n[3, 4]\n")
    assert execute(analysis, tmp_path, monkeypatch)["values"] == [[1, 2], [3, 4]]


def test_a_text_that_begins_as_json_is_text(tmp_path: Path) -> None:
    assert analyse_bytes(tmp_path, "server.log", b"[2024-01-02] started\n[2024-01-03] ended\n")["kind"] == "text"


def test_a_large_json_is_described_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text(json.dumps([{"n": number, "text": "x" * 200} for number in range(90_000)]))
    analysis = analyse(str(path))
    assert any("first" in reason for reason in analysis["skipped"])
    assert [column["name"] for column in analysis["details"]["columns"]] == ["n", "text"]


def test_values_that_json_can_not_say(tmp_path: Path) -> None:
    content = (
        b'{"nan": NaN, "infinite": Infinity, "long": ' + b"7" * 100_000 + b', "lone": "\\ud800", "zero": "a\\u0000b"}'
    )
    analysis = analyse_bytes(tmp_path, "odd.json", content)
    text = json.dumps(analysis, allow_nan=False)
    assert "\\u0000" not in text and "NaN" not in json.dumps(analysis["details"]["paths"])
    assert any("100,000 digits" in str(entry.get("example")) for entry in analysis["details"]["paths"])


def _frame() -> Any:
    return pandas.DataFrame(
        {
            "id": [f"{number:03}" for number in range(50)],
            "n": [None if number == 3 else number for number in range(50)],
            "day": pandas.date_range("2024-01-01", periods=50),
        }
    )


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    _frame().to_parquet(stream, row_group_size=20)
    analysis = analyse_bytes(tmp_path, "data.parquet", stream.getvalue())
    details = analysis["details"]
    assert (details["rows"], details["column_count"], details["row_group_count"]) == (50, 3, 3)
    n = details["columns"][1]
    # Of all row groups, though the first alone was read.
    assert (n["name"], n["missing"], n["min"], n["max"]) == ("n", 1, 0, 49)
    assert execute(analysis, tmp_path, monkeypatch)["df"].shape == (50, 3)


def test_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lab data.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """CREATE TABLE run (id INTEGER PRIMARY KEY, name TEXT, v REAL);
            INSERT INTO run VALUES (1, 'x', 1.5), (2, 'y', NULL);
            CREATE TABLE "odd ""name" (a);
            CREATE VIEW large AS SELECT * FROM run;"""
        )
    analysis = analyse_bytes(tmp_path, "lab data.db", path.read_bytes())
    run, odd = analysis["details"]["tables"]
    assert run["rows"] == 2 and run["first_rows"] == [[1, "x", 1.5], [2, "y", None]]
    assert run["columns"][0] == {"name": "id", "type": "integer", "key": True}
    assert odd["name"] == 'odd "name' and odd["rows"] == 0
    assert analysis["details"]["views"] == ["large"]
    names = execute(analysis, tmp_path, monkeypatch)
    names["connection"].close()
    assert names["df"]["name"].tolist() == ["x", "y"]


def test_a_zip_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.csv", "a,b\n1,2\n")
        archive.writestr("../outside.txt", "x" * 1000)
    analysis = analyse_bytes(tmp_path, "files.zip", stream.getvalue())
    details = analysis["details"]
    assert [member["name"] for member in details["members"]] == ["a/data.csv", "../outside.txt"]
    assert details["claimed_bytes"] == 1008 and "lead out" in details["notes"][0]
    assert execute(analysis, tmp_path, monkeypatch)["data"] == b"a,b\n1,2\n"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_listed(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]  # mode is no literal
        for name in ("one.txt", "folder/two.txt"):
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    analysis = analyse_bytes(tmp_path, "files.tar", stream.getvalue())
    assert [member["name"] for member in analysis["details"]["members"]] == ["one.txt", "folder/two.txt", "link"]
    assert execute(analysis, tmp_path, monkeypatch)["data"] == b"hello"


def test_a_compressed_file_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = analyse_bytes(tmp_path, "data.csv.gz", gzip.compress(b"a,b\n1,2\n" * 1000))
    assert analysis["details"]["inflated_bytes"] == 8000 and analysis["details"]["content"] == "text"
    assert execute(analysis, tmp_path, monkeypatch)["data"].startswith("a,b\n")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_images(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 100, 0)).save(stream, form)
    analysis = analyse_bytes(tmp_path, "image.bin", stream.getvalue())
    details = analysis["details"]
    assert (details["format"], details["width"], details["height"], details["frames"]) == (form, 40, 30, 1)
    assert abs(details["channels"][0]["mean"] - 200) < 8 and sum(details["channels"][0]["histogram"]) == 1200
    assert execute(analysis, tmp_path, monkeypatch)["pixels"].shape[:2] == (30, 40)


def test_an_image_of_16_bits_with_frames(tmp_path: Path) -> None:
    pixels = numpy.arange(1200, dtype=numpy.uint16).reshape(30, 40) * 50
    frames = [Image.fromarray(pixels + shift) for shift in (0, 1, 2)]
    stream = io.BytesIO()
    frames[0].save(stream, "TIFF", save_all=True, append_images=frames[1:])
    details = analyse_bytes(tmp_path, "stack.tif", stream.getvalue())["details"]
    assert details["frames"] == 3 and details["channels"][0]["max"] == 1199 * 50


def test_exif(tmp_path: Path) -> None:
    image = Image.new("RGB", (10, 10))
    exif = image.getexif()
    exif[271] = "A maker"
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif)
    assert analyse_bytes(tmp_path, "photo.jpg", stream.getvalue())["details"]["exif"] == {"Make": "A maker"}
