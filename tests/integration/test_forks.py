"""Forks: a run is continued from one of its steps, with one thing changed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server_process import Server, copy_code, end, start

TWO_TOOLS = "What is 37 * 52, converted from km to m?"
FAILING = '''
from langchain_core.tools import tool

@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression."""
    {body}
'''
OWN_AGENTS = '''
from dataclasses import asdict

from server.sdk import replayed_steps, tell_step, usage

from . import prompts
from .agent import Agent, AgentResult, Step


class Counting(Agent):
    """Each step is a word of the model's."""

    name = "counting"
    replays = True

    def __call__(self, question, history=()):
        steps = []
        with usage.measured() as used:
            conversation = self.open(prompts.conversation("Answer in one word.", question, history))
            for given in replayed_steps():
                conversation.add(given.written + given.observation)
                steps.append(Step(given.thought, given.tool, given.input, given.observation))
                tell_step(steps[-1])
            while len(steps) < 3:
                word = conversation.write("", max_tokens=2)
                steps.append(Step(word, "count", {}, f" {len(steps)} "))
                tell_step(steps[-1])
                conversation.add(steps[-1].observation)
            answer = conversation.write("", max_tokens=2)
        return AgentResult(answer, None, steps, asdict(used))
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over a copy of the code, which these tests change."""
    folder = tmp_path_factory.mktemp("forks")
    code = copy_code(folder)
    (code / "server" / "agent" / "counting.py").write_text(OWN_AGENTS)
    server = start(folder / "server", code, {})
    try:
        server.wait_until_ready()
        yield server
    finally:
        end(server)


@pytest.fixture(scope="module")
def run(lab: Server) -> dict[str, Any]:
    return ask(lab, TWO_TOOLS)


def ask(server: Server, question: str, **more: Any) -> dict[str, Any]:
    answer = server.session.post("/run_script", json={"question": question, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def fork(server: Server, run: dict[str, Any], **changes: Any) -> dict[str, Any]:
    answer = server.session.post(f"/runs/{run['run_id']}/fork", json=changes)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def refusal(server: Server, status: int, run_id: str, **changes: Any) -> str:
    answer = server.session.post(f"/runs/{run_id}/fork", json=changes)
    assert answer.status_code == status, answer.text
    message: str = answer.json()["error"]["message"]
    return message


def calls(server: Server, run: dict[str, Any], step: int) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = server.session.get(f"/runs/{run['run_id']}/steps/{step}").json()["model_calls"]
    return shown


def written(run: dict[str, Any]) -> int:
    return int(run["usage"]["completion_tokens"] + run["usage"]["forced_tokens"])


@contextlib.contextmanager
def calculator(server: Server, body: str) -> Iterator[str]:
    """Within this block the calculator is another one. Gives its generation."""
    path = server.code / "server" / "tools" / "calculator.py"
    was = path.read_text()
    path.write_text(FAILING.format(body=body))
    try:
        yield server.session.post("/reload_modules").json()["generation"]
    finally:
        path.write_text(was)
        server.session.post("/reload_modules")


def test_the_steps_before_cost_nothing_and_the_prompt_is_byte_for_byte_the_same(
    lab: Server, run: dict[str, Any]
) -> None:
    for step in (1, 2, 3):
        forked = fork(lab, run, step=step)
        assert (forked["answer"], forked["steps"]) == (run["answer"], run["steps"])
        assert forked["forked_from"] == {"run_id": run["run_id"], "step": step, "edited": [], "same_prompt": True}
        made = [calls(lab, run, number) for number in range(step, 4)]
        assert [call["prompt"] for [call] in made] == [
            call["prompt"] for number in range(step, 4) for call in calls(lab, forked, number)
        ]
        assert written(forked) == sum(
            call["usage"]["completion_tokens"] + call["usage"]["forced_tokens"] for [call] in made
        )
        listed = lab.session.get(f"/runs/{forked['run_id']}/steps").json()["steps"]
        assert [one["replayed"] for one in listed] == [number < step for number in (1, 2)]
        assert [one["tokens"] for one in listed[: step - 1]] == [0] * (step - 1)
        saved = lab.session.get(f"/runs/{forked['run_id']}").json()
        assert (saved["forked_from"], saved["steps"]) == (forked["forked_from"], run["steps"])


def test_another_result_of_a_tool_changes_the_answer(lab: Server, run: dict[str, Any]) -> None:
    forked = fork(lab, run, step=2, observation="5")
    assert [step["observation"] for step in forked["steps"]] == ["5", "5000 m"] and forked["answer"] == "5000 m"
    assert forked["forked_from"]["edited"] == ["observation"] and not forked["forked_from"]["same_prompt"]
    assert fork(lab, run, step=3, observation="77 m")["answer"] == "77 m"


def test_another_input_with_the_tool_called_again(lab: Server, run: dict[str, Any]) -> None:
    forked = fork(lab, run, step=2, input={"expression": "2 * 3"}, rerun_tool=True)
    assert (forked["steps"][0]["input"], forked["steps"][0]["observation"]) == ({"expression": "2 * 3"}, "6")
    assert forked["answer"] == "6000 m"
    [call] = calls(lab, forked, 2)
    assert 'Action Input: {"expression": "2 * 3"}\nObservation: 6' in call["prompt"]
    again = fork(lab, forked, step=3)
    assert again["answer"] == "6000 m" and again["forked_from"]["same_prompt"]


def test_another_question_and_another_history(lab: Server, run: dict[str, Any]) -> None:
    asked = fork(lab, run, step=2, question=TWO_TOOLS.replace("to m?", "to cm?"))
    assert asked["answer"].endswith("cm") and asked["steps"][0] == run["steps"][0]
    told = fork(
        lab, run, step=1, history=[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    )
    assert "Hello" in calls(lab, told, 1)[0]["prompt"] and "Hello" not in calls(lab, run, 1)[0]["prompt"]


def test_a_fork_of_a_fork(lab: Server, run: dict[str, Any]) -> None:
    forked = fork(lab, run, step=3, observation="77 m")
    again = fork(lab, forked, step=3, observation="78 m")
    assert again["answer"] == "78 m" and again["forked_from"]["run_id"] == forked["run_id"]
    back = fork(lab, again, step=3, observation=run["steps"][1]["observation"])
    assert calls(lab, back, 3)[0]["prompt"] == calls(lab, run, 3)[0]["prompt"]


def test_the_code_of_that_time_or_the_live_one(lab: Server) -> None:
    with calculator(lab, "return '1111'"):
        old = ask(lab, TWO_TOOLS)
    assert old["answer"] == "1111000 m"
    same = fork(lab, old, step=2, rerun_tool=True)
    assert (same["answer"], same["generation"]) == ("1111000 m", old["generation"])
    assert same["forked_from"]["same_prompt"]
    live = fork(lab, old, step=2, rerun_tool=True, generation="live")
    assert live["answer"] == "1924000 m" and live["generation"] == lab.health()["tools"]["generation"]
    named = fork(lab, old, step=1, generation=live["generation"][:6])
    assert named["answer"] == "1924000 m"


def test_in_another_workspace(lab: Server, run: dict[str, Any]) -> None:
    tool = FAILING.format(body="return '2222'")
    lab.session.put("/workspaces/alice/files/tools/calculator.py", data=tool.encode())
    lab.session.post("/reload_modules", json={"workspace": "alice"})
    forked = fork(lab, run, step=2, rerun_tool=True, workspace="alice", generation="live")
    assert (forked["workspace"], forked["answer"]) == ("alice", "2222000 m")


def test_a_tools_error_is_taken_over_as_one(lab: Server) -> None:
    with calculator(lab, "raise ValueError('no')"):
        failed = ask(lab, "What is 37 * 52?", max_steps=1)
    [step] = failed["steps"]
    assert "no" in step["error"] and "ValueError" in step["traceback"]
    forked = fork(lab, failed, step=2)
    assert forked["steps"] == [step] and forked["forked_from"]["same_prompt"]
    mended = fork(lab, failed, step=2, observation="1924")
    assert (mended["answer"], "error" in mended["steps"][0]) == ("1924", False)


def test_other_sampling(lab: Server, run: dict[str, Any]) -> None:
    hot = {"temperature": 30.0, "top_k": 50, "seed": 1}
    forked, again = (fork(lab, run, step=3, sampling=hot) for _ in range(2))
    assert forked["answer"] == again["answer"] != run["answer"]
    assert forked["forked_from"]["sampling"] == hot and calls(lab, forked, 3)[0]["sampling"] == hot


def test_a_text_is_continued_from_a_token(lab: Server, run: dict[str, Any]) -> None:
    tokens = lab.session.get(f"/runs/{run['run_id']}/tokens", params={"call": 1}).json()["tokens"]
    begin = next(number for number, one in enumerate(tokens) if one["text"] == "3")
    same = fork(lab, run, continue_from={"call": 1, "token": begin})
    assert same["answer"] == run["answer"] and same["forked_from"] == {
        "run_id": run["run_id"],
        "step": 1,
        "edited": ["continue_from"],
        "same_prompt": True,
    }
    other = fork(lab, run, continue_from={"call": 1, "token": begin, "text": '2 * 3"'})
    assert other["steps"][0]["input"] == {"expression": "2 * 3"} and other["answer"] == "6000 m"
    [call] = calls(lab, other, 1)
    assert call["written"].endswith('{"expression": "2 * 3"}') and call["usage"]["completion_tokens"] < begin
    scored = lab.session.get(f"/runs/{other['run_id']}/tokens", params={"call": 1}).json()["tokens"]
    assert all(one["forced"] for one in scored[:begin])


def test_a_text_that_the_grammar_does_not_allow_is_refused_where_it_is(lab: Server, run: dict[str, Any]) -> None:
    text = "Thought: I know.\nAction: sing"
    message = refusal(lab, 422, run["run_id"], continue_from={"call": 1, "token": 0, "text": text})
    assert ("does not allow the text from character" in message and "'ing'" in message) or "'sing'" in message
    count = calls(lab, run, 1)[0]["tokens"]
    message = refusal(lab, 422, run["run_id"], continue_from={"call": 1, "token": count, "text": " more"})
    assert "' more'" in message


def test_an_agent_of_ones_own_takes_over_steps(lab: Server) -> None:
    first = ask(lab, "Count", agent="counting")
    forked = fork(lab, first, step=3)
    assert (forked["steps"], forked["answer"]) == (first["steps"], first["answer"])
    assert forked["forked_from"]["same_prompt"]
    changed = fork(lab, first, step=3, observation=" eleven ")
    assert changed["steps"][1]["observation"] == " eleven "


def test_an_agent_that_takes_over_no_steps_is_not_asked(lab: Server, run: dict[str, Any]) -> None:
    assert "'chat'" in refusal(lab, 422, run["run_id"], step=2, agent="chat")
    assert fork(lab, run, step=1, agent="chat")["steps"] == []
    planned = ask(lab, "What is 3 * 4?", agent="plan_execute")
    assert fork(lab, planned, step=1)["answer"] == planned["answer"]
    if planned["steps"]:
        assert "can't" in refusal(lab, 422, planned["run_id"], step=2)


def test_what_does_not_fit_is_said(lab: Server, run: dict[str, Any]) -> None:
    name = run["run_id"]
    assert "it has 2" in refusal(lab, 404, name, step=4)
    assert "no run" in refusal(lab, 404, "nobody", step=1)
    assert "at which step" in refusal(lab, 422, name)
    assert "step 1" in refusal(lab, 422, name, step=1, observation="x")
    assert "either" in refusal(lab, 422, name, step=2, observation="x", rerun_tool=True)
    assert "colour" in refusal(lab, 422, name, step=2, colour="red")
    assert "temperature" in refusal(lab, 422, name, step=2, sampling={"temperature": -1})
    assert "has no model call 9" in refusal(lab, 422, name, continue_from={"call": 9, "token": 0})
    assert "tokens" in refusal(lab, 422, name, continue_from={"call": 1, "token": 10_000})
    assert "number 3" in refusal(lab, 422, name, step=3, continue_from={"call": 1, "token": 0})
    assert "generation" in refusal(lab, 404, name, step=2, generation="ffff")
    assert "agent" in refusal(lab, 404, name, step=2, agent="nobody")
    assert "workspace" in refusal(lab, 404, name, step=2, workspace="nobody")
    forked = fork(lab, run, step=2)
    replayed = lab.session.post(f"/runs/{forked['run_id']}/replay")
    assert replayed.status_code == 422 and "Fork" in replayed.json()["error"]["message"]


def test_a_fork_streams_like_a_question(lab: Server, run: dict[str, Any]) -> None:
    answer = lab.session.post(
        f"/runs/{run['run_id']}/fork", json={"step": 3}, headers={"Accept": "text/event-stream"}
    )
    kinds = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert kinds.count("step") == 2 and kinds[-1] == "answer"


def test_a_run_whose_model_is_not_resident_is_refused(lab: Server, run: dict[str, Any], tmp_path: Path) -> None:
    lab.session.post("/unload_model")
    try:
        assert "Load that model first" in refusal(lab, 409, run["run_id"], step=2)
        answer = lab.session.get(f"/runs/{run['run_id']}/tokens", params={"step": 1})
        assert answer.status_code == 409 and "Load that model first" in answer.text
    finally:
        assert lab.session.post("/load_model", json={}).status_code == 200
