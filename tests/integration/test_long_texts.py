"""Texts of people's code that are far too long: what is shown of them, and what they cost others."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from server.bounds import LONGEST_TEXT, bounded, characters, shortened
from server.runs.record import LONGEST_LISTED
from tests.support.server_process import Server, Session

LONG = """
from server.sdk import tell_step

from .agent import Agent, AgentResult, Step

class Long(Agent):
    name = "long"

    def __call__(self, question):
        what, _, millions = question.partition(" ")
        text = "x" * (int(millions) * 1_000_000)
        if what == "raise":
            raise ValueError(text)
        if what == "answer":
            return AgentResult(text, None, [], {})
        step = Step(text, "none", {"value": text}, text, text)
        if what == "tell":
            tell_step(step)
        if what == "details":
            return AgentResult("done", None, [], {}, {"text": text})
        return AgentResult("done", None, [step], {})
"""
SHOWN = 6 * LONGEST_TEXT
"""Bytes: some texts are in an answer more than once."""


@pytest.fixture
def long(server: Server) -> Server:
    put = server.session.put("/workspaces/long/files/agent/long.py", data=LONG)
    assert put.ok, put.text
    return server


def ask(server: Server, question: str) -> Any:
    return server.session.post("/run_script", json={"question": question, "workspace": "long", "agent": "long"})


def test_a_text_is_shortened_in_its_middle() -> None:
    text = "a" * 700 + "b" * 1000 + "c" * 700
    short = shortened(text, 1000)
    assert short == "a" * 500 + "\n[... 1,400 characters left out ...]\n" + "c" * 500
    assert shortened("a" * 1000, 1000) == "a" * 1000
    assert bounded({text: [text, 1, None, {"x": text}]}, 1000) == {short: [short, 1, None, {"x": short}]}
    assert characters({"ab": ["c", 1, {"d": "ef"}]}) == 7


@pytest.mark.parametrize("what", ["raise", "answer", "tell", "give", "details"])
def test_a_long_text_is_shortened_wherever_it_comes_from(long: Server, what: str) -> None:
    with slowest_health(long) as slowest:
        answer = ask(long, f"{what} 20")
    print(what, len(answer.content), f"{slowest[0]:.2f} s")
    body = answer.json()
    assert answer.status_code == (502 if what == "raise" else 200), answer.text[:1000]
    assert "characters left out" in answer.text and len(answer.content) < SHOWN
    if what == "raise":
        assert body["error"]["exception"] == "ValueError", "and not that its message is too long"
    [listed] = long.session.get("/runs", params={"workspace": "long", "limit": "1"}).json()["runs"]
    assert len(json.dumps(listed)) < 8 * LONGEST_LISTED and listed["question"] == f"{what} 20"
    record = long.session.get(f"/runs/{listed['run_id']}")
    assert LONGEST_TEXT < len(record.content) < SHOWN
    events = long.session.get(f"/runs/{listed['run_id']}/events", headers={"Accept": "text/event-stream"})
    assert len(events.content) < 2 * SHOWN


def test_many_long_texts_leave_little(long: Server) -> None:
    ask(long, "raise 1")
    process = psutil.Process(long.process.pid)
    before = process.memory_info().rss
    for number in range(15):
        assert len(ask(long, f"{'raise' if number % 2 else 'answer'} 20").content) < SHOWN
    grown = process.memory_info().rss - before
    listed = long.session.get("/runs", params={"workspace": "long"})
    print(f"{grown / 1e6:.0f} MB grown, a list of {len(listed.content)} bytes")
    assert grown < 150e6
    assert len(listed.content) < 1_000_000


def test_many_messages_of_two_megabytes_over_v1_leave_little(server: Server) -> None:
    def send(_: int) -> None:
        body: dict[str, Any] = {"model": "hearth", "messages": [{"role": "user", "content": 2_000_000 * "x"}]}
        with Session(server.url, server.token) as session:
            answer = session.post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")

    process = psutil.Process(server.process.pid)
    with ThreadPoolExecutor(8) as pool:
        # The allocator's pools, and the questions of the last runs, which are remembered in part.
        list(pool.map(send, range(64)))
        before = process.memory_info().rss
        list(pool.map(send, range(64)))
    grown = process.memory_info().rss - before
    print(f"{grown / 1e6:.0f} MB grown")
    assert grown < 100e6, "they have 128 MB"


@contextmanager
def slowest_health(server: Server) -> Iterator[list[float]]:
    """The longest that an answer to GET /health took within this context, in seconds."""
    slowest, done = [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            began = time.monotonic()
            server.health()
            slowest[0] = max(slowest[0], time.monotonic() - began)

    thread = threading.Thread(target=look)
    thread.start()
    yield slowest
    done.set()
    thread.join()
