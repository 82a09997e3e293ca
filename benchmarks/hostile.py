"""How long `GET /health` and one person's question take while others, or their code, do what they should not."""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.health_probe import Health, probed
from tests.support.hostile_schemas import completion
from tests.support.isolation_cases import AGENT
from tests.support.log_pipe import LogPipe
from tests.support.server_process import REPOSITORY, Server, Session, end, start

OTHERS = "others"
"""The workspace of all but the one who asks at `main`."""
TOOL = '''
import re
import time

from langchain_core.tools import tool


@tool
def trouble(expression: str) -> str:
    """Do what is said."""
    if expression == "raise":
        raise ValueError(50_000_000 * "x")
    if expression == "backtrack":
        re.match("(a+)+$", 40 * "a" + "b")
    if expression == "sleep":
        time.sleep(5)
    return expression
'''
QUESTION = {"question": "What is 37 * 52?"}
LONG_PROMPT = 2_000_000 * "x"
MANY = 1000
"""Connections."""
FRESH = itertools.count(999_983)


class Measured(NamedTuple):
    """`questions`: seconds to each answer of one who asks again and again."""

    health: Health
    questions: list[float]


def measure(folder: Path, seconds: float) -> Iterator[tuple[str, Measured]]:
    """Each load on the same server, for so many seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    log = LogPipe(folder / "output.txt")
    server = start(folder / "server", REPOSITORY, {"TOOL_TIMEOUT": 10}, log.descriptor)

    def beside(clients: int, load: Callable[[Session], object]) -> Measured:
        return _beside(server, seconds, clients, load)

    try:
        server.wait_until_ready()
        for path, text in {"agent/direct.py": AGENT, "tools/trouble.py": TOOL}.items():
            server.session.put(f"/workspaces/{OTHERS}/files/{path}", data=text.encode()).raise_for_status()
        server.session.post("/reload_modules", json={"workspace": OTHERS}).raise_for_status()
        server.session.post("/run_script", json=QUESTION).raise_for_status()
        yield "nothing else", beside(0, _ask)
        yield "8 who ask ordinary questions", beside(8, _ask)
        yield "8 who send hostile schemas to `/v1`", beside(8, _send_schema)
        yield "8 who send prompts of 2 MB to `/v1`", beside(8, _send_prompt)
        yield "4 whose tools raise errors of 50 MB", beside(4, _calls("raise"))
        yield "4 whose tools backtrack in a regular expression", beside(4, _calls("backtrack"))
        yield "40 whose tools sleep 5 s", beside(40, _calls("sleep"))
        with _idle_connections(server):
            yield f"{MANY:,} idle connections", beside(0, _ask)
        with log.unread():
            yield "8 who ask, and nobody reads standard error", beside(8, _ask)
    finally:
        end(server)
        log.close()


def _beside(server: Server, seconds: float, clients: int, load: Callable[[Session], object]) -> Measured:
    stop = threading.Event()

    def repeat() -> None:
        with Session(server.url, server.token) as session:
            while not stop.is_set():
                load(session)

    threads = [threading.Thread(target=repeat) for _ in range(clients)]
    for thread in threads:
        thread.start()
    questions: list[float] = []
    with probed(server) as health:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            server.session.post("/run_script", json=QUESTION).raise_for_status()
            questions.append(time.perf_counter() - began)
    stop.set()
    for thread in threads:
        thread.join()
    assert not health.failures, health.failures
    return Measured(health, questions)


def _ask(session: Session) -> None:
    session.post("/run_script", json={**QUESTION, "workspace": OTHERS})


def _send_schema(session: Session) -> None:
    """Each is new: a schema that was compiled, or refused, is remembered."""
    schema = {"type": "array", "minItems": 10**9, "items": {"type": "integer", "multipleOf": next(FRESH)}}
    session.post("/v1/chat/completions", json=completion(schema, x_workspace=OTHERS))


def _send_prompt(session: Session) -> None:
    body: dict[str, Any] = {"model": "hearth", "prompt": LONG_PROMPT, "x_workspace": OTHERS}
    session.post("/v1/completions", json=body)


def _calls(what: str) -> Callable[[Session], object]:
    body = {"question": what, "workspace": OTHERS, "agent": "direct"}
    return lambda session: session.post("/run_script", json=body)


@contextmanager
def _idle_connections(server: Server) -> Iterator[None]:
    url = urlsplit(server.url)
    with ExitStack() as opened:
        for number in range(MANY):
            connection = opened.enter_context(closing(socket.create_connection((url.hostname, url.port or 0))))
            if number % 2:
                connection.sendall(b"POST /run_script HTTP/1.1\r\n")
        yield
