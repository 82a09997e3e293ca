"""Waiting for a turn, on a real server: fair between people, and whatever happens meanwhile."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.event_stream import EVENT_STREAM, ask, read
from tests.support.server_process import Server
from tests.support.waiting_lab import HOLDING, WAITING, Lab, connection

AT_ONCE = 2
MANY = 200
SHOUT = '''
from langchain_core.tools import tool


@tool
def shout(text: str) -> str:
    """Write a text in capital letters."""
    return text.upper()
'''


def put(server: Server, workspace: str, path: str, text: str) -> None:
    answer = server.session.put(f"/workspaces/{workspace}/files/{path}", data=text.encode())
    assert answer.ok, answer.text


def runs(server: Server, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.session.get("/runs", params={"limit": 1000, **query}).json()["runs"]
    return found


def queued(server: Server, **query: Any) -> list[dict[str, Any]]:
    return [run for run in runs(server, **query) if run["state"] == "queued"]


def test_one_question_does_not_wait_for_two_hundred_of_somebody_else(start_server: Callable[..., Server]) -> None:
    server = start_server(MAX_CONCURRENT_RUNS=AT_ONCE, SHUTDOWN_GRACE=0)
    for person in ("anna", "bert"):
        put(server, person, "tools/shout.py", SHOUT)
        asked = server.session.post("/reload_modules", json={"workspace": person})
        assert asked.status_code == 200, asked.text
    asked_by_anna = [
        connection(server, "application/json", question=f"What is {number + 11} * 7?", workspace="anna")
        for number in range(MANY)
    ]
    server.wait_until(lambda: len(runs(server, workspace="anna")) == MANY, "all of anna's questions")

    def is_in_order() -> bool:
        # The list is no snapshot: a run that it has seen at position 1 may start before it comes to the next.
        positions = [run["position"] for run in queued(server, workspace="anna")]
        assert len(positions) > MANY / 2, "the queue is long"
        return sorted(positions) == list(range(1, len(positions) + 1))

    server.wait_until(is_in_order, "positions without a gap")

    answer = server.session.post("/run_script", json={"question": "What is 37 * 52?", "workspace": "bert"})
    assert answer.status_code == 200 and answer.json()["answer"] == "1924"
    assert len(queued(server, workspace="anna")) > 10, "anna's still wait"
    [one] = runs(server, workspace="bert")
    began = one["asked"] + one["queued_seconds"]
    went_before = [
        run
        for run in runs(server, workspace="anna")
        if run["state"] != "queued" and one["asked"] < run["asked"] + run["queued_seconds"] < began
    ]
    assert len(went_before) <= 2 * AT_ONCE

    # The server ends with a full queue: every run gets an error, and none waits.
    server.process.send_signal(signal.SIGTERM)
    last = asked_by_anna[-1]
    last.settimeout(60)
    assert last.recv(65536).startswith(b"HTTP/1.1 503")
    assert server.process.wait(60) == 0
    for one_of_many in asked_by_anna:
        one_of_many.close()


@pytest.fixture
def lab(start_server: Callable[..., Server], code_copy: Path) -> Lab:
    """One turn at a time, and a calculator that waits."""
    (code_copy / "server" / "tools" / "calculator.py").write_text(HOLDING)
    return Lab(start_server(code=code_copy, MAX_CONCURRENT_RUNS=1))


def test_whatever_happens_while_runs_wait(lab: Lab, code_copy: Path) -> None:
    server = lab.server

    def post(question: str, **more: Any) -> requests.Response:
        return server.session.post("/run_script", json={"question": question, **more})

    def is_queued(question: str, position: int) -> str:
        def met() -> Any:
            return [run for run in queued(server) if (run["question"], run["position"]) == (question, position)]

        [run] = server.wait_until(met, f"{question} to be at {position}")
        return str(run["run_id"])

    with ThreadPoolExecutor(8) as pool:
        first = lab.question()
        begun = pool.submit(post, first)
        lab.begun()

        # Batch runs wait for interactive ones, and their events say so.
        stream = server.session.post(
            "/run_script", json={"question": "hello", "priority": "batch"}, headers=EVENT_STREAM, stream=True
        )
        events = read(stream)
        assert next(events).data["position"] == 1
        old = pool.submit(post, "What is 5 * 7?")
        is_queued("What is 5 * 7?", 1)
        assert next(events).data["position"] == 2

        # One is cancelled, and of another the client goes away: both give their places up.
        cancelled = pool.submit(post, "hi there")
        run_id = is_queued("hi there", 2)
        left = connection(server, "application/json", question="good morning")
        is_queued("good morning", 3)
        assert server.session.delete(f"/runs/{run_id}").status_code == 200
        assert cancelled.result().status_code == 499
        is_queued("good morning", 2)
        left.close()
        server.wait_until(lambda: len(queued(server)) == 2, "the one that was left to go")

        # The code is changed: who waits has the code of when it was asked.
        tools = code_copy / "server" / "tools"
        (tools / "calculator.py").write_text(HOLDING.replace('return "1924"', 'return "new"'))
        reloaded = server.session.post("/reload_modules").json()
        assert reloaded["changed"] == ["tools.calculator"]
        new = pool.submit(post, "What is 6 * 7?")
        is_queued("What is 6 * 7?", 2)
        for name in ("5x7", "6x7"):
            (lab.folder / f"go-on-{name}").touch()
        lab.go_on()
        assert begun.result().json()["answer"] == "1924"
        assert old.result().json()["answer"] == "1924"
        assert new.result().json()["answer"] == "new"
        assert new.result().json()["generation"] == reloaded["generation"] != old.result().json()["generation"]
        assert old.result().json()["queued_seconds"] > 0
        assert [*events][-1].kind == "answer"

        # The model is unloaded: it ends after the run that uses it, and the waiting runs get an error.
        begun = pool.submit(post, lab.question())
        lab.begun()
        waits = pool.submit(post, "hello again")
        is_queued("hello again", 1)
        unloaded = pool.submit(server.session.post, "/unload_model")
        server.wait_until(lambda: post("x").status_code == 409, "the model to be leaving")
        lab.go_on()
        assert begun.result().status_code == 200
        assert unloaded.result().status_code == 200
        assert waits.result().status_code == 409
        assert waits.result().json()["error"]["type"] == "model_not_loaded"


def test_streams_report_that_the_server_ends(start_server: Callable[..., Server], code_copy: Path) -> None:
    (code_copy / "server" / "tools" / "calculator.py").write_text(HOLDING)
    lab = Lab(start_server(code=code_copy, MAX_CONCURRENT_RUNS=1, SHUTDOWN_GRACE=0.5))
    begun = read(ask(lab.server, lab.question()))
    lab.begun()
    waits = read(ask(lab.server, "hello"))
    assert next(waits).kind == "queued"
    lab.server.process.send_signal(signal.SIGTERM)
    for events in (begun, waits):
        [*_, last] = events
        assert (last.kind, last.data["type"], last.data["status"]) == ("error", "shutting_down", 503)
    assert lab.server.process.wait(60) == 0


def test_nobody_fills_every_place(start_server: Callable[..., Server], code_copy: Path) -> None:
    (code_copy / "server" / "tools" / "calculator.py").write_text(HOLDING)
    server = start_server(code=code_copy, MAX_CONCURRENT_RUNS=1, MAX_RUNS=16)
    lab = Lab(server)
    put(server, "bert", "tools/shout.py", SHOUT)
    asked = [connection(server, "application/json", question=lab.question()) for _ in range(14)]
    server.wait_until(lambda: len(runs(server)) == 14, "the questions")
    refused = server.session.post("/run_script", json={"question": "hello"})
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) == refused.json()["error"]["retry_after"] >= 1
    assert "the last 2 of 16 places" in refused.json()["error"]["message"]
    asked.append(connection(server, "application/json", question="hello", workspace="bert"))
    server.wait_until(lambda: queued(server, workspace="bert"), "the question of somebody else")
    for one in asked:
        one.close()
    server.wait_until(lambda: not [run for run in runs(server) if run["state"] in ("queued", "running")], "the end")


def test_tools_that_sleep_hold_nobody(start_server: Callable[..., Server], code_copy: Path) -> None:
    (code_copy / "server" / "tools" / "calculator.py").write_text(WAITING)
    server = start_server(code=code_copy, MAX_CONCURRENT_RUNS=1)
    lab = Lab(server)
    put(server, "bert", "tools/shout.py", SHOUT)
    with ThreadPoolExecutor(4) as pool:
        asked = []
        for _ in range(4):
            # Each gets the only turn while the tools of those before it wait.
            asked.append(pool.submit(server.session.post, "/run_script", json={"question": lab.question()}))
            lab.begun()
        answer = server.session.post("/run_script", json={"question": "hello", "workspace": "bert"})
        assert answer.status_code == 200
        assert [run["state"] for run in runs(server, workspace="main")] == ["running"] * 4
        numbers = range(lab.number - 3, lab.number + 1)
        for number in numbers:
            (lab.folder / f"go-on-{number}x52").touch()
        assert [one.result().json()["answer"] for one in asked] == ["1924"] * 4
