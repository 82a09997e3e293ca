"""Many tools on a real server: the right one is called, the record says which were shown, and others are found."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.agent.tool_ranking import rank
from server.engine import GuidedEngine
from tests.support import lab_tools
from tests.support.event_stream import ask as follow
from tests.support.event_stream import read
from tests.support.model_api import ModelApi
from tests.support.server_process import REPOSITORY, Server, end, start
from tests.support.wire_formats import Request

LAB = "lab"
MOST = 10


FINDER = """
from langchain_core.tools import tool

@tool
def find_tools(query: str) -> str:
    "Find tools."
    return ""
"""


class ScriptedApi(ModelApi):
    """A server of models that writes these `steps`, one for each request for a step. `read` has these requests."""

    steps: list[dict[str, Any]]
    read: list[Request]

    def reply(self, request: Request) -> tuple[str, int, int]:
        if "Tools:" not in request.messages[0]["content"]:
            return super().reply(request)
        self.read.append(request)
        return json.dumps({"thought": "So it says.", "step": self.steps.pop(0)}), 1, 1


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that shows the model 10 tools, with a workspace that has 299 more than the shipped ones."""
    server = start(tmp_path_factory.mktemp("lab") / "server", REPOSITORY, {"TOOLS_SHOWN": MOST})
    try:
        server.wait_until_ready()
        # The calculator is a shipped tool already.
        put(server, LAB, "lab.py", lab_tools.source(but=("calculator",)))
        yield server
    finally:
        end(server)


def put(server: Server, workspace: str, file: str, text: str) -> None:
    answer = server.session.put(f"/workspaces/{workspace}/files/tools/{file}", data=text.encode())
    assert answer.status_code in (200, 201), answer.text


def ask(server: Server, question: str, **more: Any) -> dict[str, Any]:
    answer = server.session.post("/run_script", json={"question": question, "workspace": LAB, **more})
    assert answer.status_code == 200, f"{answer.text}\n{server.output}"
    body: dict[str, Any] = answer.json()
    return body


def test_the_right_tool_of_many_is_called(lab: Server) -> None:
    answer = ask(lab, "What is 37 * 52?")
    assert (answer["answer"], answer["function"]) == ("1924", "calculator")
    assert len(answer["tools_shown"]) == MOST and "calculator" in answer["tools_shown"]
    record = lab.session.get(f"/runs/{answer['run_id']}").json()
    assert record["tools_shown"] == answer["tools_shown"]
    again = lab.session.post(f"/runs/{answer['run_id']}/replay").json()
    assert again["same_answer"] and again["tools_shown"] == answer["tools_shown"]


@pytest.mark.parametrize(
    ("question", "tool"),
    [
        ("Does nitrile hold up against chloroform or do I need something else on my hands?", "glove_material"),
        ("We're out of nitrile gloves, get 10 boxes.", "place_order"),
        ("what phylum are tardigrades in", "taxonomy_lookup"),
    ],
)
def test_tools_are_found_by_meaning(lab: Server, question: str, tool: str) -> None:
    tools = lab_tools.build()
    assert tool not in rank(question, tools)[:MOST], "words alone would find it"
    assert tool in ask(lab, question, max_steps=1)["tools_shown"]


def test_without_an_embedding_model_tools_are_found_by_words(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_server(TOOLS_SHOWN=MOST, EMBEDDING_MODEL=str(tmp_path))
    server.wait_until_ready()
    put(server, LAB, "lab.py", lab_tools.source(but=("calculator",)))
    for _ in range(2):
        assert "calculator" in ask(server, "What is 37 * 52?")["tools_shown"]
    assert server.output.count("Tools are chosen by words alone") == 1
    assert str(tmp_path) in server.output


def test_few_tools_are_all_shown(lab: Server) -> None:
    answer = ask(lab, "What is 37 * 52?", workspace="main")
    assert answer["answer"] == "1924" and "tools_shown" not in answer


@pytest.mark.parametrize("agent", ["plan_execute", "auto"])
def test_other_agents_show_some_of_them(lab: Server, agent: str) -> None:
    answer = ask(lab, "What is 37 * 52?", agent=agent)
    assert "calculator" in answer["tools_shown"]
    assert MOST <= len(answer["tools_shown"]) < 300
    assert "tools_shown" not in ask(lab, "hello", agent="chat"), "it has no tools"


def test_a_session_shows_the_tools_that_it_has_called(lab: Server) -> None:
    first = ask(lab, "What is 37 * 52?", session_id="s1")
    assert first["function"] == "calculator"
    question = "Which phase has the moon, and who is on duty?"
    assert "calculator" not in ask(lab, question)["tools_shown"]
    assert "calculator" in ask(lab, question, session_id="s1")["tools_shown"]


def test_a_run_that_fails_says_what_was_shown(lab: Server) -> None:
    failed = lab.session.post("/run_script", json={"question": "moon " * 3000, "workspace": LAB})
    assert failed.json()["error"]["type"] == "prompt_too_long", failed.text
    [run] = lab.session.get("/runs", params={"workspace": LAB, "limit": "1"}).json()["runs"]
    assert run["state"] == "failed" and len(run["tools_shown"]) == MOST and "moon_phase" in run["tools_shown"]


def test_no_tool_is_called_find_tools(lab: Server) -> None:
    put(lab, "finder", "finder.py", FINDER)
    refused = lab.session.post("/reload_modules", json={"workspace": "finder"})
    assert refused.status_code == 422
    [error] = refused.json()["error"]["errors"]
    assert (error["file"], error["line"]) == ("server/tools/finder.py", 4)
    assert "find_tools is the name of the tool that" in error["message"]


@pytest.mark.parametrize("schemas", ["taken", "refused"])
def test_a_remote_model_finds_a_tool(start_server: Callable[..., Server], engine: GuidedEngine, schemas: str) -> None:
    api = ScriptedApi(engine, schemas=schemas)
    call = {"action": "molar_mass", "action_input": {"formula": "H2O"}}
    find = {"action": "find_tools", "action_input": {"query": "mass of a mole of a compound"}}
    api.steps, api.read = [find, call, {"answer": "18.015 g/mol"}], []
    with api.serving():
        server = start_server(MODEL="openai:embedded", BASE_URL=f"{api.url}/v1", TOOLS_SHOWN=MOST)
        put(server, LAB, "lab.py", lab_tools.source(but=("calculator",)))
        events = list(read(follow(server, "Can you help with the homework?", workspace=LAB)))
    answer = events[-1].data
    assert (answer["answer"], answer["function"]) == ("18.015 g/mol", "molar_mass")
    assert [(step["tool"], step.get("error")) for step in answer["steps"]] == [
        ("find_tools", None),
        ("molar_mass", None),
    ]
    found, called = (step["observation"] for step in answer["steps"])
    assert "- Compute the molar mass of a compound in g/mol: molar_mass(formula: string)" in found.splitlines()
    assert called == "molar_mass"
    first, second, third = api.read
    assert "find_tools(query: string)" in first.messages[0]["content"]
    assert "molar_mass" not in first.messages[0]["content"]
    assert found in second.messages[-1]["content"] and third.messages[0] == first.messages[0]
    if schemas == "taken":
        assert ["molar_mass" in json.dumps(one.schema) for one in api.read] == [False, True, True]
    assert answer["tools_shown"][MOST:] and "molar_mass" in answer["tools_shown"][MOST:]
