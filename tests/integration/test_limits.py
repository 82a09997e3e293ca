"""Stopping a run: cancelled, out of time, out of tokens, and with a tool that does not come back."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
import requests

from tests.support.event_stream import EVENT_STREAM, read
from tests.support.server_process import REPOSITORY, Server, end, start

QUESTION = "What is 37 * 52?"

# An agent of somebody's own, which writes for ever; it reports one step, and uses nothing else of Hearth.
ENDLESS = """
from dataclasses import dataclass, field

from guidance import gen

from server.sdk import tell_step


@dataclass
class Step:
    thought: str = "I will go on."
    tool: str = "none"
    input: dict = field(default_factory=dict)
    observation: str = "nothing"
    error: str | None = None


class CustomAgentGuidance:
    def __init__(self, model, tools, max_steps, tool_seconds):
        self.model = model

    def __call__(self, question):
        tell_step(Step())
        while True:
            self.model.program() + "Once" + gen("text", regex="[a-z ]{50}")
"""

# It blocks in a call of the system, until the other end of the pipe is opened and closed.
BLOCKED = '''
from langchain_core.tools import tool

@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression."""
    with open("pipe") as pipe:
        return pipe.read()
'''


WAITS = """
import os
import pathlib
import time
from types import SimpleNamespace

from server.sdk import ToolFailedError, call_tool


class CustomAgentGuidance:
    def __init__(self, model, tools, max_steps, tool_seconds):
        self.tools, self.tool_seconds = tools, tool_seconds

    def __call__(self, question):
        if question == "wait":
            pathlib.Path("begun-to-wait").touch()
            while not pathlib.Path("go-on").exists():
                time.sleep(0.01)
        if question == "block":
            try:
                call_tool(self.tools["calculator"], {"expression": "1"}, self.tool_seconds)
            except ToolFailedError:
                pass
        return SimpleNamespace(answer=str(os.getpid()), function=None, steps=[], usage={})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a workspace whose agent never ends, and one whose calculator blocks."""
    settings: dict[str, object] = {"TOOL_TIMEOUT": 0.5, "RUN_TIMEOUT": 200, "MAX_TOKENS": 100_000}
    made = start(tmp_path_factory.mktemp("limits") / "server", REPOSITORY, settings)
    try:
        made.wait_until_ready()
        put(made, "endless", "agent/react.py", ENDLESS)
        put(made, "endless", "agent/__init__.py", "from .react import CustomAgentGuidance\n")
        put(made, "blocked", "tools/calculator.py", BLOCKED)
        os.mkfifo(made.output_file.parent / "pipe")
        yield made
    finally:
        end(made)


def put(server: Server, workspace: str, path: str, text: str) -> None:
    answer = server.session.put(f"/workspaces/{workspace}/files/{path}", data=text.encode())
    assert answer.ok, answer.text


def ask(server: Server, workspace: str, **more: Any) -> requests.Response:
    return server.session.post("/run_script", json={"question": QUESTION, "workspace": workspace, **more})


def record(server: Server, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = server.session.get(f"/runs/{run_id}").json()
    return found


def test_a_run_is_cancelled_while_the_model_writes(server: Server) -> None:
    body = {"question": QUESTION, "workspace": "endless"}
    answer = server.session.post("/run_script", json=body, headers=EVENT_STREAM, stream=True)
    events = read(answer)
    run_id = next(event.data["run_id"] for event in events if event.kind == "started")
    next(event for event in events if event.kind == "token")
    assert server.session.delete(f"/runs/{run_id}").json() == {"run_id": run_id, "cancelled": True}
    [*_, last] = events
    assert (last.kind, last.data["type"]) == ("error", "run_cancelled")
    assert [step["thought"] for step in last.data["steps"]] == ["I will go on."]
    found = record(server, run_id)
    assert found["state"] == "cancelled" and found["steps"] == last.data["steps"]
    assert found["usage"]["completion_tokens"] > 0
    assert server.session.delete(f"/runs/{run_id}").status_code == 404


def test_a_run_that_is_out_of_time(server: Server) -> None:
    answer = ask(server, "endless", timeout=0.5)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (408, "run_timed_out")
    assert "0.5 seconds" in error["message"] and len(error["steps"]) == 1


def workers(server: Server, workspace: str) -> list[dict[str, Any]]:
    return [one for one in server.health()["workers"] if one["workspace"] == workspace]


def is_gone(server: Server, pid: int) -> bool:
    return not psutil.pid_exists(pid) and pid not in [one["pid"] for one in server.health()["workers"]]


@pytest.mark.parametrize(
    "goes_on",
    [
        "while True:\n            pass",
        "while True:\n            try:\n                self.model.program() + gen('text', max_tokens=9)\n"
        "            except BaseException:\n                pass",
        "os.mkfifo('agents-pipe')\n        open('agents-pipe')",
    ],
    ids=["computes", "catches", "blocks"],
)
def test_an_agent_that_does_not_stop_ends_with_its_worker(
    server: Server, goes_on: str, request: pytest.FixtureRequest
) -> None:
    workspace = f"stubborn-{request.node.callspec.id}"
    begin, _, _ = ENDLESS.partition("while True:")
    put(server, workspace, "agent/react.py", f"import os\n{begin}{goes_on}\n")
    put(server, workspace, "agent/__init__.py", "from .react import CustomAgentGuidance\n")
    assert server.session.post("/reload_modules", json={"workspace": workspace}).status_code == 200
    [worker] = workers(server, workspace)
    answer = ask(server, workspace, timeout=0.5)
    assert (answer.status_code, answer.json()["error"]["type"]) == (408, "run_timed_out")
    assert len(answer.json()["error"]["steps"]) == 1
    server.wait_until(lambda: is_gone(server, worker["pid"]), "the end of the worker")
    assert "is retired: the agent react of run" in server.output
    assert ask(server, "main").json()["answer"] == "1924"


def test_a_run_that_is_out_of_tokens(server: Server) -> None:
    answer = ask(server, "endless", max_tokens=60)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["limit"]) == (422, "token_limit", 60)
    assert len(error["steps"]) == 1
    [run, *_] = server.session.get("/runs", params={"workspace": "endless"}).json()["runs"]
    # It stops at the next token; the grammar may have forced a few after the last.
    assert run["state"] == "failed"
    assert 60 < run["usage"]["completion_tokens"] + run["usage"]["forced_tokens"] < 80


@pytest.mark.parametrize(("name", "most"), [("timeout", 200), ("max_tokens", 100_000)])
def test_a_question_may_ask_for_less_and_not_for_more(server: Server, name: str, most: int) -> None:
    assert ask(server, "main", **{name: most}).status_code == 200
    for value in (most + 1, 0, -1, "1"):
        refused = ask(server, "main", **{name: value})
        assert refused.status_code == 422, value
        error = refused.json()["error"]
        assert error["type"] == "invalid_request" and error["details"][0]["loc"] == [name]


def test_a_tool_that_does_not_come_back(server: Server) -> None:
    assert server.session.post("/reload_modules", json={"workspace": "blocked"}).status_code == 200
    [worker] = workers(server, "blocked")
    answer = ask(server, "blocked", max_steps=1)
    assert answer.status_code == 200, answer.text
    [step] = answer.json()["steps"]
    assert step["error"] == "the tool did not answer within 0.5 seconds." and step["error"] in step["observation"]
    server.wait_until(lambda: is_gone(server, worker["pid"]), "the end of the worker")
    assert "is retired: the tool calculator did not stop" in server.output


def test_what_can_finish_does_so_while_its_worker_is_replaced(server: Server) -> None:
    put(server, "both", "tools/calculator.py", BLOCKED)
    put(server, "both", "agent/react.py", WAITS)
    put(server, "both", "agent/__init__.py", "from .react import CustomAgentGuidance\n")
    folder = server.output_file.parent

    def pid_that_answers(question: str) -> int:
        answer = server.session.post("/run_script", json={"question": question, "workspace": "both"})
        return int(answer.json()["answer"])

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(pid_that_answers, "wait")
        server.wait_until((folder / "begun-to-wait").exists, "the run that waits")
        blocked = pid_that_answers("block")
        [retired] = server.wait_until(
            lambda: [one for one in workers(server, "both") if one["state"] == "retired"], "the worker's retirement"
        )
        assert (retired["pid"], retired["runs"]) == (blocked, 1)
        assert retired["retired"] == "the tool calculator did not stop"
        fresh = pid_that_answers("who are you?")
        assert fresh != blocked
        assert {(one["pid"], one["generation"]) for one in workers(server, "both")} == {
            (blocked, retired["generation"]),
            (fresh, retired["generation"]),
        }
        (folder / "go-on").touch()
        assert waits.result() == blocked
    server.wait_until(lambda: is_gone(server, blocked), "the end of the worker")
    assert pid_that_answers("who are you?") == fresh


def test_a_run_whose_tool_does_not_come_back_is_stopped_all_the_same(start_server: Callable[..., Server]) -> None:
    server = start_server(TOOL_TIMEOUT=600)
    put(server, "blocked", "tools/calculator.py", BLOCKED)
    folder = server.output_file.parent
    os.mkfifo(folder / "pipe")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, server, "blocked")
        other_end = os.open(folder / "pipe", os.O_WRONLY)  # waits for the tool
        [run] = server.session.get("/runs").json()["runs"]
        assert run["state"] == "running"
        [worker] = workers(server, "blocked")
        assert server.session.delete(f"/runs/{run['run_id']}").status_code == 200
        cancelled = asked.result()
        late = ask(server, "blocked", timeout=2)
    assert (cancelled.status_code, cancelled.json()["error"]["type"]) == (499, "run_cancelled")
    assert (late.status_code, late.json()["error"]["type"]) == (408, "run_timed_out")
    server.wait_until(lambda: is_gone(server, worker["pid"]), "the end of the worker")
    os.close(other_end)
