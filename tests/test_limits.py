"""Stopping a run: cancelled, out of time, out of tokens, and with a tool that does not come back."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.event_stream import EVENT_STREAM, read
from tests.server_process import REPOSITORY, Server, end, start

QUESTION = "What is 37 * 52?"

# An agent of somebody's own, which writes for ever; it tells one step, and knows nothing else of Hearth.
ENDLESS = """
from dataclasses import dataclass, field

from guidance import gen

from server.runs.step import tell_step


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

# It blocks where nothing can be raised inside it, until the other end of the pipe is opened and closed.
BLOCKED = '''
from langchain_core.tools import tool

@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression."""
    with open("pipe") as pipe:
        open("begun", "w").close()
        return pipe.read()
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a workspace whose agent never ends, and one whose calculator blocks."""
    settings = {"TOOL_TIMEOUT": 0.5, "RUN_TIMEOUT": 200, "MAX_TOKENS": 100_000}
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


@pytest.mark.parametrize(
    "goes_on",
    [
        "while True:\n            pass",
        "while True:\n            try:\n                self.model.program() + gen('text', max_tokens=9)\n"
        "            except Exception:\n                pass",
    ],
    ids=["computes", "catches"],
)
def test_an_agent_that_does_not_stop_is_left_behind(server: Server, goes_on: str) -> None:
    begin, _, _ = ENDLESS.partition("while True:")
    put(server, "stubborn", "agent/react.py", begin + goes_on + "\n")
    put(server, "stubborn", "agent/__init__.py", "from .react import CustomAgentGuidance\n")
    assert server.session.post("/reload_modules", json={"workspace": "stubborn"}).status_code == 200
    answer = ask(server, "stubborn", timeout=0.5)
    assert (answer.status_code, answer.json()["error"]["type"]) == (408, "run_timed_out")
    assert len(answer.json()["error"]["steps"]) == 1
    assert "was left behind" in server.output
    assert ask(server, "main").json()["answer"] == "1924"


def test_an_agent_that_is_left_behind_is_told_until_it_ends(server: Server) -> None:
    begin, _, _ = ENDLESS.partition("while True:")
    put(server, "stuck", "agent/react.py", begin + "open('agents_pipe').close()\n")
    put(server, "stuck", "agent/__init__.py", "from .react import CustomAgentGuidance\n")
    pipe = server.output_file.parent / "agents_pipe"
    os.mkfifo(pipe)
    answer = ask(server, "stuck", timeout=0.5)
    assert (answer.status_code, answer.json()["error"]["type"]) == (408, "run_timed_out")
    [run, *_] = server.session.get("/runs", params={"workspace": "stuck"}).json()["runs"]

    def told() -> list[tuple[str, str]]:
        found = server.health()["abandoned_tools"]
        return [(one["tool"], one["run_id"]) for one in found if one["workspace"] == "stuck"]

    assert told() == [("agent react", run["run_id"])]
    assert server.health()["abandoned"] >= 1
    pipe.write_text("")
    server.wait_until(lambda: not told(), "the end of the agent")


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
    answer = ask(server, "blocked", max_steps=1)
    assert answer.status_code == 200, answer.text
    [step] = answer.json()["steps"]
    assert step["error"] == "the tool did not answer within 0.5 seconds." and step["error"] in step["observation"]
    [abandoned] = [one for one in server.health()["abandoned_tools"] if one["workspace"] == "blocked"]
    assert abandoned["seconds"] >= 0
    assert abandoned == {
        "tool": "calculator",
        "workspace": "blocked",
        "run_id": answer.json()["run_id"],
        "seconds": abandoned["seconds"],
    }
    (server.output_file.parent / "pipe").write_text("")
    server.wait_until(
        lambda: not server.health()["abandoned_tools"], "the end of the tool, and of agents left behind"
    )


def test_a_run_whose_tool_does_not_come_back_is_stopped_all_the_same(start_server: Callable[..., Server]) -> None:
    server = start_server(TOOL_TIMEOUT=600)
    put(server, "blocked", "tools/calculator.py", BLOCKED)
    folder = server.output_file.parent
    os.mkfifo(folder / "pipe")
    other_end = os.open(folder / "pipe", os.O_RDWR)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, server, "blocked")
        server.wait_until((folder / "begun").exists, "the tool")
        [run] = server.session.get("/runs").json()["runs"]
        assert run["state"] == "running"
        assert server.session.delete(f"/runs/{run['run_id']}").status_code == 200
        cancelled = asked.result()
        assert [one["run_id"] for one in server.health()["abandoned_tools"]] == [run["run_id"]]
        late = ask(server, "blocked", timeout=2)
    assert (cancelled.status_code, cancelled.json()["error"]["type"]) == (499, "run_cancelled")
    assert (late.status_code, late.json()["error"]["type"]) == (408, "run_timed_out")
    os.close(other_end)
    server.wait_until(lambda: not server.health()["abandoned_tools"], "the end of the tools")
