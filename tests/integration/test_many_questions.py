"""Many questions at a real server, which come when they like, and of which some are not waited for to their end."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import psutil
import pytest

from tests.support.event_stream import EVENT_STREAM, read
from tests.support.server_process import Server, Session
from tests.support.waiting_lab import connection

QUESTIONS = (
    "What is 37 * 52?",
    "What is 1024 / 16?",
    "Convert 3 miles to km",
    "Which weekday is 2026-12-25?",
    "How many days are between 2026-01-01 and 2026-03-01?",
    "How many words are in 'the quick brown fox'?",
    "hello",
    "What is 15 % of 80?",
)
AT_ONCE = 64
SECONDS_BETWEEN = 0.02
"""From one question to the next, on average."""
WAYS = {"waits": 6, "has little time": 2, "cancels": 1, "leaves": 1}
LITTLE_TIME = 0.05, 1.5
"""Seconds: least and most that one who has little time gives a question, and one who cancels waits."""
MOST_GROWTH = 64 * 2**20


@pytest.mark.parametrize("many", [120, pytest.param(1000, marks=pytest.mark.slow)])
def test_what_is_answered_is_what_it_is_alone(start_server: Callable[..., Server], many: int) -> None:
    server = start_server(MAX_RUNS=1024)
    alone = {question: answer_to(server.session, {"question": question}) for question in QUESTIONS}
    assert all(state == "answered" for state, _ in alone.values())
    process = psutil.Process(server.process.pid)

    def all_of_them(seed: int) -> Counter[tuple[str, str]]:
        rng, pause = Random(seed), threading.Event()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = []
            for _ in range(many):
                question = rng.choice(QUESTIONS)
                [way] = rng.choices(list(WAYS), list(WAYS.values()))
                asked.append((question, way, pool.submit(ask, server, question, way, rng.uniform(*LITTLE_TIME))))
                pause.wait(rng.expovariate(1 / SECONDS_BETWEEN))
        ends: Counter[tuple[str, str]] = Counter()
        for question, way, future in asked:
            state, answer = future.result()
            assert state != "answered" or answer == alone[question][1]
            ends[way, state] += 1
        return ends

    ends = all_of_them(1)
    server.wait_until(lambda: not under_way(server), "the end of all questions")
    assert {("waits", "answered"), ("leaves", "left"), ("cancels", "run_cancelled")} <= set(ends)
    assert ("has little time", "run_timed_out") in ends
    possible = {"waits": {"answered"}, "has little time": {"answered", "run_timed_out"}, "leaves": {"left"}}
    for way, state in ends:
        assert state in possible.get(way, {"answered", "run_cancelled"})
    if many == 1000:
        before = process.memory_info().rss
        all_of_them(2)
        server.wait_until(lambda: not under_way(server), "the end of all questions")
        assert process.memory_info().rss - before < MOST_GROWTH, "once warm, memory is as it was"
    after = answer_to(server.session, {"question": QUESTIONS[0]})
    assert after == alone[QUESTIONS[0]]


def under_way(server: Server) -> list[dict[str, Any]]:
    runs = server.session.get("/runs", params={"limit": 1000}).json()["runs"]
    return [run for run in runs if run["state"] in ("queued", "running")]


def answer_to(session: Session, body: dict[str, Any]) -> tuple[str, Any]:
    """How a question ended: answered, with what its answer says, or the kind of the error."""
    answer = session.post("/run_script", json=body).json()
    if "error" in answer:
        return answer["error"]["type"], None
    return "answered", (answer["answer"], answer["steps"])


def ask(server: Server, question: str, way: str, seconds: float) -> tuple[str, Any]:
    """Ask it in one of the `WAYS`."""
    session = Session(server.url, server.token)
    if way == "leaves":
        connection(server, "application/json", question=question).close()
        return "left", None
    if way == "has little time":
        return answer_to(session, {"question": question, "timeout": seconds})
    if way == "waits":
        return answer_to(session, {"question": question})
    answer = session.post("/run_script", json={"question": question}, headers=EVENT_STREAM, stream=True)
    events = read(answer)
    number = next(events).data["run_id"]
    timer = threading.Timer(seconds, lambda: Session(server.url, server.token).delete(f"/runs/{number}"))
    timer.start()
    last = [event for event in events if event.kind != "ping"][-1]
    timer.cancel()
    if last.kind == "answer":
        return "answered", (last.data["answer"], last.data["steps"])
    return last.data["type"], None
