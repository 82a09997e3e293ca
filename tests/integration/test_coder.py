"""The coder: a scripted model behind a real API server writes code, which runs in the real sandbox."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server.agent.code_advice import advice
from tests.support.event_stream import ask, read
from tests.support.scripted_api import Messages, ScriptedApi
from tests.support.server_process import REPOSITORY, Server, end, start
from tests.support.wire_formats import Request

NUMBERS = itertools.count(1)


class CodingApi(ScriptedApi):
    """Its script gives `{"code": …}`, `{"check": …}` when code is to be checked, or what `ScriptedApi` takes."""

    def __init__(self) -> None:
        super().__init__(lambda messages: {"answer": "unused"})
        self.codes: list[str] = []
        self.checks: list[dict[str, Any]] = []
        self.heard: list[Messages] = []
        """The messages of each time that code was asked for, or checked."""

    def reply(self, request: Request) -> tuple[str, int, int]:
        """See `ModelApi`."""
        messages = list(request.messages)
        parts = {} if request.schema is None else request.schema.get("properties", {})
        if "answers" in parts:
            self.heard.append(messages)
            check = self.checks.pop(0) if self.checks else {"answers": True, "problem": ""}
            return json.dumps(check), 1, 1
        if request.schema is None and "Python code" in messages[0]["content"]:
            self.heard.append(messages)
            return f"Here it is:\n```python\n{self.codes.pop(0)}\n```\nThat is all.", 1, 1
        if request.schema is None and "what the code gave" in messages[0]["content"]:
            return "The code gave: " + messages[-1]["content"].rpartition("It gave:\n")[2], 1, 1
        return super().reply(request)


def upload(server: Server, session: str, name: str, data: bytes) -> None:
    answer = server.session.post(f"/sessions/{session}/files", files={"files": (name, data)})
    assert answer.status_code == 201, answer.text


SALES = "Region;Umsatz\nNord;1.200,50\nSüd;80,25\n".encode("cp1252")


@pytest.fixture(scope="module")
def api() -> Iterator[CodingApi]:
    with CodingApi().serving() as serving:
        yield serving  # type: ignore[misc]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, api: CodingApi) -> Iterator[Server]:
    settings = {
        "MODEL": "openai:scripted",
        "BASE_URL": f"{api.url}/v1",
        "SANDBOX_SPARES": 1,
        "SANDBOX_BLOCKED_IMPORTS": "scipy, pandas.io",
        "SANDBOX_TIMEOUT": 5,
    }
    started = start(tmp_path_factory.mktemp("coder") / "server", REPOSITORY, settings)
    try:
        started.wait_until_ready()
        yield started
    finally:
        end(started)


@pytest.fixture
def session(api: CodingApi) -> str:
    api.codes, api.checks, api.heard = [], [], []
    return f"s{next(NUMBERS)}"


def answer(
    server: Server, session: str | None, question: str = "What is six times seven?", **more: Any
) -> dict[str, Any]:
    body = {"question": question, "agent": "coder", **more} | ({} if session is None else {"session_id": session})
    got = server.session.post("/run_script", json=body)
    assert got.status_code == 200, got.text
    found: dict[str, Any] = got.json()
    return found


def test_the_way_of_a_question(server: Server, api: CodingApi, session: str) -> None:
    api.codes = ["x = 6\nprint('six')\nx * 7"]
    found = answer(server, session)
    assert found["answer"] == "The code gave: six\n42"
    [step] = found["steps"]
    assert (step["tool"], step["input"], step["observation"]) == (
        "python",
        {"code": "x = 6\nprint('six')\nx * 7"},
        "six\n42",
    )
    assert found["details"]["tries"] == 1 and found["details"]["session_id"] == session
    asked = api.heard[0][-1]["content"]
    assert [line[2:] for line in asked.splitlines() if line.startswith("# ")] == ["task", "rules", "checklist"]
    # The next question uses the variable, and reads that it is there.
    api.codes = ["x + 1"]
    assert answer(server, session, "And one more?")["answer"] == "The code gave: 7"
    asked = api.heard[2][-1]["content"]
    assert "variable x: int, 6" in asked and "# histories\nuser: What is six times seven?" in asked


def test_code_is_checked_and_written_again(server: Server, api: CodingApi, session: str) -> None:
    api.codes = ["1", "2", "3"]
    api.checks = [{"answers": False, "problem": "It says one."}, {"answers": False, "problem": "It says two."}]
    found = answer(server, session)
    assert found["answer"] == "The code gave: 3"
    assert found["steps"][0]["thought"] == "It says one. It says two."
    assert "It says one." in api.heard[2][-1]["content"]
    # In the last round nobody is asked any more.
    assert len(api.heard) == 5


def test_code_that_can_not_work_is_not_run(server: Server, api: CodingApi, session: str) -> None:
    api.codes = ["import requests", "from scipy import optimize", "4"]
    found = answer(server, session)
    assert found["answer"] == "The code gave: 4" and len(found["steps"]) == 1
    assert "line 1: requests needs a network" in found["steps"][0]["thought"]
    assert "line 1: scipy is not to be imported" in found["steps"][0]["thought"]
    assert "Don't import scipy, pandas.io." in api.heard[0][-1]["content"]


def test_code_is_repaired(server: Server, api: CodingApi, session: str) -> None:
    api.codes = ["rows = [1, 2]\nrows[5]", "len(rows)"]
    events = list(read(ask(server, "How many?", agent="coder", session_id=session)))
    steps = [event.data for event in events if event.kind == "step"]
    assert [step.get("error", "").partition(":")[0] for step in steps] == ["IndexError", ""]
    assert events[-1].data["answer"] == "The code gave: 2"
    asked = api.heard[2][-1]["content"]
    assert "# reacts\n```python\nrows = [1, 2]\nrows[5]" in asked and "IndexError: list index out of range" in asked
    assert "variable rows: list, [1, 2]" in asked


def test_it_gives_up(server: Server, api: CodingApi, session: str) -> None:
    api.codes = [f"1 / 0 # {number}" for number in range(5)]
    found = answer(server, session)
    assert "failed 5 times" in found["answer"] and "ZeroDivisionError: division by zero" in found["answer"]
    assert len(found["steps"]) == found["details"]["tries"] == 5


def test_code_that_crashes_or_takes_too_long_is_repaired(server: Server, api: CodingApi, session: str) -> None:
    api.codes = ["import os\nos.kill(os.getpid(), 11)", "while True: pass", "5"]
    found = answer(server, session)
    assert found["answer"] == "The code gave: 5"
    assert [step.get("error", "").partition(":")[0] for step in found["steps"]] == [
        "InterpreterEnded",
        "TimeoutError",
        "",
    ]


def test_figures_and_code_are_files_of_the_session(server: Server, api: CodingApi, session: str) -> None:
    api.codes = ["import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('drawn')"]
    found = answer(server, session)
    assert found["details"]["figures"] == ["figure_1_1.png"]
    assert "(figure: figure_1_1.png)" in found["steps"][0]["observation"]


def test_files_are_described_with_how_to_read_them(server: Server, api: CodingApi, session: str) -> None:
    upload(server, session, "sales.csv", SALES)
    api.codes = [
        "import pandas as pd\ndf = pd.read_csv('sales.csv', sep=';', decimal=',', thousands='.', encoding='cp1252')\n"
        "df['Umsatz'].sum()"
    ]
    assert "1280.75" in answer(server, session, "What is the sum?")["answer"]
    asked = api.heard[0][-1]["content"]
    assert "file sales.csv: " in asked and "Umsatz" in asked and "read_csv" in asked and "1200.5" in asked


def test_other_agents_have_the_coder_as_a_tool(server: Server, api: CodingApi, session: str) -> None:
    upload(server, session, "sales.csv", SALES)
    api.codes = ["1 / 0", "len(open('sales.csv', encoding='cp1252').readlines())"]

    def script(messages: Messages) -> dict[str, Any]:
        assert "on the files and variables of this session: sales.csv" in messages[0]["content"]
        read = messages[-1]["content"]
        if "How many" in read:
            return {"action": "coder", "action_input": {"task": "Count the lines of sales.csv."}}
        return {"answer": read.removeprefix("Observation: ") + " lines"}

    api.script = script
    found = answer(server, session, "How many lines are there?", agent="react")
    assert found["answer"] == "3 lines"
    assert [step["tool"] for step in found["steps"]] == ["python", "python", "coder"]
    asked = api.heard[0][-1]["content"]
    assert "# input\nHow many lines are there?" in asked and "# task\nCount the lines of sales.csv." in asked


def test_a_question_without_a_session(server: Server, api: CodingApi, session: str) -> None:
    api.codes = ["7"]
    found = answer(server, None)
    assert found["answer"] == "The code gave: 7"
    assert found["details"]["session_id"] == f"run-{found['run_id']}"


def test_a_run_that_is_stopped_ends_its_code(server: Server, api: CodingApi, session: str) -> None:
    api.codes = ["import time\nx = 1\ntime.sleep(4.9)"]
    with ask(server, "Sleep.", agent="coder", session_id=session) as _:
        server.wait_until(lambda: server.health()["sandbox"]["running"], "the code", 20)
        [run] = [one for one in server.session.get("/runs").json()["runs"] if one["state"] == "running"]
        assert server.session.delete(f"/runs/{run['run_id']}").ok
    server.wait_until(lambda: not server.health()["sandbox"]["running"], "the end of the code", 20)


def test_the_embedded_model_writes_no_code(start_server: Callable[..., Server]) -> None:
    found = answer(start_server(), "s")
    assert "writes no code" in found["answer"] and found["steps"] == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("x = 1", None),
        ("import urllib.parse", None),
        ("import urllib.request", "line 1: urllib.request needs a network"),
        ("from urllib import request", "line 1: urllib.request needs a network"),
        ("x = 1\nimport tkinter", "line 2: tkinter needs a screen"),
        ("name = input()", "line 1: input() can't work"),
        ("x =", "line 1: it is not valid Python"),
        ("# nothing", "there is no code"),
        ("def f():\n    import pandas.io.sql", "line 2: pandas.io.sql is not to be imported"),
        ("import pandas", None),
    ],
)
def test_advice(code: str, found: str | None) -> None:
    said = advice(code, ["pandas.io"])
    assert said is None if found is None else said is not None and found in said
