"""The files of the pages, as they are sent."""

import gzip
import re

import requests

from server.web import assets
from tests.support.server_process import Server


def test_a_page_names_files_that_are_there_and_stay(server: Server) -> None:
    page = server.session.get("/ui/runs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8" and page.headers["Cache-Control"] == "no-cache"
    named = set(re.findall(r'(?:src|href)="(/ui/static/[^"#]+)', page.text))
    assert len(named) >= 5
    for path in named:
        file = server.session.get(path)
        assert file.status_code == 200, path
        assert "immutable" in file.headers["Cache-Control"]


def test_files_are_sent_compressed_to_those_who_take_it(server: Server) -> None:
    url = server.url + assets.url("hearth.css")
    text = (assets.FOLDER / "hearth.css").read_bytes()
    with requests.get(url, headers={"Accept-Encoding": "gzip"}, stream=True, timeout=60) as packed:
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.raw.read(decode_content=False)) == text
    plain = requests.get(url, headers={"Accept-Encoding": "identity"}, timeout=60)
    assert "Content-Encoding" not in plain.headers and plain.content == text


def test_files_of_another_version_are_not_kept(server: Server) -> None:
    old = server.session.get("/ui/static/0123456789abcdef/hearth.css")
    assert old.status_code == 200 and old.headers["Cache-Control"] == "no-store"


def test_nothing_outside_of_the_folder_is_a_file(server: Server) -> None:
    for path in (
        "../pages.py",
        "%2e%2e/pages.py",
        "..%2fpages.py",
        "/etc/passwd",
        "pages/../../pages.py",
        "nothing.js",
    ):
        found = server.session.get(f"/ui/static/{assets.version()}/{path}")
        assert found.status_code in (404, 405), path
