"""Comparisons over HTTP: two generations, the checks, failures on one side, cancelling, and what a restart leaves."""

import csv
import io
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.comparisons.comparison import Cell, CheckChoice, Comparison, Row, Side
from server.errors import GenerationInUseError, StoreRefusedError
from server.store import Database, GenerationStore
from server.store.comparisons import ComparisonStore
from tests.support.compared_code import SPACE, put_version
from tests.support.event_stream import Event, read
from tests.support.server_process import REPOSITORY, Server, end, start


class Lab:
    """A server with two generations, `old` and `new`, of which `new` is live."""

    def __init__(self, server: Server, old: str, new: str) -> None:
        self.server = server
        self.session = server.session
        self.old = old
        self.new = new

    def begin(self, questions: list[Any], **more: Any) -> str:
        """Start a comparison of both generations. Returns its id."""
        body = {
            "workspace": SPACE,
            "questions": [one if isinstance(one, dict) else {"question": one} for one in questions],
        }
        sides = {"a": {"generation": self.old, "agent": "direct"}, "b": {"agent": "direct"}}
        answer = self.session.post("/comparisons", json={**body, **sides, **more})
        assert answer.status_code == 202, answer.text
        assert answer.json()["state"] == "running"
        return str(answer.json()["comparison_id"])

    def ended(self, comparison: str) -> dict[str, Any]:
        """A comparison after its end."""

        def look() -> dict[str, Any] | None:
            shown: dict[str, Any] = self.session.get(f"/comparisons/{comparison}").json()
            return None if shown["state"] == "running" else shown

        found: dict[str, Any] = self.server.wait_until(look, f"the end of {comparison}", 60)
        return found

    def rows(self, comparison: str, **query: Any) -> list[dict[str, Any]]:
        answer = self.session.get(f"/comparisons/{comparison}/rows", params=query)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["rows"]
        return found

    def events(self, comparison: str, after: int = 0) -> list[Event]:
        answer = self.session.get(
            f"/comparisons/{comparison}/events", headers={"Last-Event-ID": str(after)}, stream=True
        )
        return [event for event in read(answer) if event.kind != "ping"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server of this file's own, whose tools may take a second."""
    folder = tmp_path_factory.mktemp("comparisons")
    made = start(folder / "server", REPOSITORY, {"TOOL_TIMEOUT": 3})
    try:
        made.wait_until_ready()
        old = put_version(made, "old")
        yield Lab(made, old, put_version(made, "new"))
    finally:
        end(made)


def test_two_generations(lab: Lab) -> None:
    """The rows that differ come first, and the code is that of the start."""
    questions = [
        {"question": "same", "expected": "SAME"},
        {"question": "differ", "expected": "new differ"},
        {"question": "differ too", "expected": "none of both"},
        {"question": "no expectation"},
    ]
    name = lab.begin(questions, check={"kind": "equal"}, name="a first one")
    shown = lab.ended(name)
    assert (shown["state"], shown["name"], shown["answered"], shown["questions"]) == ("done", "a first one", 4, 4)
    assert (shown["a"]["generation"], shown["b"]["generation"]) == (lab.old, lab.new)
    assert shown["a"]["model"] == "embedded"
    summary = shown["summary"]
    assert (summary["changed"], summary["judged"], summary["unjudged"]) == (2, 3, 1)
    assert (summary["only_a_correct"], summary["only_b_correct"], summary["p"]) == (0, 1, 1.0)
    assert summary["correct"] == {"a": 1, "b": 2}

    rows = lab.rows(name)
    assert [row["number"] for row in rows] == [2, 3, 1, 4]
    first = rows[0]
    assert (first["a"]["answer"], first["b"]["answer"]) == ("old differ", "new differ")
    assert (first["a"]["correct"], first["b"]["correct"], first["changed"]) == (False, True, True)
    assert (rows[3]["a"]["correct"], rows[3]["changed"]) == (None, False)
    run = lab.session.get(f"/runs/{first['a']['run_id']}").json()
    assert (run["priority"], run["generation"], run["question"]) == ("batch", lab.old, "differ")
    assert [row["number"] for row in lab.rows(name, order="number")] == [1, 2, 3, 4]


def test_the_list_and_its_parts(lab: Lab) -> None:
    names = [lab.begin(["one"]) for _ in range(3)]
    for name in names:
        lab.ended(name)
    first = lab.session.get(f"/comparisons?limit=2&workspace={SPACE}").json()
    assert [one["comparison_id"] for one in first["comparisons"]] == names[:0:-1]
    second = lab.session.get("/comparisons", params={"limit": 2, "before": first["next"]}).json()
    assert second["comparisons"][0]["comparison_id"] == names[0]
    assert lab.session.get("/comparisons", params={"workspace": "main"}).json() == {"comparisons": [], "next": None}

    name = lab.begin([f"question {number}{' differ' * (number % 2)}" for number in range(7)])
    lab.ended(name)
    for order, expected in (("changed", [2, 4, 6, 1, 3, 5, 7]), ("number", [1, 2, 3, 4, 5, 6, 7])):
        found, after = [], None
        while True:
            query: dict[str, Any] = {"order": order, "limit": 3, **({} if after is None else {"after": after})}
            part = lab.session.get(f"/comparisons/{name}/rows", params=query).json()
            found += [row["number"] for row in part["rows"]]
            after = part["next"]
            if after is None:
                break
        assert found == expected


def test_events(lab: Lab) -> None:
    name = lab.begin(["one", "differ", "three"])
    events = lab.events(name)
    assert events[-1].kind == "end" and events[-1].data["state"] == "done"
    progress = [event.data for event in events if event.kind == "progress"]
    assert progress[-1] == {"done": 6, "total": 6, "changed": 1, "failed": 0}
    numbers = [int(event.id or 0) for event in events]
    assert numbers == sorted(numbers)
    assert [event.kind for event in lab.events(name, numbers[-1] - 1)] == ["end"]
    answer = lab.session.get(f"/comparisons/{name}/events", headers={"Last-Event-ID": str(numbers[-1])})
    assert answer.status_code == 204


def test_a_crash_on_one_side(lab: Lab) -> None:
    """It is an error in its row, and counts as a wrong answer."""
    questions = [{"question": one, "expected": one.upper()} for one in ("fine", "crash", "fine again")]
    name = lab.begin(questions, check={"kind": "equal"}, at_once=1)
    shown = lab.ended(name)
    assert shown["state"] == "done" and shown["summary"]["failed"] == {"a": 0, "b": 1}
    assert shown["summary"]["only_a_correct"] == 1 and shown["summary"]["tokens"]["median_a"] == 0
    crashed = lab.rows(name)[0]
    assert crashed["number"] == 2 and crashed["a"]["correct"] is True
    assert crashed["b"]["answer"] is None and crashed["b"]["error"]["type"] == "worker_crashed"
    assert crashed["b"]["correct"] is False
    [result] = [row for row in lab.rows(name) if row["number"] == 3]
    assert result["b"]["answer"] == "FINE AGAIN"


def test_a_tool_judges(lab: Lab) -> None:
    """Whatever it does, it costs its verdict alone."""
    names = ["fine", "die", "raise", "odd", "hang"]
    questions = [{"question": one, "expected": one.upper()} for one in names] + [{"question": "x", "expected": "y"}]
    name = lab.begin(questions, check={"kind": "tool", "tool": "judge"})
    shown = lab.ended(name)
    assert shown["state"] == "done" and shown["check"] == {"kind": "tool", "tool": "judge", "judge": None}
    rows = {row["question"]: row["a"] for row in lab.rows(name)}
    assert (rows["fine"]["correct"], rows["fine"]["score"]) == (True, 0.9)
    assert (rows["x"]["correct"], rows["x"]["score"]) == (False, 0.1)
    for question, kind, words in (
        ("die", "worker_crashed", "SIGKILL"),
        ("raise", "tool_failed", "can't judge raise"),
        ("odd", "unreadable_reply", "maybe"),
        ("hang", "tool_failed", "3 seconds"),
    ):
        cell = rows[question]
        assert cell["answer"] == question.upper() and cell["correct"] is None
        assert cell["check_error"]["type"] == kind and words in cell["check_error"]["message"]
    assert shown["summary"]["judged"] == 2

    def workers() -> list[dict[str, Any]]:
        found = lab.server.health()["workers"]
        return [one for one in found if (one["workspace"], one["generation"]) == (SPACE, lab.old)]

    lab.server.wait_until(lambda: not workers(), "the end of the workers that only the comparison used")

    name = lab.begin(["anything"], check={"kind": "tool", "tool": "lenient"})
    assert lab.ended(name)["summary"]["correct"] == {"a": 1, "b": 1}


def test_the_model_judges(lab: Lab) -> None:
    name = lab.begin([{"question": "What is 6 * 7?", "expected": "WHAT IS 6 * 7?"}], check={"kind": "model"})
    shown = lab.ended(name)
    assert shown["check"]["judge"] == "embedded"
    [row] = lab.rows(name)
    assert row["a"]["check_error"] is None and row["a"]["correct"] in (True, False)
    assert row["a"]["correct"] == row["b"]["correct"]


def test_contains_and_instructions_and_history(lab: Lab) -> None:
    history = [{"role": "user", "content": "before"}, {"role": "assistant", "content": "this"}]
    questions = [{"question": "a sample", "expected": "A  sample", "history": history}]
    sides = {
        "a": {"agent": "direct", "instructions": "Be kind."},
        "b": {"agent": "direct", "instructions": "<{question}>"},
    }
    name = lab.begin(questions, check={"kind": "contains"}, **sides)
    assert lab.ended(name)["summary"]["correct"] == {"a": 1, "b": 1}
    [row] = lab.rows(name)
    assert row["a"]["answer"] == "before this BE KIND.\n\nA SAMPLE"
    assert row["b"]["answer"] == "before this <A SAMPLE>"


def test_the_embedded_model_answers_for_both(lab: Lab) -> None:
    """The agent of the repository, with a tool that rounds otherwise."""
    made = []
    for digits in (1, 4):
        text = (
            "from langchain_core.tools import tool\n\n\n@tool\ndef calculator(expression: str) -> str:\n"
            f'    """Work out an arithmetic expression."""\n    return f"{{22 / 7:.{digits}f}}"\n'
        )
        lab.session.put("/workspaces/rounded/files/tools/calculator.py", data=text.encode())
        made.append(lab.session.post("/reload_modules", json={"workspace": "rounded"}).json()["generation"])
    a, b = ({"workspace": "rounded", "generation": one} for one in made)
    name = lab.begin([{"question": "What is 22 / 7?", "expected": "3.1429"}], a=a, b=b, check={"kind": "equal"})
    summary = lab.ended(name)["summary"]
    [row] = lab.rows(name)
    assert (row["a"]["answer"], row["b"]["answer"]) == ("3.1", "3.1429")
    assert row["a"]["tokens"] > 0 and row["a"]["seconds"] > 0
    assert (summary["only_b_correct"], summary["p"]) == (1, 1.0)
    assert summary["tokens"]["median_difference"] == row["b"]["tokens"] - row["a"]["tokens"]

    again = lab.session.post(
        "/comparisons", json={"workspace": "rounded", "runs": [row["a"]["run_id"]], "a": a, "b": b}
    ).json()["comparison_id"]
    lab.ended(again)
    [repeated] = lab.rows(again)
    assert (repeated["question"], repeated["a"]["answer"]) == ("What is 22 / 7?", "3.1")


def test_cancel_resume_and_delete(lab: Lab, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waiting = put_version(lab.server, "waiting", str(gate))
    side = {"generation": waiting, "agent": "direct"}
    name = lab.begin(["quick", "wait", "wait again", "quick too"], a=side, b=side, at_once=2)
    # The code of a running comparison stays what it was.
    put_version(lab.server, "new")
    lab.server.wait_until(lambda: lab.rows(name, order="number")[0]["b"], "a first answer")
    assert lab.session.delete(f"/generations/{waiting}").status_code == 409
    assert lab.session.post(f"/comparisons/{name}/resume").json()["error"]["type"] == "comparison_state"
    cancelled = lab.session.post(f"/comparisons/{name}/cancel").json()
    assert cancelled["state"] == "cancelled" and cancelled["answered"] < 4
    assert lab.server.health()["runs"] == {"running": 0, "queued": 0}
    before = [row for row in lab.rows(name) if row["a"] is not None]
    assert all(row["a"]["answer"] for row in before), "a run that was stopped is no answer"
    assert lab.session.post(f"/comparisons/{name}/cancel").json()["error"]["type"] == "comparison_state"

    gate.touch()
    assert lab.session.post(f"/comparisons/{name}/resume").status_code == 202
    shown = lab.ended(name)
    assert (shown["state"], shown["answered"], shown["a"]["generation"]) == ("done", 4, waiting)
    after = {row["number"]: row for row in lab.rows(name)}
    assert all(after[row["number"]]["a"] == row["a"] for row in before), "what was answered is not asked again"
    assert lab.session.post(f"/comparisons/{name}/resume").status_code == 409

    gate.unlink()
    running = lab.begin(["wait"], a=side, b=side)
    for one in (name, running):
        assert lab.session.delete(f"/comparisons/{one}").json() == {"comparison_id": one}
        for method, path in (("get", ""), ("get", "/rows"), ("get", "/events"), ("get", "/export"), ("delete", "")):
            answer = getattr(lab.session, method)(f"/comparisons/{one}{path}")
            assert (answer.status_code, answer.json()["error"]["type"]) == (404, "comparison_not_found"), path
    assert lab.session.get(f"/runs/{after[1]['a']['run_id']}").status_code == 200, "the records of its runs stay"


def test_a_restart_interrupts(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """After a crash and after an orderly end, its answers are there; and it can be resumed."""
    gate, data = tmp_path / "gate", tmp_path / "data"
    server = start_server(DATA_DIR=data)
    generation = put_version(server, "old", str(gate))
    lab = Lab(server, generation, generation)
    name = lab.begin(["one", "wait", "three"], at_once=1)
    server.wait_until(lambda: lab.rows(name, order="number")[0]["b"], "a first answer")
    first = lab.rows(name, order="number")[0]
    server.stop(signal.SIGKILL)
    server = start_server(DATA_DIR=data)
    lab = Lab(server, generation, generation)
    shown = lab.ended(name)
    assert (shown["state"], shown["answered"]) == ("interrupted", 1)
    assert lab.rows(name, order="number")[0] == first
    assert lab.events(name)[-1].data["state"] == "interrupted"
    gate.touch()
    assert lab.session.post(f"/comparisons/{name}/resume").status_code == 202
    assert lab.ended(name)["state"] == "done"
    assert [row["a"]["answer"] for row in lab.rows(name, order="number")] == ["ONE", "WAIT", "THREE"]

    gate.unlink()
    name = lab.begin(["one", "wait"], at_once=1)
    server.wait_until(lambda: lab.rows(name, order="number")[0]["b"], "a first answer")
    assert server.stop(signal.SIGTERM) == 0
    database = Database(data)
    saved = ComparisonStore(database, str(data)).get(name)
    database.close()
    assert (saved.state, saved.answered, saved.error) == ("interrupted", 1, None)


def test_export(lab: Lab) -> None:
    name = lab.begin([{"question": "=formula", "expected": '"quoted", and\nmore'}, "differ"])
    lab.ended(name)
    answer = lab.session.get(f"/comparisons/{name}/export")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert name in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))
    assert [row["question"] for row in rows] == ["'=formula", "differ"]
    assert rows[0]["expected"] == '"quoted", and\nmore' and rows[0]["a_answer"] == "'=1+1"
    assert (rows[1]["a_answer"], rows[1]["b_answer"], rows[1]["changed"]) == ("old differ", "new differ", "true")


def upload(lab: Lab, name: str, data: bytes, **more: Any) -> Any:
    wanted = {"workspace": SPACE, "a": {"generation": lab.old, "agent": "direct"}, "b": {"agent": "direct"}, **more}
    return lab.session.post(
        "/comparisons", data={"request": json.dumps(wanted)}, files={"files": (name, data, "text/plain")}
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("q.csv", 'question,expected,note\none,ONE,x\n\n"two, and\nmore",,y\n'),
        ("q.csv", '\ufeffExpected;Question\r\nONE;one\r\n;"two, and\nmore"\r\n'),
        ("q.jsonl", '{"question": "one", "expected": "ONE", "x": 1}\n\n{"question": "two, and\\nmore"}\n'),
    ],
)
def test_questions_of_a_file(lab: Lab, name: str, data: str) -> None:
    answer = upload(lab, name, data.encode(), check={"kind": "equal"})
    assert answer.status_code == 202, answer.text
    made = answer.json()["comparison_id"]
    lab.ended(made)
    rows = lab.rows(made, order="number")
    assert [(row["question"], row["expected"]) for row in rows] == [("one", "ONE"), ("two, and\nmore", None)]
    assert rows[0]["a"]["correct"] is True


@pytest.mark.parametrize(
    ("name", "data", "status", "words"),
    [
        ("q.csv", b"text,expected\none,1\n", 422, "no column called question"),
        ("q.csv", b"question,expected\none,1\n,2\n", 422, "line 3"),
        ("q.csv", b'question\n"one\n', 422, "line 2"),
        ("q.csv", b"question\n\xff\xfe\n", 422, "UTF-8"),
        ("q.csv", b"", 422, "question"),
        ("q.csv", b"question\n", 422, "questions"),
        ("q.csv", b"question\n" + b"x" * 200_000, 422, "field larger"),
        ("q.csv", b"question\n" + b"x,\n" * 1_000_000, 413, "HEARTH_MAX_BODY_BYTES"),
        ("q.csv", b"question\n" + b"x\n" * 5001, 422, "5000"),
        ("q.jsonl", b'{"question": "one"}\n["two"]\n', 422, "line 2"),
        ("q.jsonl", b'{"question": "one"}\n{"question": 2}\n', 422, "questions.1.question"),
        ("q.jsonl", b'{"question": "\\ud800"}\n', 422, "questions.0.question"),
        ("q.jsonl", b"[" * 100_000, 422, "line 1"),
    ],
)
def test_a_file_that_cant_be_read(lab: Lab, name: str, data: bytes, status: int, words: str) -> None:
    answer = upload(lab, name, data)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


def test_what_cant_be_started_is_refused(lab: Lab) -> None:
    def refused(**given: Any) -> tuple[int, str]:
        body = {"workspace": SPACE, "questions": [{"question": "one"}], "a": {"agent": "direct"}, "b": {}, **given}
        answer = lab.session.post("/comparisons", json=body)
        return answer.status_code, answer.json()["error"]["type"]

    invalid = (422, "invalid_request")
    assert refused(workspace="nobody") == (404, "workspace_not_found")
    assert refused(b={"workspace": "nobody"}) == (404, "workspace_not_found")
    assert refused(b={"generation": "ffffff"}) == (404, "generation_not_found")
    assert refused(b={"model": "other"}) == (404, "model_not_resident")
    assert refused(b={"agent": "nobody"}) == (404, "agent_not_found")
    assert refused(check={"kind": "tool", "tool": "nothing"}) == (404, "tool_not_found")
    assert refused(check={"kind": "tool", "tool": "unfit"}) == invalid
    assert refused(check={"kind": "tool"}) == refused(check={"kind": "equal", "tool": "judge"}) == invalid
    assert refused(check={"kind": "equal"}) == invalid, "no question has an expected answer"
    assert refused(questions=[]) == refused(questions=[{"question": " "}]) == invalid
    assert refused(runs=["x"]) == refused(questions=None) == refused(at_once=0) == invalid
    assert refused(questions=None, runs=["no-such-run"]) == (404, "run_not_found")
    assert upload(lab, "q.csv", b"question\none\n", questions=[]).status_code == 422
    answer = lab.session.post("/comparisons", data={"request": "{"}, files={"files": ("q.csv", b"question\nx\n")})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "malformed_json")
    for path in ("/rows?after=x", "/rows?order=random"):
        assert lab.session.get(f"/comparisons/x{path}").status_code == 422


def test_the_number_of_comparisons_is_bounded(lab: Lab, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    side = {"generation": put_version(lab.server, "bounded", str(gate)), "agent": "direct"}
    put_version(lab.server, "new")
    names = [lab.begin(["wait"], a=side, b=side) for _ in range(4)]
    body: dict[str, Any] = {"workspace": SPACE, "questions": [{"question": "one"}], "a": side, "b": side}
    answer = lab.session.post("/comparisons", json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "queue_full")
    assert int(answer.headers["Retry-After"]) > 0
    # People's questions are first, and are not held up.
    asked = lab.session.post("/run_script", json={"question": "hello", "agent": "direct", "workspace": SPACE})
    assert asked.json()["answer"] == "HELLO"
    gate.touch()
    assert {lab.ended(name)["state"] for name in names} == {"done"}


def test_the_store(tmp_path: Path, database_url: str | None) -> None:
    """Both databases order rows alike, take any text, and change a state once."""
    database = Database(tmp_path, database_url)
    GenerationStore(database).record_live("main", "a" * 12, {"model.py": b""})
    GenerationStore(database).record_live("main", "b" * 12, {"model.py": b"1"})
    store, elsewhere = ComparisonStore(database, "here"), ComparisonStore(database, "elsewhere")
    side = Side("main", "a" * 12, "embedded", "react", 6, None)
    made = Comparison("one", "", "main", "main", side, side, CheckChoice("equal"), 4, 300)
    store.add(made, [Row(number, f"\x00 {number}", "\ud800" if number == 1 else None) for number in range(1, 301)])
    for number in (7, 250):
        for name, answer in (("a", "same"), ("b", "same" if number == 7 else "other")):
            assert store.save_cell("one", number, name, Cell("r", answer)) is not None  # type: ignore[arg-type]
    assert store.save_cell("one", 301, "a", Cell("r", "no such row")) is None
    assert [row.number for row in store.all_rows("one")] == list(range(1, 301))
    first = store.rows("one", "changed", 3)
    assert [(row.number, row.rank) for row in first] == [(250, 1), (7, 2), (1, 3)]
    assert store.rows("one", "changed", 1, (first[-1].rank, first[-1].number))[0].number == 2
    assert first[-1].question == "\x00 1" and first[-1].expected == "\ud800"

    found = store.get("one")
    assert (found.answered, found.is_here, elsewhere.get("one").is_here) == (2, True, False)
    assert store.change_state("one", ["running"], "failed", {"type": "internal", "message": "a bug"})
    assert not store.change_state("one", ["running"], "done")
    assert elsewhere.change_state("one", ["failed"], "running") and elsewhere.get("one").is_here
    with pytest.raises(GenerationInUseError, match="1 comparisons"):
        GenerationStore(database).delete("a" * 12)
    with pytest.raises(StoreRefusedError):
        store.add(replace(made, id="two", b=replace(side, generation="c" * 12)), [Row(1, "q")])
    store.delete("one")
    assert store.latest(10) == [] and list(store.all_rows("one")) == []
    GenerationStore(database).delete("a" * 12)
    database.close()
