"""Connections that send too much, nothing, or something that no one may send."""

import json
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from server.http.listener import FEWEST_CONNECTIONS, MOST_CONNECTIONS
from tests.support.server_process import Server
from tests.support.set_clock import SetClock

LARGE = 15 * 1024 * 1024


def connect(server: Server) -> socket.socket:
    url = urlsplit(server.url)
    return socket.create_connection((url.hostname, url.port or 0), timeout=120)


def head(server: Server, more: str, token: str = "") -> bytes:
    lines = [f"POST /run_script HTTP/1.1\r\nHost: {urlsplit(server.url).netloc}", more]
    lines += [f"Authorization: Bearer {token}"] if token else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def all_of(connection: socket.socket) -> bytes:
    """What is sent until the connection is closed."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def stored(server: Server) -> int:
    """Bytes of the server's temporary files without a name, and how much memory it has."""
    files = 0
    for one in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            target, size = str(one.readlink()), one.stat().st_size
        except OSError:
            continue
        files += size if target.endswith("(deleted)") else 0
    return files + int(psutil.Process(server.process.pid).memory_info().rss)


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
@pytest.mark.parametrize("has_token", [False, True])
def test_a_body_that_is_refused_is_not_stored(empty_server: Server, framing: str, has_token: bool) -> None:
    token = empty_server.token if has_token else ""
    before = stored(empty_server)
    with ExitStack() as opened:
        connections = [opened.enter_context(closing(connect(empty_server))) for _ in range(20)]
        for connection in connections:
            if framing == "chunked":
                begin = head(empty_server, "Transfer-Encoding: chunked", token) + f"{LARGE:x}\r\n".encode()
            else:
                begin = head(empty_server, f"Content-Length: {LARGE}", token)
            connection.sendall(begin + b"x" * (LARGE - 1))
        empty_server.health()
        # What a client may send is stored up to the limit, if its length is not known before.
        assert stored(empty_server) - before < 100e6
        connections[0].sendall(b"x\r\n0\r\n\r\n" if framing == "chunked" else b"x")
        answer = connections[0].recv(1 << 16)
        assert (b" 413 " if has_token else b" 401 ") in answer.partition(b"\r\n")[0], answer[:300]


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
def test_a_body_that_may_be_sent_is_read_whole(empty_server: Server, framing: str) -> None:
    body = b'{"surprise": ' + b"1" * 1_000_000 + b"}"
    with closing(connect(empty_server)) as connection:
        if framing == "chunked":
            begin = head(empty_server, "Transfer-Encoding: chunked", empty_server.token)
            connection.sendall(begin + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        else:
            connection.sendall(head(empty_server, f"Content-Length: {len(body)}", empty_server.token) + body)
        # The number is too long for Python, which has read it all.
        assert b" 400 " in connection.recv(1 << 16).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "more",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 0",
        "Content-Length: 4\r\nTransfer-Encoding:",
        "Transfer-Encoding: chunked, chunked\r\nContent-Length: 4",
    ],
)
def test_a_body_with_two_lengths_closes_its_connection(empty_server: Server, more: str) -> None:
    with closing(connect(empty_server)) as connection:
        smuggled = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.sendall(head(empty_server, more, empty_server.token) + b"0\r\n\r\n" + smuggled)
        answers = all_of(connection)
    assert answers.count(b"HTTP/1.1 ") == 1 and b" 400 " in answers.partition(b"\r\n")[0], answers


def test_a_chunk_whose_length_does_not_end(empty_server: Server) -> None:
    with closing(connect(empty_server)) as connection:
        connection.sendall(head(empty_server, "Transfer-Encoding: chunked") + b"1" * 20_000)
        assert b" 400 " in connection.recv(1 << 16).partition(b"\r\n")[0]


@pytest.fixture
def descriptors() -> Iterator[Callable[[int], None]]:
    """Sets how many descriptors this process, and what it starts, may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_idle_connections_make_room(empty_server: Server) -> None:
    with ExitStack() as opened:
        for number in range(MOST_CONNECTIONS + 2 * FEWEST_CONNECTIONS):
            connection = opened.enter_context(closing(connect(empty_server)))
            if number % 2:
                connection.sendall(b"POST /run_script HTTP/1.1\r\n")
        assert empty_server.session.get("/health", timeout=20).status_code == 200


def test_a_clock_that_is_set_closes_no_connection(
    start_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        clock = SetClock(tmp_path)
    except FileNotFoundError as reason:
        pytest.skip(str(reason))
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    server = start_server(ready=False, AUTOLOAD=0)
    with closing(connect(server)) as connection:
        request = head(server, "Content-Length: 1", server.token) + b"{"
        connection.sendall(request[:40])
        for seconds in (86_400, -86_400, 0):
            clock.set(seconds)
            for _ in range(3):
                server.health()
        connection.sendall(request[40:])
        assert b" 400 " in connection.recv(1 << 16).partition(b"\r\n")[0]


def test_a_server_without_descriptors_waits_and_logs_it_once(
    start_server: Callable[..., Server], descriptors: Callable[[int], None]
) -> None:
    descriptors(1024)
    server = start_server(ready=False, AUTOLOAD=0)
    descriptors(8192)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (80, 80))
    with ExitStack() as opened:
        for _ in range(120):
            opened.enter_context(closing(connect(server)))
        server.wait_until(lambda: "can't be accepted" in server.output, "a line about it")
        # What is idle makes room.
        assert server.session.get("/health", timeout=100).status_code == 200
    assert server.output.count("can't be accepted") < 3 and "Traceback" not in server.output, server.output
    assert json.loads(server.session.get("/health").text)["status"] == "ok"
