"""Files of sessions, over HTTP: uploaded, listed, downloaded, deleted; also while hostile code changes them."""

import contextlib
import fcntl
import hashlib
import io
import os
import signal
import socket
import threading
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.server_process import REPOSITORY, Server, end, start
from tests.support.small_disk import NotMountedError, SmallDisk
from tests.support.uploads import (
    END,
    FORM,
    connection_to,
    data_folder,
    folder_of,
    open_files_below,
    part,
    peak_memory,
    unfinished,
    upload,
)

EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(64)
MAX_UPLOAD = 40 * 10**6
MAX_SESSION = 50 * 10**6
BIG = 30 * 10**6


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without a model; each test uses sessions of its own."""
    folder = tmp_path_factory.mktemp("lab") / "server"
    server = start(
        folder, REPOSITORY, {"AUTOLOAD": 0, "MAX_UPLOAD_BYTES": MAX_UPLOAD, "SESSION_FILES_BYTES": MAX_SESSION}
    )
    yield server
    try:
        assert unfinished(server) == []
        assert "Traceback" not in server.output, server.output
    finally:
        end(server)


@pytest.fixture
def session(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]


def saved(answer: requests.Response) -> list[dict[str, Any]]:
    """The files of a successful upload."""
    assert answer.status_code == 201, answer.text
    files: list[dict[str, Any]] = answer.json()["files"]
    return files


def refused(answer: requests.Response, status: int, kind: str) -> str:
    """The message of an error."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["type"] == kind, error
    return str(error["message"])


def names_in(server: Server, session: str) -> list[str]:
    listed = server.session.get(f"/sessions/{session}/files").json()
    assert listed["is_complete"] and not listed["has_more"]
    return [file["name"] for file in listed["files"]]


# Uploading


def test_a_file_and_back(lab: Server, session: str) -> None:
    data = b"month,sum\n1,20\n"
    [file] = saved(upload(lab, session, ("sales.csv", data)))
    assert file == {
        "name": "sales.csv",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "type": "text/csv",
        "uploaded_as": "sales.csv",
    }
    assert folder_of(lab, session).joinpath("sales.csv").read_bytes() == data
    assert lab.session.get(f"/sessions/{session}/files/sales.csv").content == data
    [listed] = lab.session.get(f"/sessions/{session}/files").json()["files"]
    assert (listed["name"], listed["bytes"], listed["type"]) == ("sales.csv", len(data), "text/csv")
    assert listed["modified_at"].endswith("Z")


def test_two_files_of_one_name_get_stable_names(lab: Server, session: str) -> None:
    first, second = ("sales.csv", b"1"), ("sales.csv", b"2")
    names = [file["name"] for file in saved(upload(lab, session, first, second, first))]
    assert names == ["sales.csv", "sales-2.csv", "sales.csv"]
    [again] = saved(upload(lab, session, second))
    assert (again["name"], again["uploaded_as"]) == ("sales-2.csv", "sales.csv")
    [third] = saved(upload(lab, session, ("sales.csv", b"3")))
    assert third["name"] == "sales-3.csv"
    assert names_in(lab, session) == ["sales-2.csv", "sales-3.csv", "sales.csv"]


def test_many_uploads_of_one_name_at_once(lab: Server, session: str) -> None:
    # Each content is sent twice.
    contents = [b"content %d" % (number // 2) for number in range(16)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda data: upload(lab, session, ("sales.csv", data)), contents))
    names = {content: {saved(answer)[0]["name"]} for content, answer in zip(contents, answers, strict=True)}
    assert all(len(given) == 1 for given in names.values())
    assert set(names_in(lab, session)) == {"sales.csv", *(f"sales-{number}.csv" for number in range(2, 9))}
    for content, (name,) in names.items():
        assert lab.session.get(f"/sessions/{session}/files/{name}").content == content


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\sales.csv", "sales.csv"),
        ("/absolute/sales.csv", "sales.csv"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        ("--.-x.csv", "x.csv"),
        ("..", "file"),
        (".", "file"),
        ("a/", "file"),
        (" ", "file"),
        ("a\tb\r.csv", "ab.csv"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("x\u200b.csv", "x.csv"),
        ("a;rm -rf $HOME|`x`.csv", "a_rm -rf _HOME__x_.csv"),
        ("Zu\u0308rich.csv", "Z\u00fcrich.csv"),
        ("売上.csv", "売上.csv"),
        ("продажи 2024.xlsx", "продажи 2024.xlsx"),
        ("हिन्दी.csv", "हिन्दी.csv"),
        ("data.tar.gz", "data.tar.gz"),
        ("x" * 300 + ".csv", "x" * 116 + ".csv"),
        ("ü" * 300 + ".csv", "ü" * 58 + ".csv"),
        ("x." + "y" * 300, "x." + "y" * 118),
        ("sales.csv.", "sales.csv"),
        ("a\u2028b.csv", "a b.csv"),
        ("🙂.csv", "_.csv"),
        ("\uff0fetc\uff0fpasswd", "_etc_passwd"),
    ],
    ids=ascii,
)
def test_names_are_safe(lab: Server, session: str, sent: str, name: str) -> None:
    body = part("files", b"1", sent.replace("\\", "\\\\").replace("\r", "")) + part("files", b"2", sent) + END
    answer = lab.session.post(f"/sessions/{session}/files", data=body, headers={"Content-Type": FORM})
    if "\r" in sent:
        return  # a header can't have it
    first, second = saved(answer)
    assert first["name"] == name
    assert second["name"] != name and len(second["name"].encode()) <= 120
    if "." in name[-10:]:
        assert second["name"].rpartition(".")[2] == name.rpartition(".")[2]
    assert unicodedata.is_normalized("NFC", second["name"])
    assert sorted(entry.name for entry in folder_of(lab, session).iterdir()) == sorted([name, second["name"]])


def zipped(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, os.urandom(2000))
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("sales.csv", PNG, "image/png"),
        ("photo.png", b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(64), "image/jpeg"),
        ("a.txt", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "application/pdf"),
        ("a.csv", b"<!DOCTYPE html><script>alert(1)</script>", "text/html"),
        ("a.txt", b"\xef\xbb\xbf  <svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        ("a.csv", "Zürich,1\n".encode(), "text/csv"),
        ("a.json", b"{}", "application/json"),
        ("a.png", b"no picture", "text/plain"),
        ("a", b"", "text/plain"),
        ("a.csv", "Zürich,1\n".encode("latin-1"), "application/octet-stream"),
        ("a.csv", "ü".encode() * 2000, "text/csv"),
        ("a.csv", b"x" + "ü".encode() * 2000, "text/csv"),
        ("a.bin", zipped("a.txt"), "application/zip"),
        ("a.bin", zipped("[Content_Types].xml", "xl/workbook.xml"), EXCEL),
        ("a.bin", b"PAR1" + bytes(2000) + b"PAR1", "application/vnd.apache.parquet"),
        ("a.csv", b"\x1f\x8b\x08\0" + bytes(20), "application/gzip"),
        ("a.csv", b"\0\1\2\3", "application/octet-stream"),
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_the_type_comes_from_the_content(lab: Server, session: str, name: str, data: bytes, kind: str) -> None:
    assert saved(upload(lab, session, (name, data)))[0]["type"] == kind
    assert lab.session.get(f"/sessions/{session}/files").json()["files"][0]["type"] == kind


def test_an_upload_of_30_mb_takes_no_memory(lab: Server, session: str) -> None:
    data = os.urandom(BIG)
    saved(upload(lab, session, ("warm-up", data[: 2 * 10**6])))
    assert lab.session.get(f"/sessions/{session}/files/warm-up").ok
    with peak_memory(lab) as growth:
        [file] = saved(upload(lab, session, ("big.bin", data)))
        answer = lab.session.get(f"/sessions/{session}/files/big.bin")
    assert file["sha256"] == hashlib.sha256(data).hexdigest()
    assert answer.content == data
    assert growth[0] < 9 * 10**6
    assert lab.session.delete(f"/sessions/{session}").status_code == 200


def chunks(data: bytes) -> Iterator[bytes]:
    for start_ in range(0, len(data), 100_000):
        yield data[start_ : start_ + 100_000]


@pytest.mark.parametrize("size", [10, 400_000, 3_000_000])
def test_chunked_transfer(lab: Server, session: str, size: int) -> None:
    data = os.urandom(size)
    body = part("files", data, "a.bin") + END
    answer = lab.session.post(f"/sessions/{session}/files", data=chunks(body), headers={"Content-Type": FORM})
    assert saved(answer)[0]["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n--xy", b" --xyz", b"\n\r" * 100_000, b"\r\n--xyZ\r\n" * 20_000])
def test_content_that_looks_like_a_boundary(lab: Server, session: str, data: bytes) -> None:
    body = part("files", data, "a.bin") + END
    answer = lab.session.post(f"/sessions/{session}/files", data=body, headers={"Content-Type": FORM})
    assert saved(answer)[0]["bytes"] == len(data)
    assert lab.session.get(f"/sessions/{session}/files/a.bin").content == data


@pytest.mark.parametrize(
    ("body", "content_type", "status", "kind"),
    [
        (b"", FORM, 400, "malformed_form"),
        (b"nothing", FORM, 400, "malformed_form"),
        (part("files", b"1", "a"), FORM, 400, "malformed_form"),
        (part("files", b"1", "a")[:-2], FORM, 400, "malformed_form"),
        (part("files", b"x" * 500_000, "a"), FORM, 400, "malformed_form"),
        (part("files", b"1", "a") + END, "multipart/form-data", 400, "malformed_form"),
        (part("files", b"1", "a") + END, "multipart/form-data; boundary=" + "b" * 300, 400, "malformed_form"),
        (b"--xyz\r\nA: b\r\n\r\n1\r\n" + END, FORM, 400, "malformed_form"),
        (b"--xyz\r\n" + b"A" * 200_000 + b"\r\n\r\n1\r\n" + END, FORM, 400, "malformed_form"),
        (b"--xyz\r\n\xff\xfe: b\r\n\r\n1\r\n" + END, FORM, 400, "malformed_form"),
        (END, FORM, 422, "invalid_request"),
        (part("files", b"", "") + END, FORM, 422, "invalid_request"),
        (part("files", b"1", "a") + part("what", b"1") + END, FORM, 422, "invalid_request"),
        (part("files", b"1", "a") + part("what", b"1", "b") + END, FORM, 422, "invalid_request"),
        (part("files", b"1") + END, FORM, 422, "invalid_request"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"{}", "application/json", 415, "unsupported_media_type"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_broken_form_leaves_nothing(
    lab: Server, session: str, body: bytes, content_type: str, status: int, kind: str
) -> None:
    path = f"/sessions/{session}/files"
    refused(lab.session.post(path, data=body, headers={"Content-Type": content_type}), status, kind)
    assert not folder_of(lab, session).exists()
    assert unfinished(lab) == []


@pytest.mark.parametrize("size", [MAX_UPLOAD + 1, MAX_UPLOAD + 10**6, MAX_UPLOAD + 30 * 10**6])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_too_large(lab: Server, session: str, size: int, is_chunked: bool) -> None:
    body = part("files", bytes(size), "a.bin") + END
    if size > MAX_UPLOAD + 16 * 2**20:
        answer = raw_upload(lab, session, body, is_chunked)
        # A client that is still sending may see its connection closed before it reads why.
        if answer or not is_chunked:
            assert b" 413 " in answer.partition(b"\r\n")[0]
            assert b'"too_large"' in answer and b"HEARTH_MAX_UPLOAD_BYTES" in answer
    else:
        data = chunks(body) if is_chunked else body
        refusal = lab.session.post(f"/sessions/{session}/files", data=data, headers={"Content-Type": FORM})
        assert "HEARTH_MAX_UPLOAD_BYTES" in refused(refusal, 413, "too_large")
    assert not folder_of(lab, session).exists()


def read_answer(connection: socket.socket) -> bytes:
    """An answer with an error."""
    answer = b""
    while b'"}}' not in answer and (received := connection.recv(65536)):
        answer += received
    return answer


def raw_upload(server: Server, session: str, body: bytes, is_chunked: bool) -> bytes:
    """The answer to an upload's head, or, if it is chunked, to what the server reads of it."""
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
    head = f"POST /sessions/{session}/files HTTP/1.1\r\nAuthorization: Bearer {server.token}\r\n{length}\r\n"
    with connection_to(server) as connection:
        connection.sendall(f"{head}Content-Type: {FORM}\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            if is_chunked:
                connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        try:
            return read_answer(connection)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("token", ["", "wrong"])
@pytest.mark.parametrize("size", [10, 3_000_000, 30_000_000])
def test_without_the_token_nothing_is_stored(lab: Server, session: str, token: str, size: int) -> None:
    body = part("files", bytes(size), "a.bin") + END
    # A long body is refused before it is sent.
    sent = body if size < 16 * 10**6 else b""
    head = f"POST /sessions/{session}/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    with connection_to(lab) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\nContent-Type: {FORM}\r\n\r\n".encode() + sent[:-1])
        assert open_files_below(lab, data_folder(lab) / "sessions" / "incoming") == []
        with contextlib.suppress(OSError):  # a long one has its answer already
            connection.sendall(sent[-1:])
        answer = read_answer(connection)
    assert b" 401 " in answer.partition(b"\r\n")[0]
    assert b'"unauthorized"' in answer
    assert not folder_of(lab, session).exists()


def test_a_client_that_asks_first_need_not_send(lab: Server, session: str) -> None:
    head = f"POST /sessions/{session}/files HTTP/1.1\r\nContent-Type: {FORM}\r\nExpect: 100-continue\r\n"
    for token, length, expected in (
        ("wrong", 30 * 10**6, b" 401 "),
        (lab.token, 10**9, b" 413 "),
        (lab.token, 10**6, b" 100 "),
    ):
        with connection_to(lab) as connection:
            connection.sendall(f"{head}Authorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n".encode())
            assert expected in connection.recv(65536).partition(b"\r\n")[0]


def test_a_client_that_leaves_midway_leaves_nothing(lab: Server, session: str) -> None:
    spool = data_folder(lab) / "sessions" / "incoming"
    head = f"POST /sessions/{session}/files HTTP/1.1\r\nAuthorization: Bearer {lab.token}\r\n"
    connection = connection_to(lab)
    connection.sendall(f"{head}Content-Length: 10000000\r\nContent-Type: {FORM}\r\n\r\n".encode() + bytes(2_000_000))
    lab.wait_until(lambda: open_files_below(lab, spool), "the upload")
    connection.close()
    lab.wait_until(lambda: not open_files_below(lab, spool), "its end")
    assert unfinished(lab) == []
    assert not folder_of(lab, session).exists()


def test_a_session_that_is_full(lab: Server, session: str) -> None:
    saved(upload(lab, session, ("a.bin", bytes(BIG))))
    message = refused(upload(lab, session, ("small", b"1"), ("b.bin", b"1" * BIG)), 413, "too_large")
    assert "HEARTH_SESSION_FILES_BYTES" in message and "b.bin" in message
    # Not the small one either.
    assert names_in(lab, session) == ["a.bin"]
    # The same bytes need no room.
    saved(upload(lab, session, ("a.bin", bytes(BIG))))
    assert lab.session.delete(f"/sessions/{session}").status_code == 200


def test_a_session_with_too_many_files(lab: Server, session: str) -> None:
    saved(upload(lab, session, ("first", b"1")))
    inner = folder_of(lab, session) / "written"
    inner.mkdir()
    for number in range(999):
        (inner / str(number)).touch()
    assert "1000" in refused(upload(lab, session, ("one more", b"2")), 413, "too_large")
    saved(upload(lab, session, ("first", b"1")))
    assert lab.session.delete(f"/sessions/{session}/files/written/7").status_code == 200
    saved(upload(lab, session, ("one more", b"2")))
    for number in range(10_000):
        (inner / str(number)).touch()
    assert lab.session.get(f"/sessions/{session}/files").json()["is_complete"] is False
    assert "10000" in refused(upload(lab, session, ("another", b"3")), 413, "too_large")


def test_sessions_and_workspaces_have_files_of_their_own(lab: Server, session: str) -> None:
    assert lab.session.put("/workspaces/alice/files/tools/x.py", data=b"X = 1").ok
    saved(upload(lab, session, ("a", b"1")))
    saved(upload(lab, session, ("a", b"2"), params={"workspace": "alice"}))
    saved(upload(lab, session.upper(), ("a", b"3")))
    assert lab.session.get(f"/sessions/{session}/files/a").content == b"1"
    assert lab.session.get(f"/sessions/{session}/files/a?workspace=alice").content == b"2"
    assert lab.session.get(f"/sessions/{session.upper()}/files/a").content == b"3"
    refused(upload(lab, session, ("a", b"2"), params={"workspace": "nobody"}), 404, "workspace_not_found")
    refused(lab.session.get("/sessions/a%20b/files"), 422, "invalid_request")


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    """A disk that can be full."""
    try:
        disk = SmallDisk(tmp_path_factory.mktemp("disk") / "mounted")
    except NotMountedError as reason:
        pytest.skip(str(reason))
    yield disk
    disk.close()


@pytest.mark.parametrize("free", [0, 4 * 10**6], ids=["as it arrives", "as it is saved"])
def test_a_full_disk(start_server: Callable[..., Server], small_disk: SmallDisk, free: int) -> None:
    data = small_disk.folder / str(free)
    server = start_server(ready=False, AUTOLOAD=0, DATA_DIR=data)
    saved(upload(server, "a", ("first", b"1")))
    big = os.urandom(3 * 10**6)
    with small_disk.full(free):
        for _ in range(2):
            message = refused(upload(server, "a", ("small", b"1"), ("big", big)), 507, "storage_full")
            assert "HEARTH_DATA_DIR" in message
            assert names_in(server, "a") == ["first"]
            assert list((data / "sessions" / "incoming").iterdir()) == []
    assert [file["name"] for file in saved(upload(server, "a", ("big", big)))] == ["big"]


# Listing, downloading, deleting


def test_lists_have_pages_and_subfolders(lab: Server, session: str) -> None:
    assert lab.session.get(f"/sessions/{session}/files").json()["files"] == []
    saved(upload(lab, session, *[(f"f{number}", b"x") for number in range(5)]))
    inner = folder_of(lab, session) / "plots" / "may"
    inner.mkdir(parents=True)
    (inner / "a.png").write_bytes(PNG)
    found: list[str] = []
    while True:
        after = found[-1] if found else ""
        page = lab.session.get(f"/sessions/{session}/files", params={"limit": "2", "after": after}).json()
        found += [file["name"] for file in page["files"]]
        if not page["has_more"]:
            break
    assert found == ["f0", "f1", "f2", "f3", "f4", "plots/may/a.png"]
    assert lab.session.get(f"/sessions/{session}/files/plots/may/a.png").content == PNG
    assert lab.session.delete(f"/sessions/{session}/files/plots/may/a.png").status_code == 200
    assert "plots/may/a.png" not in names_in(lab, session)
    refused(lab.session.delete(f"/sessions/{session}/files/plots/may/a.png"), 404, "session_file_not_found")
    for limit in ("0", "1001", "x"):
        refused(lab.session.get(f"/sessions/{session}/files", params={"limit": limit}), 422, "invalid_request")


@pytest.mark.parametrize(
    ("name", "data", "kind", "how"),
    [
        ("a.html", b"<html><script>alert(1)</script>", "application/octet-stream", "attachment"),
        ("a.svg", b"<svg onload='alert(1)'/>", "application/octet-stream", "attachment"),
        ("a.png", b"<html><script>alert(1)</script>", "application/octet-stream", "attachment"),
        ("a.xml", b"<?xml version='1.0'?><a/>", "application/octet-stream", "attachment"),
        ("a.png", PNG, "image/png", "inline"),
        ("a.txt", b"text", "text/plain", "attachment"),
    ],
    ids=str,
)
def test_no_browser_runs_a_file(lab: Server, session: str, name: str, data: bytes, kind: str, how: str) -> None:
    saved(upload(lab, session, (name, data)))
    answer = lab.session.get(f"/sessions/{session}/files/{name}")
    assert answer.headers["Content-Type"].partition(";")[0] == kind
    assert answer.headers["Content-Disposition"] == f"{how}; filename=\"{name}\"; filename*=UTF-8''{name}"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")


def test_a_name_in_a_header(lab: Server, session: str) -> None:
    folder = folder_of(lab, session)
    saved(upload(lab, session, ("first", b"1")))
    for name in ('a"; x="b.txt', "a\r\nSet-Cookie: x", "売上.csv"):
        (folder / name).write_bytes(b"1")
        answer = lab.session.get(f"/sessions/{session}/files/{requests.utils.quote(name)}")
        assert answer.content == b"1"
        assert "Set-Cookie" not in answer.headers
        assert requests.utils.quote(name, safe="") in answer.headers["Content-Disposition"]


def test_ranges_and_what_is_cached(lab: Server, session: str) -> None:
    data = os.urandom(600_000)
    saved(upload(lab, session, ("a.bin", data)))
    path = f"/sessions/{session}/files/a.bin"
    for asked, expected in (
        ("0-0", data[:1]),
        ("500000-", data[500_000:]),
        ("-7", data[-7:]),
        ("5-300004", data[5:300_005]),
    ):
        answer = lab.session.get(path, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, expected)
        assert answer.headers["Content-Range"].endswith(f"/{len(data)}")
    assert lab.session.get(path, headers={"Range": "bytes=600000-"}).status_code == 416
    head = lab.session.head(path)
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", "600000")
    tag = {"If-None-Match": head.headers["ETag"]}
    assert lab.session.get(path, headers=tag).status_code == 304
    (folder_of(lab, session) / "a.bin").write_bytes(b"another")
    assert lab.session.get(path, headers=tag).content == b"another"
    stale = {"Range": "bytes=0-1", "If-Range": head.headers["ETag"]}
    assert lab.session.get(path, headers=stale).content == b"another"
    lab.wait_until(lambda: not open_files_below(lab, folder_of(lab, session)), "the file is closed")


# What code in a sandbox may do to its folder


@pytest.fixture
def hostile(lab: Server, session: str, tmp_path: Path) -> Path:
    """A session's folder with things in it that are no files."""
    (tmp_path / "secret").write_text("secret")
    saved(upload(lab, session, ("file", b"1")))
    folder = folder_of(lab, session)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder-link").symlink_to(tmp_path)
    (folder / "chain").symlink_to("link")
    (folder / "loop").symlink_to("loop")
    (folder / "up").symlink_to("../../../..")
    (folder / "process").symlink_to("/proc/self/environ")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        place = os.open(folder, os.O_RDONLY)
        one.bind(f"/proc/self/fd/{place}/socket")
        os.close(place)
    (folder / "inner").mkdir()
    (folder / "inner" / "link").symlink_to(tmp_path / "secret")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_bytes(b"1")
    return folder


LINKS = ["link", "folder-link", "chain", "loop", "up", "process", "pipe", "socket", "inner/link"]


def test_what_is_no_file_is_not_listed(lab: Server, session: str, hostile: Path) -> None:
    listed = lab.session.get(f"/sessions/{session}/files").json()
    assert [file["name"] for file in listed["files"]] == ["file"]
    assert listed["left_out"] == len(LINKS) + 1


@pytest.mark.parametrize(
    "name",
    [*LINKS, "folder-link/secret", "up/hearth.db", "inner", "inner/", "file/", "file/x", "nothing", "x/y/z",
     "..%2f..%2f..%2fhearth.db", "inner/..%2ffile", "inner%2f..%2ffile", "%2fetc%2fpasswd", ".", "%00", "a%00b",
     "%ff", "y" * 300, "y/" * 3000],
)  # fmt: skip
def test_what_is_no_file_is_not_downloaded(lab: Server, session: str, hostile: Path, name: str) -> None:
    url = f"{lab.url}/sessions/{session}/files/{name}"
    # As it stands: requests would resolve dots.
    prepared = requests.Request("GET", url, headers=dict(lab.session.headers)).prepare()
    prepared.url = url
    answer = lab.session.send(prepared, timeout=20, allow_redirects=False)
    assert answer.status_code in (404, 308), answer.text
    assert "secret" not in answer.text.replace(name, "")


def test_links_are_deleted_and_not_what_they_lead_to(
    lab: Server, session: str, hostile: Path, tmp_path: Path
) -> None:
    for name in LINKS:
        assert lab.session.delete(f"/sessions/{session}/files/{name}").status_code == 200, name
    refused(lab.session.delete(f"/sessions/{session}/files/inner"), 404, "session_file_not_found")
    assert (tmp_path / "secret").read_text() == "secret"
    assert sorted(os.listdir(hostile)) == ["file", "inner", "\udcff\udcfe"]


def test_an_upload_does_not_write_through_a_link(lab: Server, session: str, hostile: Path, tmp_path: Path) -> None:
    for name in ("link", "chain", "pipe", "inner"):
        [file] = saved(upload(lab, session, (name, b"new")))
        assert file["name"] == f"{name}-2"
    assert (tmp_path / "secret").read_text() == "secret"


def test_files_that_change_while_they_are_looked_at(lab: Server, session: str, tmp_path: Path) -> None:
    """Code swaps a file, a link and a FIFO under one name, while others list, download and upload."""
    (tmp_path / "secret").write_text("secret")
    saved(upload(lab, session, ("x", b"1")))
    folder, ended = folder_of(lab, session), threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for make in (
                lambda place: place.write_bytes(b"1"),
                lambda place: place.symlink_to(tmp_path / "secret"),
                os.mkfifo,
                lambda place: place.mkdir(),
            ):
                make(folder / "draft")
                if (folder / "x").is_dir() and not (folder / "x").is_symlink():
                    (folder / "x").rmdir()
                if (folder / "draft").is_dir() and not (folder / "draft").is_symlink():
                    (folder / "x").unlink(missing_ok=True)
                os.rename(folder / "draft", folder / "x")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(150):
            answer = lab.session.get(f"/sessions/{session}/files/x")
            assert answer.status_code == 404 or answer.content == b"1"
            listed = lab.session.get(f"/sessions/{session}/files")
            assert listed.status_code == 200
            [file] = saved(upload(lab, session, ("y", b"2")))
            assert file["name"] == "y"
    finally:
        ended.set()
        swapper.join()
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_file_that_is_cut_while_it_is_sent(lab: Server, session: str) -> None:
    saved(upload(lab, session, ("a.bin", bytes(BIG))))
    with lab.session.get(f"/sessions/{session}/files/a.bin", stream=True) as answer:
        assert answer.raw.read(1000) == bytes(1000)
        os.truncate(folder_of(lab, session) / "a.bin", 10)
        with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
            for _ in answer.iter_content(100_000):
                pass
    lab.wait_until(lambda: not open_files_below(lab, folder_of(lab, session)), "the file is closed")
    assert lab.health()["status"] == "ok"


def test_a_file_with_a_lease(lab: Server, session: str) -> None:
    """An ordinary open waits for the owner of the lease, up to 45 seconds."""
    saved(upload(lab, session, ("x", b"1")))
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    descriptor = os.open(folder_of(lab, session) / "x", os.O_RDWR)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        refused(lab.session.get(f"/sessions/{session}/files/x", timeout=10), 409, "conflict")
        assert lab.session.get(f"/sessions/{session}/files", timeout=10).json()["files"][0]["name"] == "x"
        assert saved(upload(lab, session, ("x", b"1"), timeout=10))[0]["name"] == "x-2"
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)
    assert lab.session.get(f"/sessions/{session}/files/x").content == b"1"


def test_times_that_no_calendar_has(lab: Server, session: str) -> None:
    saved(upload(lab, session, ("old", b"1"), ("new", b"2")))
    os.utime(folder_of(lab, session) / "old", (-(10**10), -(10**10)))
    os.utime(folder_of(lab, session) / "new", (10**11, 10**11))
    assert names_in(lab, session) == ["new", "old"]
    assert lab.session.get(f"/sessions/{session}/files/old").content == b"1"
    assert lab.session.get(f"/sessions/{session}/files/new").content == b"2"


# Deleting a session


def test_a_session_with_a_hostile_folder_is_deleted(lab: Server, session: str, hostile: Path, tmp_path: Path) -> None:
    deep = os.open(hostile, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("deep", dir_fd=deep)
        inner = os.open("deep", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(deep)
    (hostile / "closed" / "inner").mkdir(parents=True)
    (hostile / "closed" / "inner" / "file").touch()
    (hostile / "closed" / "inner").chmod(0)
    (hostile / "closed").chmod(0)
    hostile.chmod(0)
    answer = lab.session.delete(f"/sessions/{session}")
    assert answer.status_code == 200, answer.text
    assert not hostile.exists() and unfinished(lab) == []
    assert (tmp_path / "secret").read_text() == "secret"
    refused(lab.session.delete(f"/sessions/{session}"), 404, "session_not_found")
    saved(upload(lab, session, ("file", b"2")))
    assert names_in(lab, session) == ["file"]


def test_a_working_directory_without_permissions(lab: Server, session: str) -> None:
    saved(upload(lab, session, ("a", b"1")))
    folder_of(lab, session).chmod(0)
    saved(upload(lab, session, ("b", b"2")))
    assert names_in(lab, session) == ["a", "b"]
