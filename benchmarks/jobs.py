"""Jobs of one server: how soon one starts, how soon the end of one wakes its session, and how long three take that
one question starts. The model follows a script behind a real API, so the figures have no model time."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.rivals.jobs import Hearth, put_tools
from tests.support.scripted_api import Messages, ScriptedApi
from tests.support.server_process import REPOSITORY, Server, end, start

NAP = '''
import time

from langchain_core.tools import tool

@tool(extras={"background": True})
def nap(seconds: float) -> str:
    """Sleep for some seconds."""
    time.sleep(seconds)
    return "rested"
'''
SIDE_BY_SIDE, NAP_SECONDS = 3, 2.0
_STARTED = re.compile(r"Started as the background job ([a-z]+-[a-z]+)")


def measure(folder: Path, times: int, answers: int) -> dict[str, list[float]]:
    """Seconds: of `times` starts and wakes one after the other, and of so many `answers`."""
    with ScriptedApi(_act).serving() as api, _lab(folder, api.url) as server:
        _wake(server, "warm-up")
        return {
            "a job starts": _starts(server, times),
            "its end wakes its session": [_wake(server, f"wake-{number}") for number in range(times)],
            f"{SIDE_BY_SIDE} jobs of {NAP_SECONDS:g} s, to the answer": [_answer(server) for _ in range(answers)],
        }


def _act(messages: Messages) -> dict[str, Any]:
    """The script: start the jobs, wait for them, answer."""
    said = [one["content"] for one in messages if one["role"] == "user"]
    read = [one for one in said if one.startswith("Observation:")]
    if not said[0].startswith("nap"):
        return {"answer": "They have ended."}
    if len(read) < SIDE_BY_SIDE:
        return {"action": "nap", "action_input": {"seconds": NAP_SECONDS}}
    if len(read) == SIDE_BY_SIDE:
        return {"action": "wait", "action_input": {"job_ids": _STARTED.findall(" ".join(read)), "timeout": 60}}
    return {"answer": read[-1]}


@contextmanager
def _lab(folder: Path, url: str) -> Iterator[Server]:
    server = start(folder / "server", REPOSITORY, {"MODEL": "openai:scripted", "BASE_URL": f"{url}/v1"})
    try:
        server.wait_until_ready()
        put_tools(server, {"nap": NAP})
        yield server
    finally:
        end(server)


def _starts(server: Server, times: int) -> list[float]:
    """From the request to the tool's first line."""
    system, found = Hearth(server), []
    for _ in range(times):
        asked = time.time()
        began, _ = system.result(system.submit("tick"))
        found.append(began - asked)
    return found


def _wake(server: Server, session: str) -> float:
    """From the saved end of a job to the start of the run that it wakes."""
    body: dict[str, Any] = {"tool": "nap", "input": {"seconds": 0.2}, "workspace": "bench", "session_id": session}
    answer = server.session.post("/jobs", json=body)
    answer.raise_for_status()
    name = answer.json()["job_id"]

    def run() -> dict[str, Any] | None:
        runs = server.session.get("/runs?workspace=bench&limit=20").json()["runs"]
        return next((one for one in runs if one.get("session_id") == session and one["state"] == "done"), None)

    woken = server.wait_until(run, f"the wake of {session}")
    ended = datetime.fromisoformat(server.session.get(f"/jobs/{name}").json()["ended_at"]).timestamp()
    return float(woken["asked"] + woken["queued_seconds"] - ended)


def _answer(server: Server) -> float:
    body = {"question": "nap three times", "workspace": "bench"}
    asked = time.perf_counter()
    answer = server.session.post("/run_script", json=body)
    seconds = time.perf_counter() - asked
    answer.raise_for_status()
    shown = answer.json()["answer"]
    assert shown.count("is succeeded: rested") == SIDE_BY_SIDE, shown
    return seconds
