"""Clients as they are: those that close their half of a connection, compress, or write a byte order mark."""

import gzip
import json
import socket
import struct
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.server_process import Server

QUESTION = {"question": "What is 37 * 52?"}


def connect(server: Server, path: str, body: Any, version: str = "1.1", **headers: str) -> socket.socket:
    """A connection with a request on it."""
    url = urlsplit(server.url)
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/{version}", f"Host: {url.netloc}", f"Authorization: Bearer {server.token}"]
    lines += [f"Content-Length: {len(data)}", *(f"{name}: {value}" for name, value in headers.items())]
    connection = socket.create_connection((url.hostname, url.port or 80), timeout=60)
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes, without interim responses."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    connection.close()
    data = b"".join(parts)
    while data.startswith(b"HTTP/1.1 100 "):
        data = data.partition(b"\r\n\r\n")[2]
    return data


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_half_closed_request_is_answered(server: Server, version: str) -> None:
    connection = connect(server, "/run_script", QUESTION, version)
    connection.shutdown(socket.SHUT_WR)
    head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/{version} 200 ".encode())
    assert json.loads(body)["answer"] == "1924"


LONG: dict[str, Any] = {
    "model": "hearth",
    "messages": [{"role": "user", "content": "hello"}],
    "temperature": 0,
    "max_tokens": 400,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"schema": {"type": "string", "minLength": 1500, "maxLength": 1500}},
    },
}


@pytest.mark.parametrize("stream", [False, True])
def test_a_half_closed_request_for_a_long_answer(server: Server, stream: bool) -> None:
    """It takes longer than the server waits before it looks whether its client is there."""
    connection = connect(server, "/v1/chat/completions", {**LONG, "stream": stream})
    connection.shutdown(socket.SHUT_WR)
    data = read_all(connection)
    assert data.startswith(b"HTTP/1.1 200 ")
    if stream:
        assert data.rstrip(b"0\r\n").endswith(b"data: [DONE]")
    else:
        assert json.loads(data.partition(b"\r\n\r\n")[2])["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("resets", [False, True])
def test_a_client_that_is_gone_costs_nothing_more(server: Server, stream: bool, resets: bool) -> None:
    question = f"hello {stream} {resets}"
    body = {**LONG, "messages": [{"role": "user", "content": question}], "max_tokens": 4000, "stream": stream}
    body["response_format"] = {
        "type": "json_schema",
        "json_schema": {"schema": {"type": "string", "minLength": 4000}},
    }
    connection = connect(server, "/v1/chat/completions", body)

    def run() -> Any:
        runs = server.session.get("/runs", params={"agent": "completion"}).json()["runs"]
        return next((one for one in runs if one["question"] == question), {})

    server.wait_until(lambda: run().get("state") == "running", "the run")
    if resets:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    server.wait_until(lambda: run().get("state") == "cancelled", "its end")


def test_a_byte_order_mark(server: Server) -> None:
    body = json.dumps({"model": "hearth", "messages": LONG["messages"], "max_tokens": 2})
    answer = server.session.post("/v1/chat/completions", data=b"\xef\xbb\xbf" + body.encode())
    assert answer.status_code == 200, answer.text
    only = server.session.post("/v1/chat/completions", data=b"\xef\xbb\xbf")
    assert (only.status_code, only.json()["error"]["code"]) == (400, "malformed_json")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_compressed_body_is_refused(server: Server, encoding: str) -> None:
    data = gzip.compress(json.dumps(QUESTION).encode())
    for path in ("/run_script", "/v1/chat/completions"):
        answer = server.session.post(path, data=data, headers={"Content-Encoding": encoding})
        assert answer.status_code == 415
        assert encoding in answer.json()["error"]["message"]
    plain = server.session.post("/tools/x/call", data="{}", headers={"Content-Encoding": "identity"})
    assert plain.status_code != 415


def test_a_reason_is_whole(server: Server) -> None:
    schema: Any = {"type": "object", "properties": {"a": {"type": "string", "minLength": 5, "maxLength": 3}}}
    answer = server.session.post(
        "/v1/chat/completions",
        json={
            **LONG,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": {**schema, "required": ["a"], "additionalProperties": False}},
            },
        },
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "response_format.json_schema.schema")
    assert "no value fits" in error["message"]
