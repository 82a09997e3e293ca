"""Analyses of uploaded files, as clients get them: made in the sandbox, saved, harmless."""

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.server_process import REPOSITORY, Server, end, start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"AUTOLOAD": "false", "SANDBOX_SPARES": 2}
    started = start(tmp_path_factory.mktemp("analysis") / "server", REPOSITORY, settings)
    try:
        yield started
    finally:
        end(started)


def analysis(server: Server, session: str, name: str, data: bytes | None = None) -> requests.Response:
    if data is not None:
        saved = server.session.post(f"/sessions/{session}/files", files={"files": (name, data)})
        assert saved.status_code == 201, saved.text
    return server.session.get(f"/sessions/{session}/files/{name}/analysis")


def test_a_table(server: Server) -> None:
    got = analysis(server, "table", "sales.csv", b"region;sum\nNorth;1,5\nSouth;2,25\n")
    assert got.status_code == 200, got.text
    found: dict[str, Any] = got.json()
    assert (found["session_id"], found["name"], found["kind"]) == ("table", "sales.csv", "csv")
    assert "read_csv" in found["how_to_read"] and found["skipped"] == []
    # The code that it gives is right.
    code = found["how_to_read"] + "\ndf['sum'].tolist()"
    cell = server.session.post("/sessions/table/code", json={"code": code}).json()
    assert (cell["error"], cell["result"]["text"]) == (None, "[1.5, 2.25]")


def test_a_changed_file_is_analysed_again(server: Server) -> None:
    first = analysis(server, "changed", "a.csv", b"x,y\n1,2\n").json()
    assert analysis(server, "changed", "a.csv").json() == first
    server.session.post("/sessions/changed/code", json={"code": "open('a.csv', 'w').write('x,y\\n1,2\\n3,4\\n')"})
    assert analysis(server, "changed", "a.csv").json()["summary"] != first["summary"]


def bomb() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("[Content_Types].xml", "<Types/>")
        made.writestr("xl/workbook.xml", b"<x>" + b" " * 300_000_000)
    return held.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bomb.xlsx", bomb()),
        ("deep.json", b"[" * 200_000),
        ("broken.pdf", b"%PDF-1.7\n1 0 obj\n<</Type/Catalog/Pages 1 0 R>>\nendobj\ntrailer<</Root 1 0 R>>\n%%EOF"),
    ],
)
def test_hostile_files_are_refused(server: Server, name: str, data: bytes) -> None:
    got = analysis(server, "hostile", name, data)
    assert got.status_code in (200, 422), got.text
    if got.status_code == 422:
        error = got.json()["error"]
        assert error["type"] == "file_refused" and name in error["message"]


def test_what_is_no_file_is_not_analysed(server: Server) -> None:
    assert analysis(server, "none", "missing.csv").status_code == 404
    code = "import os\nos.symlink('/etc/hostname', 'link')\nos.mkfifo('pipe')\nopen('analysis', 'w').write('a,b')"
    server.session.post("/sessions/none/code", json={"code": code})
    assert analysis(server, "none", "link").status_code == 404
    assert analysis(server, "none", "pipe").status_code == 404
    # A file may have the route's own name.
    assert analysis(server, "none", "analysis").json()["name"] == "analysis"
    assert server.session.get("/sessions/none/files/analysis").text == "a,b"
