"""What comes in: bodies that are no JSON, of the wrong shape, or too long."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tests.support.server_process import Server

POST_ROUTES = ["/load_model", "/unload_model", "/load_tools", "/run_script", "/reload_modules"]


def refused(answer: requests.Response, status: int, kind: str) -> dict[str, Any]:
    """The error of an answer, after a look at its shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert error["type"] == kind
    assert len(error["message"]) > 10
    return error


@pytest.mark.parametrize("path", POST_ROUTES)
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"not json",
        b"{'question': 'x'}",
        b'{"question": "x"} trailing',
        b'{"question": NaN}',
        b'{"question": Infinity}',
        b'{"question": "\xff\xfe"}',
        b'{"question": "\\ud800"}',
        b'{"question": "a", "question": "b"}',
        b'{"question": {"a": 1, "a": 2}}',
        b'{"max_steps": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\x00\x01\x02",
        '{"question": "x"}'.encode("utf-16"),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_body_that_is_no_json(empty_server: Server, path: str, body: bytes) -> None:
    refused(empty_server.session.post(path, data=body), 400, "malformed_json")


@pytest.mark.parametrize("path", POST_ROUTES)
@pytest.mark.parametrize("body", ["[]", '"text"', "3", "null", "true", '"{}"'])
def test_a_body_that_is_no_object(empty_server: Server, path: str, body: str) -> None:
    assert "JSON object" in refused(empty_server.session.post(path, data=body), 422, "invalid_request")["message"]


@pytest.mark.parametrize("path", POST_ROUTES)
def test_an_unknown_field(empty_server: Server, path: str) -> None:
    error = refused(empty_server.session.post(path, json={"question": "x", "surprise": 1}), 422, "invalid_request")
    assert ["surprise"] in [problem["loc"] for problem in error["details"]]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/run_script", {}, "question"),
        ("/run_script", {"question": None}, "question"),
        ("/run_script", {"question": 1}, "question"),
        ("/run_script", {"question": ["x"]}, "question"),
        ("/run_script", {"question": ""}, "question"),
        ("/run_script", {"question": " \n\t\u3000"}, "question"),
        ("/run_script", {"question": "x" * 100_001}, "question"),
        ("/run_script", {"question": "x", "max_steps": 0}, "max_steps"),
        ("/run_script", {"question": "x", "max_steps": 33}, "max_steps"),
        ("/run_script", {"question": "x", "max_steps": "3"}, "max_steps"),
        ("/run_script", {"question": "x", "max_steps": 3.0}, "max_steps"),
        ("/run_script", {"question": "x", "max_steps": True}, "max_steps"),
        ("/run_script", {"question": "x", "workspace": ""}, "workspace"),
        ("/run_script", {"question": "x", "workspace": 3}, "workspace"),
        ("/run_script", {"question": "x", "agent": []}, "agent"),
        ("/run_script", {"question": "x", "generation": 12}, "generation"),
        ("/load_model", {"model": 3}, "model"),
        ("/load_model", {"model": ""}, "model"),
        ("/load_model", {"load_in_8bit": "yes"}, "load_in_8bit"),
        ("/load_model", {"load_in_8bit": 1}, "load_in_8bit"),
        ("/load_model", {"device_map": {"": 0}}, "device_map"),
        ("/load_model", {"dtype": "float16"}, "dtype"),
        ("/load_tools", {"workspace": None}, "workspace"),
        ("/reload_modules", {"dry_run": "true"}, "dry_run"),
        ("/reload_modules", {"workspace": ["main"]}, "workspace"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_field_of_the_wrong_type(empty_server: Server, path: str, body: dict[str, Any], field: str) -> None:
    error = refused(empty_server.session.post(path, json=body), 422, "invalid_request")
    assert [problem["loc"] for problem in error["details"]] == [[field]]
    assert field in error["message"]


def test_what_was_sent_is_not_sent_back(empty_server: Server) -> None:
    body: dict[str, Any] = {
        "question": "x" * 200_000,
        "y" * 200_000: 1,
        **{f"field{number}": 1 for number in range(1000)},
    }
    answer = empty_server.session.post("/run_script", json=body)
    refused(answer, 422, "invalid_request")
    assert len(answer.content) < 10_000


@pytest.mark.parametrize("question", ["x" * 100_000, "🙂" * 100_000, "\x00", "<|eos|>", "é\u202e\ufffe"])
def test_a_question_that_is_allowed(empty_server: Server, question: str) -> None:
    answer = empty_server.session.post("/run_script", json={"question": question})
    refused(answer, 409, "model_not_loaded")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "image/png"])
def test_json_is_read_whatever_its_content_type(empty_server: Server, content_type: str) -> None:
    answer = empty_server.session.post(
        "/run_script", data=b'{"question": "x"}', headers={"Content-Type": content_type}
    )
    refused(answer, 409, "model_not_loaded")


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_no_body_stands_for_no_fields(empty_server: Server, body: bytes) -> None:
    assert empty_server.session.post("/unload_model", data=body).status_code == 200
    refused(empty_server.session.post("/load_tools", data=body), 409, "model_not_loaded")
    error = refused(empty_server.session.post("/run_script", data=body), 422, "invalid_request")
    assert error["details"][0]["loc"] == ["question"]


def pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b"x" * 100_000


@pytest.mark.parametrize("path", POST_ROUTES)
def test_ten_megabytes(empty_server: Server, path: str) -> None:
    error = refused(empty_server.session.post(path, data=b"x" * 10_000_000), 413, "too_large")
    assert "HEARTH_MAX_BODY_BYTES" in error["message"]


def test_ten_megabytes_in_chunks(empty_server: Server) -> None:
    refused(empty_server.session.post("/run_script", data=pieces(100)), 413, "too_large")


def test_the_longest_body_is_a_setting(start_server: Any) -> None:
    server = start_server(ready=False, AUTOLOAD=0, MAX_BODY_BYTES=2000)
    body = json.dumps({"question": "x"}).encode()
    refused(server.session.post("/run_script", data=body.ljust(2000)), 409, "model_not_loaded")
    refused(server.session.post("/run_script", data=body.ljust(2001)), 413, "too_large")


def raw(server: Server, request: bytes) -> bytes:
    """What the server sends back to bytes that no HTTP client would send."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return answer


@pytest.mark.parametrize(
    ("request_bytes", "status", "kind"),
    [
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413, "too_large"),
        (b"GET / HTTP/1.1\r\nA: ".ljust(262_144, b"x"), 431, "request_header_fields_too_large"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
    ],
    ids=["no colon", "negative length", "huge length", "huge header", "unknown encoding"],
)
def test_what_is_no_http(empty_server: Server, request_bytes: bytes, status: int, kind: str) -> None:
    head, _, body = raw(empty_server, request_bytes).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.0 {status}".encode()) or head.startswith(f"HTTP/1.1 {status}".encode())
    assert b"Content-Type: application/json" in head
    assert json.loads(body)["error"]["type"] == kind


@given(body=st.binary(max_size=300))
def test_any_bytes_get_an_answer_in_our_shape(empty_server: Server, body: bytes) -> None:
    answer = empty_server.session.post("/run_script", data=body)
    assert answer.status_code in (400, 409, 422)
    assert set(answer.json()) == {"error"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["question", "workspace", "agent", "max_steps", "generation", "surprise"]


@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_json_gets_an_answer_in_our_shape(empty_server: Server, body: dict[str, Any]) -> None:
    answer = empty_server.session.post("/run_script", json=body)
    assert answer.status_code in (400, 404, 409, 422)
    assert set(answer.json()) == {"error"}
