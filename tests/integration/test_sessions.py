"""Sessions, over HTTP: what a question knows of those before it, and what people read and edit."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from server.sessions.notepad import entry_of
from tests.support.server_process import REPOSITORY, Server, Session, end, start

ECHO = '''
import json
import pathlib
import time
from dataclasses import asdict

from server.sdk import usage

from .agent import Agent, AgentResult, Step


class Echo(Agent):
    """Answers with the number of messages that it received, or with the result of the tool that CALLS names."""

    name = "echo"

    def __call__(self, question, history=()):
        words = question.split()
        if words[0] == "wait":
            pathlib.Path("waiting-" + words[1]).touch()
            while not pathlib.Path("go-on-" + words[1]).exists():
                time.sleep(0.01)
        steps, answer = [], f"{len(history)} before {question}"
        calls = json.loads(pathlib.Path("calls.json").read_text())
        if question in calls:
            tool, given = calls[question]
            answer = str(self.tools[tool].invoke(given))
            steps = [Step("CALLS says so.", tool, given, answer)]
        with usage.measured() as used:
            return AgentResult(answer, steps[-1].tool if steps else None, steps, asdict(used))
'''

ALONE = """
from dataclasses import asdict

from server.sdk import usage

from .agent import Agent, AgentResult


class Alone(Agent):
    name = "alone"

    def __call__(self, question):
        with usage.measured() as used:
            return AgentResult("an answer", None, [], asdict(used))
"""


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "What is 37 * 52?": ("calculator", {"expression": "37 * 52"}),
    "Convert 12 miles to km": ("convert_units", {"value": 12, "from_unit": "miles", "to_unit": "km"}),
    "What day of the week was 2024-02-29?": ("weekday", {"date": "2024-02-29"}),
    **{f"What is {n} + {3 * n}?": ("calculator", {"expression": f"{n} + {3 * n}"}) for n in range(54)},
}
"""What the agent `echo` answers by which call of a tool."""


@dataclass
class Lab:
    """A server, in whose workspace `lab` there are agents that need no model."""

    server: Server
    number: int = 0
    session: str = ""

    def begin(self) -> str:
        """The name of a new session."""
        self.number += 1
        self.session = f"session-{self.number}"
        return self.session

    def ask(self, question: str, status: int = 200, **body: Any) -> dict[str, Any]:
        body = {"workspace": "lab", "agent": "echo", "session_id": self.session, **body, "question": question}
        with Session(self.server.url, self.server.token) as session:
            answer = session.post("/run_script", json=body)
        assert answer.status_code == status, answer.text
        answered: dict[str, Any] = answer.json()
        return answered if status == 200 else answered["error"]

    def get(self, path: str = "", status: int = 200, **query: Any) -> dict[str, Any]:
        answer = self.server.session.get(f"/sessions/{self.session}{path}", params={"workspace": "lab", **query})
        assert answer.status_code == status, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def run(self, answer: dict[str, Any]) -> dict[str, Any]:
        record: dict[str, Any] = self.server.session.get(f"/runs/{answer['run_id']}").json()
        return record

    def entries(self, written: int = 0) -> list[dict[str, Any]]:
        """The notepad, when the model has written so many titles."""

        def met() -> Any:
            entries = self.get("/notepad")["entries"]
            return sum(entry["title"] is not None for entry in entries) >= written and [entries]

        return list(self.server.wait_until(met, "the notes")[0])

    def put(self, entries: list[dict[str, Any]]) -> Any:
        return self.server.session.put(f"/sessions/{self.session}/notepad?workspace=lab", json={"entries": entries})


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Over each database; its model has a window of 2,048 tokens."""
    folder = tmp_path_factory.mktemp(f"sessions-{request.param}")
    shutil.copytree(REPOSITORY / "server" / "embedded" / "weights", folder / "narrow")
    config = folder / "narrow" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 2048}))
    settings: dict[str, object] = {"MODEL": folder / "narrow"}
    if request.param == "postgresql":
        settings["DATABASE_URL"] = request.getfixturevalue("postgres").database()
    server = start(folder / "server", REPOSITORY, settings)
    try:
        server.wait_until_ready()
        (folder / "server" / "calls.json").write_text(json.dumps(CALLS))
        for name, text in (("echo", ECHO), ("alone", ALONE)):
            server.session.put(f"/workspaces/lab/files/agent/{name}.py", data=text).raise_for_status()
        yield Lab(server)
    finally:
        end(server)


def test_a_question_knows_what_was_said_before_it(lab: Lab) -> None:
    name = lab.begin()
    answers = [lab.ask(f"question {number}") for number in range(3)]
    assert [one["answer"] for one in answers] == ["0 before question 0", "2 before question 1", "4 before question 2"]
    assert {one["session_id"] for one in answers} == {name}
    record = lab.run(answers[2])
    said = [{"role": role, "content": one[part]} for one in map(lab.run, answers[:2]) for role, part in SIDES]
    assert record["history"] == said and record["session_id"] == name
    session = lab.get()
    assert [(one["turn"], one["role"], one["content"]) for one in session["messages"]][:3] == [
        (1, "user", "question 0"),
        (1, "assistant", "0 before question 0"),
        (2, "user", "question 1"),
    ]
    assert [one["run_id"] for one in session["messages"]][::2] == [one["run_id"] for one in answers]
    assert (session["session_id"], session["workspace"], session["turns"]) == (name, "lab", 3)
    assert session["created"] <= session["used"]
    assert [one["content"] for one in lab.get(limit=1)["messages"]] == ["question 2", "4 before question 2"]
    listed = lab.server.session.get("/sessions", params={"workspace": "lab", "limit": "1"}).json()["sessions"]
    assert [one["session_id"] for one in listed] == [name]
    assert lab.server.session.get("/sessions", params={"workspace": "main"}).json() == {"sessions": []}
    assert "session_id" not in lab.ask("question", session_id=None)


SIDES = (("user", "question"), ("assistant", "answer"))


def test_a_session_is_its_workspaces_own(lab: Lab) -> None:
    lab.begin()
    lab.ask("mine")
    lab.server.session.put("/workspaces/other/files/agent/echo.py", data=ECHO).raise_for_status()
    assert lab.ask("another's", workspace="other")["answer"] == "0 before another's"
    assert lab.ask("mine too")["answer"] == "2 before mine too"


@pytest.mark.parametrize("name", ["", "a b", "../x", ".x", "x" * 101, "é", "a\x00b"])
def test_what_can_not_be_the_name_of_a_session(lab: Lab, name: str) -> None:
    assert lab.ask("question", 422, session_id=name)["type"] == "invalid_request"


def test_a_session_that_is_not_there(lab: Lab) -> None:
    lab.begin()
    for path in ("", "/export", "/notepad"):
        assert lab.get(path, 404)["error"]["type"] == "session_not_found"
    assert lab.put([]).status_code == 404
    assert lab.server.session.delete(f"/sessions/{lab.session}?workspace=lab").status_code == 404


def test_every_character_comes_back(lab: Lab) -> None:
    lab.begin()
    question = "nul \x00 and <|eos|> and \U0001f600 and \ufdd0 and\nlines"
    lab.ask(question)
    assert lab.get()["messages"][0]["content"] == question
    assert lab.ask("again")["answer"] == "2 before again"
    assert lab.put(lab.get("/notepad")["entries"]).status_code == 200


def test_the_notepad_has_what_was_asked_done_and_found(lab: Lab) -> None:
    lab.begin()
    answer = lab.ask("What is 37 * 52?", agent="react")
    [entry] = lab.entries(written=1)
    assert entry.pop("title") in "What is 37 * 52?"
    assert entry == {
        "turn": 1,
        "run_id": answer["run_id"],
        "asked": "What is 37 * 52?",
        "done": ['calculator(expression="37 * 52")'],
        "found": "1924",
        "files": [],
        "variables": [],
    }
    # Each later entry is written as well, in order.
    for number in range(3):
        lab.ask(f"And a question of which the number is {number}?")
    entries = lab.entries(written=4)
    assert all(entry["title"] in entry["asked"] for entry in entries)
    assert lab.get()["title"] == entries[0]["title"]


def test_what_somebody_writes_in_the_notepad_is_what_is_remembered(lab: Lab) -> None:
    lab.begin()
    # As long as the recent turns may be together: what comes later pushes it out.
    lab.ask("What is the code of the freezer?")
    lab.ask("filler " * 60)
    lab.ask("padding " * 60)
    first, _, third = lab.entries(written=3)
    assert lab.put([{**first, "found": "F7, said Anna", "title": "Freezer"}, third]).json()["entries"] == [
        {**first, "found": "F7, said Anna", "title": "Freezer"},
        third,
    ]
    notes, *_ = lab.run(lab.ask("What was the code of the freezer?"))["history"]
    assert notes["role"] == "system" and notes["summary"] is True
    assert "first question: What is the code of the freezer? -> F7, said Anna" in notes["content"]
    assert "filler" not in notes["content"]
    assert lab.get()["title"] == "Freezer"
    assert [entry["turn"] for entry in lab.get("/export")["notepad"]] == [1, 3, 4]


@pytest.mark.parametrize(
    "changed", [{"turn": 9}, {"turn": 0}, {"found": "x" * 3000}, {"found": None}, {"more": 1}, {"files": "x"}]
)
def test_a_notepad_that_does_not_fit_changes_nothing(lab: Lab, changed: dict[str, Any]) -> None:
    lab.begin()
    lab.ask("question")
    [entry] = before = lab.entries(written=1)
    assert lab.put([{**entry, **changed}]).status_code == 422
    assert lab.put([entry, entry]).status_code == 422
    assert lab.get("/notepad")["entries"] == before


def test_a_session_answers_one_question_at_a_time_in_their_order(lab: Lab) -> None:
    name = lab.begin()
    folder = lab.server.output_file.parent
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(lab.ask, f"wait {name}")
        lab.server.wait_until((folder / f"waiting-{name}").exists, "the first question")
        second = pool.submit(lab.ask, "second")

        def waiting() -> Any:
            return [run for run in in_flight(lab) if run["question"] == "second" and run.get("position") == 1]

        lab.server.wait_until(waiting, "the second to wait")
        third = pool.submit(lab.ask, "third", 499)
        third_run = lab.server.wait_until(
            lambda: next((run for run in in_flight(lab) if run["question"] == "third"), None), "the third"
        )
        # Others need not wait for it, and one that waits can be cancelled.
        assert lab.ask("elsewhere", session_id="elsewhere")["answer"] == "0 before elsewhere"
        lab.server.session.delete(f"/runs/{third_run['run_id']}").raise_for_status()
        assert third.result(60)["type"] == "run_cancelled"
        refused = lab.server.session.delete(f"/sessions/{name}?workspace=lab")
        assert (refused.status_code, refused.json()["error"]["type"]) == (409, "session_busy")
        assert not second.done()
        (folder / f"go-on-{name}").touch()
        assert first.result(60)["answer"] == f"0 before wait {name}"
        assert second.result(60)["answer"] == "2 before second"
    assert lab.get()["turns"] == 2


def in_flight(lab: Lab) -> list[dict[str, Any]]:
    runs = lab.server.session.get("/runs", params={"workspace": "lab", "limit": "20"}).json()["runs"]
    return [run for run in runs if run["state"] in ("queued", "running")]


def test_a_question_that_fails_is_no_turn(lab: Lab) -> None:
    lab.begin()
    lab.ask("first")
    lab.ask("What is 37 * 52?", 422, agent="react", max_tokens=1)
    assert lab.ask("second")["answer"] == "2 before second"
    assert lab.get()["turns"] == 2


def test_an_agent_that_takes_a_question_alone(lab: Lab) -> None:
    lab.begin()
    assert lab.ask("first", agent="alone")["answer"] == "an answer"
    error = lab.ask("second", 422, agent="alone")
    assert error["type"] == "no_history" and "'alone'" in error["message"]
    assert lab.ask("third", agent="alone", session_id=None)["answer"] == "an answer"
    assert lab.get()["turns"] == 1


def test_a_replay_is_shown_what_the_run_was_shown_and_is_no_turn(lab: Lab) -> None:
    lab.begin()
    lab.ask("first")
    second = lab.ask("second")
    lab.ask("third")
    replayed = lab.server.session.post(f"/runs/{second['run_id']}/replay").json()
    assert replayed["same_answer"] is True and replayed["answer"] == "2 before second"
    assert lab.run(replayed)["history"] == lab.run(second)["history"]
    assert lab.get()["turns"] == 3


def test_an_export_has_everything(lab: Lab) -> None:
    name = lab.begin()
    lab.ask("Where is it?\nSay.")
    lab.ask("What is 37 * 52?")
    entries = lab.entries(written=2)
    exported = lab.get("/export")
    assert exported == {**lab.get(), "notepad": entries}
    answer = lab.server.session.get(f"/sessions/{name}/export", params={"workspace": "lab", "format": "markdown"})
    assert answer.headers["Content-Type"] == "text/markdown; charset=utf-8"
    title, about, *rest = answer.text.split("\n\n")
    assert title == f"# {entries[0]['title']}" and f"`{name}`" in about and "2 turns" in about
    assert rest[:6] == [
        "## 1",
        "> Where is it?\n> Say.",
        "0 before Where is it?\nSay.",
        "## 2",
        "> What is 37 * 52?",
        "1924",
    ]
    assert rest[6] == "## Notepad" and '  - done: calculator(expression="37 * 52")' in rest[-1]
    assert lab.get("/export", 422, format="pdf")["error"]["type"] == "invalid_request"


def test_a_session_that_was_forgotten_can_begin_anew(lab: Lab) -> None:
    name = lab.begin()
    kept = lab.ask("first")
    lab.ask("second")
    deleted = lab.server.session.delete(f"/sessions/{name}?workspace=lab")
    assert (deleted.status_code, deleted.json()) == (200, {"session_id": name, "workspace": "lab"})
    lab.get(status=404)
    assert lab.run(kept)["answer"] == "0 before first"
    assert lab.ask("anew")["answer"] == "0 before anew"
    assert lab.get()["turns"] == 1


def test_the_history_makes_room_for_a_long_question(lab: Lab) -> None:
    lab.begin()
    for number in range(12):
        lab.ask(f"turn {number} of many, with words enough to fill what there is for a history of them all")

    def history(words: int) -> int:
        # What it would write is of no interest.
        assert lab.ask("one two three " * words, 422, agent="react", max_tokens=1)["type"] == "token_limit"
        [run] = lab.server.session.get("/runs", params={"workspace": "lab", "limit": "1"}).json()["runs"]
        record = lab.server.session.get(f"/runs/{run['run_id']}").json()
        return sum(len(message["content"]) for message in record.get("history", ()))

    sizes = [history(words) for words in (1, 60, 100)]
    assert sizes[0] > sizes[1] > sizes[2] == 0
    assert lab.ask("one two three " * 200, 422, agent="react")["type"] == "prompt_too_long"


ABOUT_EARLY_TURNS = (
    ("What was your answer to: What is 37 * 52?", "first question: What is 37 * 52? -> 1924", "1924"),
    (
        "What did you say to: Convert 12 miles to km?",
        "second question: Convert 12 miles to km -> 19.3121 km",
        "19.3121 km",
    ),
    (
        "What was the answer to my third question?",
        "third question: What day of the week was 2024-02-29? -> Thursday",
        "Thursday",
    ),
)


@pytest.fixture(scope="module")
def sixty_turns(lab: Lab) -> list[dict[str, Any]]:
    """The runs that asked about early turns, at the end of a session of 60; the window is 2,048 tokens."""
    lab.begin()
    for question in CALLS:
        lab.ask(question)
    return [lab.run(lab.ask(question, agent="react")) for question, _, _ in ABOUT_EARLY_TURNS]


def test_after_sixty_turns_a_question_is_shown_the_early_one_that_it_is_about(
    lab: Lab, sixty_turns: list[dict[str, Any]]
) -> None:
    for run, (_, note, _) in zip(sixty_turns, ABOUT_EARLY_TURNS, strict=True):
        notes, *recent = run["history"]
        assert notes["summary"] is True and note in notes["content"].splitlines()
        assert [message["role"] for message in recent] == ["user", "assistant"] * (len(recent) // 2)
        assert len(recent) >= 4


def test_after_sixty_turns_questions_about_early_ones_are_answered_right(sixty_turns: list[dict[str, Any]]) -> None:
    """By its words, by its number, and one whose answer others begin like."""
    assert [run["answer"] for run in sixty_turns] == [answer for _, _, answer in ABOUT_EARLY_TURNS]


def test_entries_are_copied_from_the_run() -> None:
    code = "readings = load('data/f7.csv')\nplt.savefig('out.png')\nif a == 3.5: b=1"
    record = {
        "question": "Plot\n  " + "the readings " * 50,
        "answer": "Done. " * 200,
        "steps": [
            {"tool": "run", "input": {"code": code}},
            {"tool": "odd", "input": ["x", {"path": "~/notes/v1.2.txt"}]},
        ],
    }
    entry = entry_of(record)
    assert entry["asked"].startswith("Plot the readings the") and len(entry["asked"]) == 300
    assert len(entry["found"]) == 300 and entry["found"].endswith("…")
    assert entry["files"] == ["data/f7.csv", "out.png", "~/notes/v1.2.txt"]
    assert entry["variables"] == ["readings"]
    assert [call.partition("(")[0] for call in entry["done"]] == ["run", "odd"]
