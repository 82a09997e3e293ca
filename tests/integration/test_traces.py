"""What the model saw in a run: steps, prompts, and tokens with their log-probabilities."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from server.runs.trace import MOST_CHARACTERS, WHOLE_EVERY, Trace, lines, shared_prefix, with_prompts
from server.sdk.model_call import ModelCall
from server.sdk.usage import Usage
from server.store import Database, RunStore
from server.store.runs import RunFilter
from server.store.traces import TraceStore
from tests.support.server_process import REPOSITORY, Server

TWO_TOOLS = "What is 37 * 52, converted from km to m?"


@pytest.fixture(scope="module")
def run(server: Server) -> dict[str, Any]:
    """A question of two tools, answered."""
    answer: dict[str, Any] = server.session.post("/run_script", json={"question": TWO_TOOLS}).json()
    assert [step["tool"] for step in answer["steps"]] == ["calculator", "convert_units"]
    return answer


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    made = Database(tmp_path / "data", database_url)
    yield made
    made.close()


def get(server: Server, path: str, **query: Any) -> dict[str, Any]:
    answer = server.session.get(path, params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def refusal(server: Server, status: int, path: str, **query: Any) -> str:
    answer = server.session.get(path, params=query)
    assert answer.status_code == status, answer.text
    message: str = answer.json()["error"]["message"]
    return message


def steps_of(server: Server, run: dict[str, Any]) -> list[dict[str, Any]]:
    """Each step with its prompts, the answer last."""
    return [get(server, f"/runs/{run['run_id']}/steps/{number}") for number in (1, 2, 3)]


def test_the_steps_are_listed_in_lines(server: Server, run: dict[str, Any]) -> None:
    listed = get(server, f"/runs/{run['run_id']}/steps")
    assert (listed["state"], listed["count"]) == ("done", 2)
    assert [(one["step"], one["tool"], one["model_calls"]) for one in listed["steps"]] == [
        (1, "calculator", 1),
        (2, "convert_units", 1),
    ]
    assert sum(one["tokens"] for one in listed["steps"]) < sum(
        run["usage"][kind] for kind in ("completion_tokens", "forced_tokens")
    )
    assert all(0 < one["seconds"] < run["seconds"] and not one["has_error"] for one in listed["steps"])
    part = get(server, f"/runs/{run['run_id']}/steps", after=1, limit=1)
    assert part["steps"] == listed["steps"][1:]


def test_each_prompt_is_what_was_written_before_and_then_the_tools_result(
    server: Server, run: dict[str, Any]
) -> None:
    shown = steps_of(server, run)
    [first], [second], [third] = (one["model_calls"] for one in shown)
    assert TWO_TOOLS in first["prompt"] and (first["previous_call"], first["diff"]) == (None, None)
    assert first["written"].startswith("Thought: ") and first["written"].endswith('"37 * 52"}')
    for before, now, step in ((first, second, shown[0]), (second, third, shown[1])):
        assert now["prompt"] == f"{before['prompt']}{before['written']}\nObservation: {step['observation']}"
        assert (now["previous_call"], now["shared_prefix"]) == (before["call"], len(before["prompt"]))
        assert f"+Observation: {step['observation']}" in now["diff"]
    assert shown[2]["answer"] == run["answer"] and third["written"].endswith(run["answer"])
    written = sum(one["usage"]["completion_tokens"] + one["usage"]["forced_tokens"] for one in (first, second, third))
    assert written == run["usage"]["completion_tokens"] + run["usage"]["forced_tokens"]


def test_the_logprobs_are_those_of_transformers(server: Server, run: dict[str, Any]) -> None:
    folder = REPOSITORY / "server" / "embedded" / "weights"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for number, shown in enumerate(steps_of(server, run), 1):
        [call] = shown["model_calls"]
        scored = get(server, f"/runs/{run['run_id']}/tokens", step=number)
        assert (scored["call"], scored["count"], len(scored["tokens"])) == (number, call["tokens"], call["tokens"])
        tokens = scored["tokens"]
        end = "<|eos|>" if number == 3 else ""
        assert "".join(one["text"] for one in tokens) == call["written"] + end
        prompt = tokenizer(call["prompt"], add_special_tokens=False)["input_ids"]
        ids = [one["id"] for one in tokens]
        with torch.inference_mode():
            theirs = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
        for one, row in zip(tokens, theirs, strict=True):
            assert one["logprob"] == pytest.approx(float(row[one["id"]]), abs=1e-4)
            best = row.topk(5)
            assert [other["logprob"] for other in one["top"]] == pytest.approx(best.values.tolist(), abs=1e-4)
            assert one["top"][0]["id"] == int(best.indices[0])
        forced = "".join(one["text"] for one in tokens if one["forced"])
        assert ('{"expression": "' in forced) == (number == 1)
        assert not any(one["forced"] for one in tokens if one["text"] in ("37", "52", "1924"))


def test_a_part_of_the_tokens(server: Server, run: dict[str, Any]) -> None:
    path = f"/runs/{run['run_id']}/tokens"
    whole = get(server, path, call=2)["tokens"]
    part = get(server, path, call=2, after=3, limit=4)["tokens"]
    assert [one["id"] for one in part] == [one["id"] for one in whole[3:7]]
    assert [one["logprob"] for one in part] == pytest.approx([one["logprob"] for one in whole[3:7]], abs=1e-4)
    assert get(server, path, call=2, after=10_000)["tokens"] == []


def test_scoring_and_answering_at_once_disturb_nobody(server: Server, run: dict[str, Any]) -> None:
    expected = get(server, f"/runs/{run['run_id']}/tokens", call=1)["tokens"]
    answers: list[str] = []

    def ask() -> None:
        answers.append(server.session.post("/run_script", json={"question": TWO_TOOLS}).json()["answer"])

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    for _ in range(5):
        scored = get(server, f"/runs/{run['run_id']}/tokens", call=1)["tokens"]
        assert [one["id"] for one in scored] == [one["id"] for one in expected]
        assert [one["logprob"] for one in scored] == pytest.approx([one["logprob"] for one in expected], abs=1e-3)
    for thread in asking:
        thread.join()
    assert answers == [run["answer"]] * 3


def test_a_run_is_shown_without_its_steps(server: Server, run: dict[str, Any]) -> None:
    path = f"/runs/{run['run_id']}"
    whole, head = server.session.get(path).json(), server.session.get(f"{path}?steps=false").json()
    assert whole["steps"] and head == {**whole, "steps": []}


def test_what_is_not_there_is_said(server: Server, run: dict[str, Any]) -> None:
    path = f"/runs/{run['run_id']}"
    assert "it has 2" in refusal(server, 404, f"{path}/steps/4")
    assert "it has 2" in refusal(server, 404, f"{path}/tokens", step=4)
    assert "no model call 4" in refusal(server, 404, f"{path}/tokens", call=4)
    assert "no run 'nobody'" in refusal(server, 404, "/runs/nobody/steps")
    assert "either call or step" in refusal(server, 422, f"{path}/tokens")
    assert "either call or step" in refusal(server, 422, f"{path}/tokens", call=1, step=1)
    for query in ({"limit": 0}, {"after": -1}, {"after": 10**30}, {"colour": "red"}):
        assert "not valid" in refusal(server, 422, f"{path}/steps", **query)


def test_runs_are_found_by_what_they_are(server: Server, run: dict[str, Any]) -> None:
    words = "a word that nobody else asks: ZEBRA_%"
    made = [
        server.session.post(
            "/run_script", json={"question": f"{words} {number}", "agent": "chat", "session_id": f"found-{number}"}
        ).json()["run_id"]
        for number in range(3)
    ]

    def found(**query: Any) -> list[str]:
        return [one["run_id"] for one in get(server, "/runs", **query)["runs"]]

    assert found(text="zebra_%") == made[::-1]
    assert found(text="zebra__") == []
    assert found(text="zebra", before=made[2], limit=1) == [made[1]]
    assert found(text="zebra", session_id="found-1") == [made[1]]
    assert run["run_id"] not in found(agent="chat") and run["run_id"] in found(agent="react", model="embedded")
    assert found(text="zebra", state="failed") == found(text="zebra", model="other") == []
    assert found(text="zebra", since="2020-01-01T00:00:00Z") == made[::-1]
    assert found(since="2100-01-01T00:00:00Z") == []
    assert "no run 'nobody'" in refusal(server, 404, "/runs", before="nobody")
    assert "since" in refusal(server, 422, "/runs", since="yesterday")


def test_a_run_in_flight_shows_what_it_has_done(start_server: Callable[..., Server], code_copy: Path) -> None:
    tool = '''
import pathlib
import time

from langchain_core.tools import tool

@tool
def convert_units(value: float, from_unit: str, to_unit: str) -> str:
    """Convert a value from one unit to another."""
    pathlib.Path("begun").touch()
    while not pathlib.Path("go_on").exists():
        time.sleep(0.01)
    return "1924000 m"
'''
    (code_copy / "server" / "tools" / "convert_units.py").write_text(tool)
    for other in (code_copy / "server" / "tools").glob("*.py"):
        if other.stem != "convert_units" and "convert_units" in other.read_text():
            other.unlink()
    server = start_server(code_copy)
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(
        target=lambda: answers.append(server.session.post("/run_script", json={"question": TWO_TOOLS}).json())
    )
    asking.start()
    folders = (server.runtime_file.parents[2], code_copy)
    begun = server.wait_until(lambda: [one for folder in folders for one in folder.rglob("begun")], "the tool")[0]
    [flying] = get(server, "/runs", state="running")["runs"]
    path = f"/runs/{flying['run_id']}"
    listed = get(server, f"{path}/steps")
    assert (listed["state"], listed["count"], listed["steps"][0]["tool"]) == ("running", 1, "calculator")
    [call] = get(server, f"{path}/steps/2")["model_calls"] if listed["count"] > 1 else steps_now(server, path)
    assert call["step"] == 1 and TWO_TOOLS in call["prompt"]
    (begun.parent / "go_on").touch()
    asking.join()
    assert len(get(server, f"{path}/steps/2")["model_calls"]) == 1
    server.session.post("/unload_model")
    assert "Load that model first" in refusal(server, 409, f"{path}/tokens", call=1)


def steps_now(server: Server, path: str) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = get(server, f"{path}/steps/1")["model_calls"]
    return calls


# The store and the trace, without a server


def call(prompt: str, written: str, tokens: tuple[int, ...] = ()) -> ModelCall:
    return ModelCall("text", prompt, written, Usage(completion_tokens=1), 0.5, tokens=tokens, chosen=frozenset((0,)))


def test_prompts_come_back_exactly_and_take_no_more_than_was_added(database: Database) -> None:
    trace, text, prompts = Trace(), "Be brief. \x00\ud800 ", list[str]()
    for number in range(3 * WHOLE_EVERY):
        prompts.append(text)
        trace.add(call(text, f"step {number}", (number, 2**20)), number + 1, None)
        text += f"step {number} and its result {number * 'é'}\n"
    calls = trace.calls()
    assert sum(len(one.rest or "") for one in calls if one.number % WHOLE_EVERY != 1) < len(text)
    record: dict[str, Any] = {"run_id": "r1", "workspace": "main", "generation": None, "question": "", "steps": []}
    RunStore(database).add(record, "main", calls=calls)
    store = TraceStore(database)
    for number in (1, 2, WHOLE_EVERY, WHOLE_EVERY + 1, 3 * WHOLE_EVERY):
        *_, (found, prompt) = with_prompts(store.calls("r1", number, number))
        assert (found.number, prompt) == (number, prompts[number - 1])
        assert (list(found.tokens), found.chosen) == ([number - 1, 2**20], {0})
    assert store.calls_of("r1", 7) == [7] and store.call_before("r1", 7, None) == 6
    assert store.call_before("r1", 7, "calculator") is None


def test_the_texts_of_a_trace_are_bounded_and_what_is_cut_is_said() -> None:
    trace = Trace()
    for number in range(4):
        trace.add(call(str(number) * (MOST_CHARACTERS // 2 - 1000), "x"), 1, None)
    assert [one.is_cut for one in trace.calls()] == [False, False, True, True]
    assert [one.number for one, prompt in with_prompts(trace.calls()) if not prompt] == [3, 4]


@pytest.mark.parametrize(("one", "two", "length"), [("", "a", 0), ("a", "b", 0), ("abc", "abd", 2), ("ab", "abc", 2)])
def test_the_shared_prefix(one: str, two: str, length: int) -> None:
    assert shared_prefix(one, two) == shared_prefix(two, one) == length


def test_a_run_of_thirty_thousand_steps_is_read_in_parts(database: Database) -> None:
    step = {"thought": "t" * 100, "tool": "calculator", "input": {"expression": "1"}, "observation": "o" * 200}
    steps = [{**step, "observation": f"{number}"} for number in range(30_000)]
    record = {"run_id": "r1", "workspace": "main", "generation": None, "question": "", "steps": steps}
    RunStore(database).add(record, "main")
    store = TraceStore(database)
    count, found = store.lines("r1", 29_990, 100)
    assert (count, len(found)) == (30_000, 10)
    [saved] = store.steps("r1", 15_000, 15_000)
    assert saved.step["observation"] == "14999"
    assert len(RunStore(database).get("r1")["steps"]) == 30_000
    assert RunStore(database).head("r1")["steps"] == []


def test_steps_of_records_from_before_are_read_from_them(tmp_path: Path) -> None:
    from sqlalchemy import text

    database = Database(tmp_path)
    store, traces = RunStore(database), TraceStore(database)
    store.add({"run_id": "r1", "workspace": "main", "generation": None, "question": "", "steps": []}, "main")
    steps = [{"thought": "t", "tool": "x", "input": {}, "observation": str(number)} for number in range(3)]
    record = json.dumps({"run_id": "r1", "steps": steps})
    with database.writing() as connection:
        connection.execute(text("UPDATE run SET record = :record"), {"record": record})
    assert store.get("r1")["steps"] == steps
    count, found = traces.lines("r1", 1, 1)
    assert (count, found) == (3, [lines(steps)[1].as_json()])
    assert [one.step for one in traces.steps("r1", 2, 9)] == steps[1:]
    assert [one["run_id"] for one in store.latest(RunFilter(workspace="main"), 9)] == ["r1"]
    database.close()
