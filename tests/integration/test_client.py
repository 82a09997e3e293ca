"""The client, notebooks/hearth.py, with a real server, and its magics in a real kernel."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import certifi
import charset_normalizer
import hearth
import idna
import nbformat
import pytest
import requests
import urllib3
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import run_kernel
from nbclient import NotebookClient

from tests.support.server_process import REPOSITORY, Server, end, start

CLIENT = REPOSITORY / "notebooks" / "hearth.py"
QUESTION = "What is 37 * 52?"
CELL = """%%tool
def calculator(expression: str) -> str:
    "Work out an arithmetic expression."
    return "{answer}"
"""
SHOUT = """%%tool
def shout(text: str) -> str:
    "Write a text in capital letters."
    return text.upper()
"""
LONE = '''
from langchain_core.tools import tool


@tool
def {name}(text: str) -> str:
    """Do something with a text."""
    return text
'''
MOST_RUNS = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose workspaces the tests of this file may do with as they like."""
    made = start(tmp_path_factory.mktemp("client") / "server", REPOSITORY, {"MAX_RUNS": MOST_RUNS})
    try:
        made.wait_until_ready()
        yield made
    finally:
        end(made)


@pytest.fixture(autouse=True)
def _on_its_machine(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything here runs where the server does, and finds no other one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.runtime_file.parent.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def lab(server: Server, workspace: str = "main") -> hearth.Lab:
    return hearth.connect(server.url, workspace, server.token)


@contextmanager
def refused(code: str) -> Iterator[Any]:
    with pytest.raises(hearth.HearthError) as caught:
        yield caught
    assert caught.value.code == code, caught.value


# Finding the server


def test_the_server_on_this_machine_is_found(server: Server) -> None:
    for found in (hearth.connect(), hearth.connect(server.url), hearth.connect(server.url.removeprefix("http://"))):
        assert found.url == server.url
        assert found.ask(QUESTION).answer == "1924"
    assert hearth.connect(f"{server.url}/?token={server.token}").url == server.url


def test_one_of_several_is_not_guessed(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = tmp_path / "hearth"
    folder.mkdir()
    found = json.loads(server.runtime_file.read_text())
    for name, pid in (
        ("http://127.0.0.1:1", os.getpid()),
        ("http://127.0.0.1:2", ended.pid),
        (server.url, found["pid"]),
    ):
        (folder / f"hearth-{pid}.json").write_text(json.dumps({"url": name, "token": "secret", "pid": pid}))
    (folder / "hearth-x.json").write_text("half a fi")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with refused("several_servers") as caught:
        hearth.connect()
    assert "http://127.0.0.1:1" in str(caught.value) and server.url in str(caught.value)
    assert "http://127.0.0.1:2" not in str(caught.value) and "secret" not in str(caught.value)


def test_no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with refused("no_server") as caught:
        hearth.connect()
    assert "make run" in caught.value.message
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with refused("no_server") as caught:
            hearth.connect(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert caught.value.status is None
    for address in ("http://127.0.0.1:99999", "ftp://127.0.0.1", "http://"):
        with refused("usage"):
            hearth.connect(address)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The URL of something that answers with `answer` whatever is asked, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "no_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "no_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "not_hearth"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "not_hearth"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "not_hearth"),
    ],
)
def test_what_is_no_hearth_server(answer: bytes, code: str) -> None:
    with answering(answer) as url, refused(code):
        hearth.connect(url)


def test_a_wrong_token(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with refused("unauthorized") as caught:
        hearth.connect(server.url, token="wrong")
    assert caught.value.status == 401 and "token" in caught.value.message
    # Nobody sits here who could be asked.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with open(os.devnull) as nobody, refused("unauthorized"):
        monkeypatch.setattr(sys, "stdin", nobody)
        hearth.connect(server.url)


def test_the_token_is_shown_nowhere(server: Server) -> None:
    connected = lab(server)
    connected.health()
    assert server.token not in f"{connected!r} {vars(connected)} {hearth._running()}"


def test_an_access_file_of_the_users_does_not_take_the_tokens_place(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert lab(server).ask(QUESTION).answer == "1924"


# Asking


def test_an_answer_has_all_that_led_to_it(server: Server) -> None:
    answer = lab(server).ask(QUESTION)
    assert (answer.answer, answer.function, answer.question) == ("1924", "calculator", QUESTION)
    assert [(one.tool, one.input, one.observation) for one in answer.steps] == [
        ("calculator", {"expression": "37 * 52"}, "1924")
    ]
    assert answer.workspace == "main" and answer.model == "embedded" and answer.usage["forward_passes"] > 0
    assert str(answer) == "1924"
    shown = repr(answer).splitlines()
    assert [line.partition(":")[0] for line in shown[:4]] == ["Thought", "Action", "Observation", "Answer"]
    assert shown[1] == "Action: calculator(expression='37 * 52')"
    assert answer.generation in shown[-1]
    assert "**1924**" in answer._repr_markdown_()


def test_text_of_a_tool_is_shown_as_it_is(server: Server) -> None:
    step = hearth.Step("a *b* <c>", "t", {"x": "`"}, "one\n```\ntwo")
    made = hearth.Answer("[x](y) $z$", None, [step], "3f2a", "id", "q", "main", "m", 0.1)
    shown = made._repr_markdown_()
    assert r"a \*b\* \<c\>" in shown and r"**\[x\](y) \$z\$**" in shown
    assert "`` t(x='`') ``" in shown and "````\none\n```\ntwo\n````" in shown


def test_many_questions_at_once_with_one_that_fails(server: Server) -> None:
    numbers = range(3, 3 + 4 * MOST_RUNS)
    questions = [f"What is {number} * 7?" for number in numbers]
    questions.insert(2, " ")
    # More at once than the server takes: the rest is asked again when it says so.
    rows = lab(server).ask_many(questions, at_once=len(questions))
    assert len(rows) == len(questions)
    assert list(rows["question"]) == questions
    answers, errors = list(rows["answer"]), list(rows["error"])
    assert "invalid_request" in errors.pop(2)
    answers.pop(2)
    assert answers == [str(number * 7) for number in numbers]
    assert not any(isinstance(error, str) for error in errors)
    assert len(lab(server).ask_many([])) == 0


def test_another_agent_answers_and_tells_its_plan(server: Server) -> None:
    asked = "What is 37 * 52, and what weekday is 2026-08-19?"
    answer = lab(server).ask(asked, agent="plan_execute", priority="batch")
    assert answer.provenance["agent"] == "plan_execute" and answer.details["plan"][0]["state"] == "done"
    rows = lab(server).ask_many(["hello"], agent="chat", priority="batch")
    assert lab(server).run(next(iter(rows["run_id"]))).provenance["agent"] == "chat"
    with refused("agent_not_found"):
        lab(server).ask(QUESTION, agent="nobody")


def test_an_answer_as_it_comes(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    answer = lab(server).ask(QUESTION, stream=True)
    assert (answer.answer, answer.question, answer.workspace) == ("1924", QUESTION, "main")
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "Thought", "Action", "Action Input", "Observation", "Thought", "Answer",
    ]  # fmt: skip
    mood = lab(server).ask("What is the mood of 'I love this wonderful place'?", stream=True)
    shown = capsys.readouterr().out
    assert mood.answer == "positive"
    assert shown.splitlines()[3] == "Observation: positive", "what a tool asks the model is not the agent's text"
    with refused("prompt_too_long") as caught:
        lab(server).ask("why? " * 20_000, stream=True)
    assert caught.value.status == 422
    with refused("workspace_not_found"):
        lab(server, "nobody").ask(QUESTION, stream=True)


def test_whoever_stops_reading_cancels_the_run(server: Server) -> None:
    ours = lab(server, "paul")
    ours.write_tools(
        "%%tool\nimport time\n\ndef calculator(expression: str) -> str:\n"
        '    "Work out an arithmetic expression."\n    while True:\n        time.sleep(0.05)\n'
    )
    events = ours._events("/run_script", {"question": QUESTION, "workspace": "paul"})
    run_id = next(data["run_id"] for kind, data in events if kind == "started")
    events.close()
    server.wait_until(lambda: ours.run(run_id).state == "cancelled", "the end of the run")


def test_a_question_to_earlier_code(server: Server) -> None:
    ours = lab(server, "anna")
    first = ours.write_tools(CELL.format(answer="one")).generation
    ours.write_tools(CELL.format(answer="two"))
    assert ours.ask(QUESTION, generation=first[:6]).answer == "one"
    assert ours.ask(QUESTION).answer == "two"
    assert list(ours.ask_many([QUESTION, QUESTION], generation=first)["answer"]) == ["one", "one"]


def test_a_workspace_that_is_not_there_yet(server: Server) -> None:
    with refused("workspace_not_found") as caught:
        lab(server, "nobody").ask(QUESTION)
    assert "%%tool" in caught.value.message and caught.value.status == 404


def test_the_common_code_is_not_changed_from_here(server: Server) -> None:
    with refused("forbidden") as caught:
        lab(server).write_tools(SHOUT)
    assert "--workspace" in caught.value.message


# Runs and generations


def test_what_was_live_is_listed_compared_and_brought_back(server: Server) -> None:
    ours = lab(server, "bert")
    first = ours.write_tools(CELL.format(answer="one"))
    second = ours.write_tools(CELL.format(answer="two"))
    assert second.previous == first.generation and second.changed_tools == ["calculator"]
    listed = ours.generations()
    assert [one.generation for one in listed] == [second.generation, first.generation]
    assert [one.live for one in listed] == [True, False]
    assert [one.changed for one in listed] == [["tools/calculator.py"], None]
    assert [one.changed for one in ours.generations(1)] == [["tools/calculator.py"]]
    assert second.generation in repr(listed) and second.generation in listed._repr_markdown_()

    difference = ours.diff(first.generation, second.generation[:6])
    assert '-    return "one"\n+    return "two"\n' in str(difference)
    assert "```diff" in difference._repr_markdown_()

    back = ours.rollback(first.generation[:6])
    assert back.generation == first.generation and "next reload" in repr(back)
    assert ours.ask(QUESTION).answer == "one"
    assert [one.live for one in ours.generations()] == [True, False, False]
    tried = ours.reload(dry_run=True)
    assert (tried.generation, tried.dry_run) == (second.generation, True)
    assert ours.ask(QUESTION).answer == "one"
    with refused("generation_not_found"):
        ours.rollback("ffffffffffff")


def test_runs_are_listed_and_asked_again(server: Server) -> None:
    ours = lab(server, "cora")
    ours.write_tools(CELL.format(answer="then"))
    answer = ours.ask(QUESTION)
    ours.write_tools(CELL.format(answer="now"))
    with refused("invalid_request"):
        ours.ask(" ")
    run = ours.run(answer.run_id)
    assert (run.state, run.answer, run.question, run.error) == ("done", "then", QUESTION, None)
    assert run.steps == answer.steps
    assert [one.run_id for one in ours.runs()] == [answer.run_id]
    again = ours.replay(answer.run_id)
    assert (again.answer, again.same_answer, again.replay_of) == ("then", True, answer.run_id)
    assert len(ours.runs()) == 2 and len(ours.runs(1)) == 1
    with refused("run_not_found"):
        ours.run("no such run")


def test_what_the_model_saw_and_another_way_from_there(server: Server) -> None:
    ours = lab(server, "dora")
    ours.write_tools(CELL.format(answer="1924"))
    run = ours.run(ours.ask(QUESTION).run_id)
    assert QUESTION in run.prompt(1) and run.prompt(2).startswith(run.prompt(1)) and run.prompt(2).endswith("1924")
    assert run.step(1)["tool"] == "calculator"
    tokens = run.tokens(1)
    assert "".join(tokens["text"]) == run.step(1)["model_calls"][0]["written"]
    assert "likeliest" in repr(tokens) and len(tokens[0].top) == 5
    forked = run.fork(step=2, observation="77")
    assert (forked.answer, forked.question) == ("77", QUESTION) and forked.forked_from is not None
    assert ours.run(forked.run_id).forked_from == forked.forked_from
    with refused("step_not_found"):
        run.fork(step=9)


def test_questions_of_a_session_are_listed_as_one_conversation(server: Server) -> None:
    assert lab(server).sessions() == []
    first = lab(server).ask(QUESTION, session="monday")
    assert (str(first), first.session_id) == ("1924", "monday")
    lab(server).ask("What is 5 + 5?", session="monday", stream=True)
    [conversation] = lab(server).sessions()
    assert (conversation.session, conversation.turns) == ("monday", 2)
    assert conversation.title in QUESTION and conversation.created <= conversation.used


def test_a_run_is_cancelled(server: Server) -> None:
    ours = lab(server, "dirk")
    ours.write_tools(
        "%%tool\nimport time\n\ndef calculator(expression: str) -> str:\n"
        '    "Work out an arithmetic expression."\n    while True:\n        time.sleep(0.05)\n'
    )
    caught: list[hearth.HearthError] = []

    def ask() -> None:
        try:
            ours.ask(QUESTION)
        except hearth.HearthError as error:
            caught.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    [run] = server.wait_until(lambda: [one for one in ours.runs() if one.state == "running"], "the run to begin")
    ours.cancel(run.run_id)
    caller.join()
    assert [(error.code, error.status) for error in caught] == [("run_cancelled", 499)]


def test_the_model_is_loaded(server: Server) -> None:
    server.session.post("/unload_model")
    assert lab(server).health().model is None
    model = lab(server).load_model("embedded", dtype="float32")
    assert (model.name, model.state) == ("embedded", "ready")
    health = lab(server).health()
    assert health.model == model and health.status == "ok" and health.tools
    [worker] = [one for one in health.workers if one.workspace == "main" and one.retired is None]
    assert (worker.state, worker.runs) == ("idle", 0) and worker.pid and worker.memory_bytes > 1_000_000
    assert worker.generation in repr(health.workers) and worker.generation == lab(server).generations()[0].generation
    assert lab(server).load_model("embedded", dtype="float32", replace=False) == model
    assert lab(server).ask(QUESTION, model="embedded").model == "embedded"
    with refused("model_not_resident"):
        lab(server).ask(QUESTION, model="another")
    with refused("model_not_found"):
        lab(server).load_model("/no/such/folder")


# Files


def test_files_come_and_go(server: Server) -> None:
    ours = lab(server, "emil")
    ours.put("tools/x.py", "# ü\n")
    assert ours.get("tools/x.py") == "# ü\n"
    assert [(one.path, one.bytes) for one in ours.files()] == [("tools/x.py", 5)]
    ours.put("tools/x.py", LONE.format(name="strange_tool"))
    assert "strange_tool" in ours.reload().added
    assert "strange_tool" in ours.tools()["name"]
    ours.delete("tools/x.py")
    assert ours.reload().removed == ["strange_tool"]
    with refused("file_not_found"):
        ours.get("tools/x.py")
    with refused("invalid_path"):
        ours.put("x.sh", "")


def test_files_of_a_session_come_and_go(server: Server, tmp_path: Path) -> None:
    ours = lab(server)
    (tmp_path / "sales.csv").write_text("a,b\n1,2\n")
    (tmp_path / 'odd "name" ü.bin').write_bytes(bytes(3_000_000))
    first, odd = ours.upload(tmp_path / "sales.csv", str(tmp_path / 'odd "name" ü.bin'), session="files")
    assert (first.name, first.type, first.session) == ("sales.csv", "text/csv", "files")
    assert (odd.name, odd.uploaded_as, odd.bytes) == ("odd _name_ ü.bin", 'odd "name" ü.bin', 3_000_000)
    (tmp_path / "sales.csv").write_text("other")
    assert ours.upload(tmp_path / "sales.csv", session="files")[0].name == "sales-2.csv"
    assert ours.files("files")["name"] == ["odd _name_ ü.bin", "sales-2.csv", "sales.csv"]
    assert "sales-2.csv" in repr(ours.files("files"))

    with refused("file_exists"):
        ours.download("sales.csv", "files", tmp_path / "sales.csv")
    assert (tmp_path / "sales.csv").read_text() == "other"
    place = ours.download("sales.csv", "files", tmp_path / "sales.csv", overwrite=True)
    assert place.read_text() == "a,b\n1,2\n"
    big = ours.download("odd _name_ ü.bin", "files", tmp_path / "big")
    assert big.read_bytes() == bytes(3_000_000)
    before = sorted(tmp_path.iterdir())
    with refused("session_file_not_found"):
        ours.download("nothing", "files", tmp_path / "nothing")
    with refused("file_error"):
        ours.download("sales.csv", "files", tmp_path / "no" / "folder")
    assert sorted(tmp_path.iterdir()) == before

    ours.delete_file("sales.csv", "files")
    with refused("file_error"):
        ours.upload(tmp_path / "sales.csv", tmp_path / "nothing", session="files")
    with refused("usage"):
        ours.upload(session="files")
    assert ours.files("files")["name"] == ["odd _name_ ü.bin", "sales-2.csv"]


def test_values_that_each_worker_builds_anew_are_named(server: Server) -> None:
    own = lab(server, "keeps")
    own.put(
        "tools/keeps.py",
        "import threading\nfrom server.sdk import keep\n\nkeep('a lock', threading.Lock)\nkeep('a list', list)\n",
    )
    reloaded = own.reload()
    assert reloaded.rebuilt == ["a lock"]
    assert "a lock" in repr(reloaded) and "a list" not in repr(reloaded)


def test_an_agent_that_fails_and_a_worker_that_crashes_name_the_line(server: Server) -> None:
    own = lab(server, "trouble")
    own.put(
        "agent/react.py",
        "import ctypes\nimport sys\n\n\nclass CustomAgentGuidance:\n"
        "    def __init__(self, *_):\n        pass\n\n"
        "    def __call__(self, question):\n"
        "        print('about to end', file=sys.stderr)\n"
        "        return ctypes.string_at(0) if question == 'crash' else 1 / 0\n",
    )
    own.put("agent/__init__.py", "from .react import CustomAgentGuidance\n")
    own.reload()
    for stream in (False, True):
        with refused("agent_failed") as caught:
            own.ask("fail", stream=stream)
        [mistake] = caught.value.mistakes
        assert (mistake.file, mistake.line, mistake.type) == ("agent/react.py", 11, "ZeroDivisionError")
        assert "-> 11 |         return ctypes" in str(caught.value) and caught.value.status == 502
        with refused("worker_crashed") as caught:
            own.ask("crash", stream=stream)
        [mistake] = caught.value.mistakes
        assert (mistake.file, mistake.line, mistake.type) == ("agent/react.py", 11, "SIGSEGV")
        assert caught.value.output[-1] == "about to end" and "about to end" in str(caught.value)


def test_a_mistake_in_a_file_is_shown_with_its_line(server: Server) -> None:
    ours = lab(server, "fritz")
    ours.put("tools/x.py", "import math\nx = math.nothing\n")
    with refused("reload_failed") as caught:
        ours.reload()
    [mistake] = caught.value.mistakes
    assert (mistake.file, mistake.line, mistake.type) == ("tools/x.py", 2, "AttributeError")
    assert "-> 2 | x = math.nothing" in str(caught.value)


def test_a_folder_is_pushed_and_pushed_again(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / ".ipynb_checkpoints" / "a.py").write_text("1/0")
    (folder / "__init__.py").write_text("")
    (folder / "notes.txt").write_text("no tool")
    (folder / "first.py").write_text(LONE.format(name="first"))
    (folder / "second.py").write_text(LONE.format(name="second"))
    ours = lab(server, "greta")
    ours.put("tools/other.py", LONE.format(name="other"))
    pushed = ours.push(folder)
    assert {"first", "second", "other"} <= set(pushed.added)
    assert ours.files()["path"] == ["tools/first.py", "tools/other.py", "tools/second.py"]

    (folder / "second.py").rename(folder / "third.py")
    (folder / "third.py").write_text(LONE.format(name="third"))
    # Another connection, as of another day: what was pushed is remembered.
    pushed = lab(server, "greta").push(str(folder))
    assert (pushed.added, pushed.removed) == (["third"], ["second"])
    assert ours.files()["path"] == ["tools/first.py", "tools/other.py", "tools/third.py"]

    (folder / "first.py").unlink()
    (folder / "third.py").unlink()
    assert ours.push(folder).removed == ["first", "third"]
    assert ours.files()["path"] == ["tools/other.py"]


def test_a_folder_laid_out_like_the_servers_is_pushed_as_it_is(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mine" / "tools").mkdir(parents=True)
    (tmp_path / "mine" / "tools" / "first.py").write_text(LONE.format(name="first"))
    (tmp_path / "mine" / "setup.py").write_text("1/0")
    ours = lab(server, "hugo")
    ours.push(tmp_path / "mine")
    assert ours.files()["path"] == ["tools/first.py"]


def test_what_is_wrong_with_a_pushed_folder(server: Server, tmp_path: Path) -> None:
    ours = lab(server, "ida")
    with refused("no_folder"):
        ours.push(tmp_path / "nowhere")
    with refused("no_folder"):
        ours.push(tmp_path)
    (tmp_path / "not-a-name.py").write_text("1/0")
    with refused("no_folder"):
        ours.push(tmp_path)
    with refused("workspace_not_found"):
        ours.files()
    (tmp_path / "fine.py").write_text(LONE.format(name="fine"))
    pushed = ours.push(tmp_path)
    assert "fine" in pushed.added and ours.files()["path"] == ["tools/fine.py"]
    assert [one["file"] for one in pushed.warnings] == [str(tmp_path / "not-a-name.py")]
    assert "not-a-name.py: it is ignored" in repr(pushed)
    (tmp_path / "broken.py").write_text("x = 1\ny = = 2\n")
    with refused("reload_failed") as caught:
        ours.push(tmp_path)
    assert f"{tmp_path / 'broken.py'}, line 2" in str(caught.value)
    assert "-> 2 | y = = 2" in str(caught.value)


# Cells


def test_the_functions_of_a_cell_become_tools(server: Server) -> None:
    ours = lab(server, "jan")
    ours.write_tools(SHOUT)
    done = ours.write_tools(
        """%%tool several
from functools import cache

from langchain_core.tools import tool


def double(number: int) -> str:
    "Double a number."
    return str(_sum(number, number))


async def quadruple(number: int) -> str:
    "Multiply a number by four."
    return double(int(double(number)))


@tool
def halve(number: int) -> str:
    "Halve a number."
    return str(number // 2)


@cache
def helper() -> int:
    return 1


def _sum(a: int, b: int) -> int:
    return a + b
""",
        "several",
    )
    assert done.added == ["double", "halve", "quadruple"]
    assert ours.files()["path"] == ["tools/several.py", "tools/shout.py"]
    assert ours.get("tools/several.py").splitlines()[0] == "# %%tool several"
    # A cell that is run again takes the place of what it was.
    assert ours.write_tools(SHOUT.replace("def shout", "def loud"), "several").removed == [
        "double",
        "halve",
        "quadruple",
    ]


def test_a_function_may_call_another_one_that_is_a_tool(server: Server) -> None:
    ours = lab(server, "kim")
    ours.write_tools(
        """%%tool
def calculator(expression: str) -> str:
    "Work out an arithmetic expression."
    return longer(expression)

def longer(text: str) -> str:
    "Make a text longer."
    return text + "!"
"""
    )
    assert ours.ask(QUESTION).answer == "37 * 52!"


def test_a_cell_that_needs_the_model(server: Server) -> None:
    ours = lab(server, "lisa")
    cell = """%%tool {name}
from langchain_core.tools import tool


def build_tool(llm):
    @tool
    def judge(text: str) -> str:
        "Judge a text."
        return "good"

    return judge
"""
    with refused("usage"):
        ours.write_tools(cell.format(name=""))
    assert "judge" in ours.write_tools(cell.format(name="judge"), "judge").added


@pytest.mark.parametrize(
    ("cell", "code", "line", "text"),
    [
        ("%%tool\n\ndef shout(text: str) -> str:\n    return text.upper(\n", "cell", 4, "return text.upper("),
        ("%%tool\nreturn 1\n", "cell", 2, "return 1"),
        ("%%tool\ndef f(x: int) -> int:\n    return x\n", "cell", 2, "def f(x: int) -> int:"),
        ("%%tool\nx = 1\n", "no_function", None, ""),
        ("%%tool\n", "no_function", None, ""),
        ("%%tool\ndef _f(x: int) -> int:\n    'Doc.'\n    return x\n", "no_function", None, ""),
        ("%%tool\nx = '\0'\n", "cell", None, ""),
    ],
)
def test_a_mistake_in_a_cell_is_reported_before_anything_is_sent(
    server: Server, cell: str, code: str, line: int | None, text: str
) -> None:
    with refused(code) as caught:
        lab(server, "unsent").write_tools(cell)
    if line is not None:
        [mistake] = caught.value.mistakes
        assert mistake.line == line
        assert re.search(rf"^-> {line} \| *{re.escape(text)}$", str(caught.value), re.MULTILINE)
    assert "unsent" not in server.session.get("/workspaces").text


@pytest.mark.parametrize(
    ("added", "line", "shown"),
    [
        ("x = 1 / 0\n", 5, "x = 1 / 0"),
        ("import no_such_module\n", 5, "import no_such_module"),
        # What fails is a line that was added to the cell; what is wrong is in the function's.
        ("def two(x: 'Nothing') -> str:\n    'Do it.'\n    return x\n", 5, "def two(x: 'Nothing') -> str:"),
    ],
)
def test_a_cell_that_can_not_be_loaded_leaves_the_file_as_it_was(
    server: Server, added: str, line: int, shown: str
) -> None:
    ours = lab(server, "mona")
    ours.write_tools(SHOUT)
    before = ours.get("tools/shout.py")
    generation = ours.generations(1)[0].generation
    for cell, reported in ((SHOUT, "was restored"), (SHOUT.replace("shout", "new"), "was deleted again")):
        with refused("reload_failed") as caught:
            ours.write_tools(cell + added)
        [mistake] = caught.value.mistakes
        assert (mistake.file, mistake.line) == ("the cell", line)
        assert f"-> {line} | {shown}" in str(caught.value) and reported in caught.value.message
    assert ours.get("tools/shout.py") == before
    assert ours.files()["path"] == ["tools/shout.py"]
    assert ours.reload().generation == generation


# The file itself


def test_the_server_hands_the_client_out(server: Server) -> None:
    answer = server.session.get("/hearth.py")
    assert answer.content == CLIENT.read_bytes()
    assert answer.headers["Content-Type"].startswith("text/x-python")
    assert requests.get(f"{server.url}/hearth.py", timeout=60).status_code == 401


def test_a_download_and_requests_are_all_that_it_needs(server: Server, tmp_path: Path) -> None:
    # requests, and what it rests on.
    packages = tmp_path / "packages"
    packages.mkdir()
    for package in (requests, urllib3, idna, certifi, charset_normalizer):
        assert package.__file__ is not None
        folder = Path(package.__file__).parent
        (packages / folder.name).symlink_to(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "hearth.py").write_bytes(server.session.get("/hearth.py").content)
    script = (
        "import sys, hearth\n"
        "lab = hearth.connect()\n"
        "print(lab.ask('What is 37 * 52?'))\n"
        "print(lab.ask('What is 4 * 5?', stream=True).function)\n"
        "print(lab.ask_many(['What is 2 * 3?'])[0]['answer'])\n"
        "print(lab.load_model().state)\n"
        "print(sorted({'IPython', 'pandas', 'tqdm', 'platformdirs'} & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        # -S: without the packages of this environment.
        [sys.executable, "-S", "-c", script],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(packages)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert [lines[0], *lines[-5:]] == ["1924", "Answer: 20", "calculator", "6", "ready", "[]"]


# Magics


def run_cells(folder: Path, *cells: str) -> list[str]:
    """Run cells in a kernel of its own, in a folder, and give what is shown below each, colours left out.

    An error is shown as a person sees it: its traceback.
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(folder)}}).execute()

    def shown(out: Any) -> str:
        if out["output_type"] == "error":
            return "\n".join(out["traceback"])
        return str(out.get("text") or out["data"]["text/plain"])

    return [re.sub(r"\x1b\[[\d;]*m", "", "".join(map(shown, cell["outputs"]))) for cell in notebook.cells]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where a kernel may run that has the client beside it."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "hearth.py").symlink_to(CLIENT)
    return tmp_path


def test_magics(server: Server, folder: Path) -> None:
    shown = run_cells(
        folder,
        "%load_ext hearth",
        "%ask What is 37 * 52?",
        "%hearth --workspace nora  # mine",
        CELL.format(answer="first"),
        "%ask How much is 37 * 52 all in all?",
        CELL.format(answer="second"),
        "%generations",
        "import hearth\nlab = hearth.connect(workspace='nora')\ngeneration = lab.generations()[1].generation",
        "%rollback $generation",
        "answer = %ask Is it 37 * 52?\nif True:\n    print(answer, answer.question)\n    %ask What is {1} + $HOME?",
        "answer.question, lab.runs(1)[0].question",
    )
    assert shown[0] == ""
    assert "Action: calculator(expression='37 * 52')\nObservation: 1924\nAnswer: 1924" in shown[1]
    assert shown[2] == f"Hearth at {server.url}, workspace nora"
    assert "nora: generation" in shown[3]
    # The question ends with a word and a question mark, which IPython takes for a call for help.
    assert "Answer: first" in shown[4]
    assert "tools: changed calculator" in shown[5]
    assert "tools/calculator.py" in shown[6] and "live" in shown[6]
    assert "next reload" in shown[8]
    assert shown[9] == "first Is it 37 * 52?\n"
    assert shown[10] == "('Is it 37 * 52?', 'What is {1} + $HOME?')"
    assert server.token not in "".join(shown)


def test_a_question_after_an_upload_belongs_to_its_session(server: Server, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "my sales.csv").write_text("a,b\n1,2\n")
    shown = run_cells(
        folder,
        "%load_ext hearth",
        f"%upload '{tmp_path}/my sales.csv'",
        "answer = %ask What is 37 * 52?",
        "import hearth\nlab = hearth.connect()\nlab.files(lab.sessions()[0].session)",
        f"%upload '{tmp_path}/my sales.csv' --session tuesday",
        "lab.files('tuesday')",
    )
    assert "my sales.csv" in shown[1] and "notebook-" in shown[1]
    assert "my sales.csv" in shown[3]
    assert "tuesday" in shown[4] and "my sales.csv" in shown[5]


def test_cells_in_the_sandbox(server: Server) -> None:
    ours = lab(server)
    ran = ours.run_code("import pandas as pd\nprint('<b>')\npd.DataFrame({'<i>': range(30)})", "cells")
    assert (ran.output, ran.error, ran.session) == ("<b>\n", None, "cells")
    shown = ran._repr_html_()
    assert "&lt;b&gt;" in shown and "&lt;i&gt;" in shown and "30 rows, 1 columns" in shown
    assert "<b>" not in shown and "<i>" not in shown
    failed = ours.run_code("1 / 0", "cells")
    assert repr(failed).endswith("ZeroDivisionError: division by zero")
    drawn = ours.run_code("import matplotlib.pyplot as plt\nplt.plot([1, 2]);", "cells")
    assert drawn.pictures[0].startswith(b"\x89PNG") and "(figure: figure_3_1.png)" in repr(drawn)


def test_an_answer_comes_into_a_cell(server: Server, folder: Path) -> None:
    shown: list[dict[str, Any]] = []
    with run_kernel(cwd=str(folder)) as kernel:
        assert isinstance(kernel, BlockingKernelClient)
        for code in (
            "%load_ext hearth",
            f"answer = %ask {QUESTION}",
            f"import hearth; lab = hearth.connect(); answer = lab.ask({QUESTION!r}, stream=True)",
            # With a loop that runs already, as every notebook has one.
            f"import asyncio; await asyncio.sleep(0); answer = lab.ask({QUESTION!r}, stream=True)",
        ):
            shown.clear()
            done = kernel.execute_interactive(code, output_hook=shown.append, timeout=120)
            assert done["content"]["status"] == "ok", done
            updates = [one["content"] for one in shown if one["msg_type"] == "update_display_data"]
            if "ask" not in code:
                continue
            texts = [one["data"]["text/plain"] for one in updates]
            assert any("Thought: " in text and "Answer: 1924" not in text for text in texts)
            if "%ask" in code:
                assert texts[-1] == "", "the cell shows the answer in its place"
            else:
                assert "Observation: 1924\nAnswer: 1924\n" in texts[-1]
                assert "**1924**" in updates[-1]["data"]["text/markdown"]


def test_errors_in_a_notebook_are_short(server: Server, folder: Path) -> None:
    shown = run_cells(
        folder,
        "%load_ext hearth\n%hearth --workspace otto",
        SHOUT,
        SHOUT.replace("text.upper()", "text.upper("),
        SHOUT + "\nx = unknown\n",
        "%%tool\nx = 1",
        "%%tool one two\nx = 1",
        "%rollback",
        "%hearth http://127.0.0.1:1",
        "%hearth --workspaces otto",
        "%rollback ffffffffffff",
    )
    # Lines are counted as the notebook does, from the magic's on.
    assert shown[2].splitlines() == [
        "HearthError (cell): The cell has a mistake. Nothing was sent.",
        "",
        "the cell, line 4:",
        '   3 |     "Write a text in capital letters."',
        "-> 4 |     return text.upper(",
        "SyntaxError: '(' was never closed",
    ]
    assert shown[3].startswith("HearthError (reload_failed): The code could not be loaded, generation ")
    assert "continues to serve. tools/shout.py was restored." in shown[3]
    assert shown[3].endswith(
        "the cell, line 6:\n   5 |\n-> 6 | x = unknown\nNameError: name 'unknown' is not defined"
    )
    for text, code in zip(
        shown[4:], ("no_function", "usage", "usage", "no_server", "usage", "generation_not_found"), strict=True
    ):
        assert text.startswith(f"HearthError ({code}): ")
        assert "\n" not in text and "Traceback" not in text


def test_a_token_is_asked_for(server: Server, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    asked, shown = [], []
    with run_kernel(cwd=str(folder)) as kernel:
        assert isinstance(kernel, BlockingKernelClient)

        def type_in(message: dict[str, Any]) -> None:
            asked.append(message["content"])
            kernel.input(server.token)

        def show(message: dict[str, Any]) -> None:
            shown.append(json.dumps(message["content"]))

        code = f"%load_ext hearth\n%hearth {server.url}\n%ask {QUESTION}"
        done = kernel.execute_interactive(code, allow_stdin=True, stdin_hook=type_in, output_hook=show, timeout=120)
    assert done["content"]["status"] == "ok", done
    assert asked == [{"prompt": f"The token of {server.url}: ", "password": True}]
    assert any("Answer: 1924" in text for text in shown) and server.token not in "".join(shown)
    # Where nobody can be asked for it, the error says so.
    [_, output] = run_cells(folder, "%load_ext hearth", f"%hearth {server.url}")
    assert output.startswith("HearthError (unauthorized): There is no token.")


def test_what_the_readme_shows_for_notebooks(server: Server, folder: Path, tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    [download] = re.findall(r"^curl .*hearth\.py$", readme, re.MULTILINE)
    (folder / "hearth.py").unlink()
    subprocess.run(
        ["bash", "-euc", download.replace("http://gpubox:5001", server.url)],
        cwd=folder,
        env={**os.environ, "TOKEN": server.token},
        capture_output=True,
        timeout=60,
        check=True,
    )
    cells = re.findall(r"^```ipython\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert len(cells) > 2
    cells = [
        cell.replace("http://gpubox:5001", server.url).replace("--workspace alice", "--workspace readme")
        for cell in cells
    ]
    shown = run_cells(folder, *cells)
    assert not [text for text in shown if "Error" in text], shown
    assert "shout" in shown[1]
