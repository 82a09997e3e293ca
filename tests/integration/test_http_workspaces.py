"""Workspaces, generations and runs over HTTP, with a real server and the embedded model."""

import http.client
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from constants import Settings
from server import create_app
from server.host import Host
from tests.support.server_process import REPOSITORY, Server, end, start

CALCULATOR = '''
from langchain_core.tools import tool


@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression, like `2 * (3 + 4)` or `sqrt(2)`."""
    return "{answer}"
'''
QUESTION = "What is 37 * 52?"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose workspaces the tests of this file may do with as they like."""
    made = start(tmp_path_factory.mktemp("lab") / "server", REPOSITORY, {})
    try:
        made.wait_until_ready()
        yield made
    finally:
        end(made)


def put(lab: Server, name: str, answer: str) -> None:
    """Give a workspace a calculator of its own, and take it over."""
    text = CALCULATOR.format(answer=answer)
    assert lab.session.put(f"/workspaces/{name}/files/tools/calculator.py", data=text.encode()).ok
    reloaded = lab.session.post("/reload_modules", json={"workspace": name})
    assert reloaded.status_code == 200, reloaded.text


def ask(lab: Server, **options: Any) -> dict[str, Any]:
    answer = lab.session.post("/run_script", json={"question": QUESTION, **options})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def error(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    code: str = answer.json()["error"]["type"]
    return code


def test_a_persons_code_answers_that_person(lab: Server) -> None:
    put(lab, "alice", "alice's")
    put(lab, "bob", "bob's")
    answers = {name: ask(lab, workspace=name) for name in ("alice", "bob", "main")}
    assert {name: one["answer"] for name, one in answers.items()} == {
        "alice": "alice's",
        "bob": "bob's",
        "main": "1924",
    }
    assert len({one["generation"] for one in answers.values()}) == 3
    assert all(one["workspace"] == name for name, one in answers.items())


def test_files_come_and_go(lab: Server) -> None:
    path, data = "/workspaces/carol/files/tools/x.py", "# ü\n".encode() + b"\xff"
    assert error(lab.session.get(path), 404) == "workspace_not_found"
    made = lab.session.put(path, data=data)
    assert made.status_code == 201
    assert made.json() == {"workspace": "carol", "path": "tools/x.py", "bytes": len(data)}
    assert lab.session.put(path, data=data).status_code == 200
    assert lab.session.get(path).content == data
    listed = lab.session.get("/workspaces/carol/files").json()
    assert listed == {"workspace": "carol", "files": [{"path": "tools/x.py", "bytes": len(data)}]}
    assert {"workspace": "carol", "generation": None} in lab.session.get("/workspaces").json()["workspaces"]
    assert lab.session.delete(path).status_code == 200
    assert error(lab.session.delete(path), 404) == "file_not_found"
    words = "/workspaces/carol/files/tools/deep/words.csv"
    assert lab.session.put(words, data=b"\xff\x00").status_code == 201
    assert lab.session.get(words).content == b"\xff\x00"
    listed = lab.session.get("/workspaces/carol/files").json()["files"]
    assert listed == [{"path": "tools/deep/words.csv", "bytes": 2}]
    assert lab.session.delete(words).status_code == 200
    assert error(lab.session.put("/workspaces/main/files/tools/x.py", data=b""), 403) == "forbidden"
    assert error(lab.session.put("/workspaces/Carol/files/tools/x.py", data=b""), 422) == "invalid_path"
    assert error(lab.session.put("/workspaces/carol/files/x.sh", data=b""), 422) == "invalid_path"
    assert error(lab.session.put(path, data=bytes(3_000_000)), 413) == "too_large"
    longer_than_a_name = f"/workspaces/carol/files/tools/{150 * 'é'}.py"
    assert error(lab.session.put(longer_than_a_name, data=b""), 422) == "invalid_path"
    assert error(lab.session.get(longer_than_a_name), 422) == "invalid_path"


def test_what_is_no_workspace_is_not_listed(lab: Server) -> None:
    folder = lab.output_file.parent / "data" / "workspaces"
    assert lab.session.put("/workspaces/fred/files/tools/x.py", data=b"").ok
    (folder / "notes").write_text("")
    (folder / "link").symlink_to(folder / "nowhere")
    listed = [one["workspace"] for one in lab.session.get("/workspaces").json()["workspaces"]]
    assert "fred" in listed and not {"notes", "link"} & set(listed)


def test_a_workspace_that_goes_while_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(Settings(TOKEN="secret", DATA_DIR=tmp_path))
    monkeypatch.setattr(host.workspaces, "names", lambda: ["main", "gone"])
    listed = create_app(host).test_client().get("/workspaces", headers={"Authorization": "Bearer secret"}).json
    host.close()
    assert listed == {"workspaces": [{"workspace": "main", "generation": None}]}


KEEPS = """
from server.sdk import keep

for name in {names}:
    keep(name, list)
"""


def test_a_kept_value_of_any_name_is_dropped(lab: Server) -> None:
    names = ["/data/papers", "/data/notes", "a//b", "//", "papers/2024/", "ä b?"]
    lab.session.put("/workspaces/nora/files/tools/x.py", data=KEEPS.format(names=names).encode())
    assert lab.session.post("/reload_modules", json={"workspace": "nora"}).ok

    def kept() -> list[str]:
        return [one["name"] for one in lab.session.get("/workspaces/nora/kept").json()["kept"]]

    assert kept() == sorted(names)
    for safe, name in zip(("/", "") * 3, names, strict=True):
        dropped = lab.session.delete(f"/workspaces/nora/kept/{quote(name, safe)}")
        assert dropped.json() == {"workspace": "nora", "name": name}
    assert kept() == []


def test_what_is_kept_says_how(lab: Server) -> None:
    text = "import threading\nfrom server.sdk import keep\n\nkeep('list', list)\nkeep('lock', threading.Lock)\n"
    lab.session.put("/workspaces/otto/files/tools/x.py", data=text.encode())
    reloaded = lab.session.post("/reload_modules", json={"workspace": "otto"}).json()
    assert reloaded["rebuilt"] == ["lock"]
    saved, built_anew = lab.session.get("/workspaces/otto/kept").json()["kept"]
    assert (saved["name"], saved["type"], saved["kind"]) == ("list", "list", "saved") and saved["bytes"] > 0
    assert (built_anew["name"], built_anew["type"], built_anew["kind"]) == ("lock", "lock", "in_worker")


READS = '''
from importlib import resources

from langchain_core.tools import tool


@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression, like `2 * (3 + 4)` or `sqrt(2)`."""
    return resources.files(__package__).joinpath("words.txt").read_text()
'''


def test_data_beside_the_code_belongs_to_its_generation(lab: Server) -> None:
    lab.session.put("/workspaces/paula/files/tools/calculator.py", data=READS.encode())
    generations = []
    for words in ("one", "two"):
        lab.session.put("/workspaces/paula/files/tools/words.txt", data=words.encode())
        reloaded = lab.session.post("/reload_modules", json={"workspace": "paula"}).json()
        generations.append(reloaded["generation"])
        assert ask(lab, workspace="paula")["answer"] == words
    assert reloaded["changed"] == ["tools/words.txt"]
    assert ask(lab, workspace="paula", generation=generations[0])["answer"] == "one"


@pytest.mark.parametrize(
    "path", ["../../x.py", "tools/../../x.py", "/etc/x.py", "tools/%2e%2e/%2e%2e/x.py", "%00.py"]
)
def test_paths_out_of_a_workspace_are_refused(lab: Server, path: str) -> None:
    # As they are: the usual clients tidy such paths up before they send them.
    address = urlsplit(lab.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    connection.request("PUT", f"/workspaces/dora/files/{path}", b"x", {"Authorization": f"Bearer {lab.token}"})
    assert connection.getresponse().status in (308, 404, 405, 422)
    connection.close()
    assert "dora" not in lab.session.get("/workspaces").text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/workspaces"),
        ("PUT", "/workspaces/eve/files/tools/x.py"),
        ("GET", "/workspaces/alice/files/tools/calculator.py"),
        ("DELETE", "/workspaces/alice/files/tools/calculator.py"),
        ("GET", "/generations"),
        ("GET", "/runs"),
        ("POST", "/runs/x/replay"),
    ],
)
def test_nothing_without_the_token(lab: Server, method: str, path: str) -> None:
    assert error(lab.session.request(method, path, headers={"Authorization": ""}), 401) == "unauthorized"


def test_broken_code_of_one_person(lab: Server) -> None:
    put(lab, "frank", "fine")
    lab.session.put("/workspaces/frank/files/tools/calculator.py", data=b"def broken(:\n")
    refused = lab.session.post("/reload_modules", json={"workspace": "frank"})
    assert error(refused, 422) == "reload_failed"
    [mistake] = refused.json()["error"]["errors"]
    assert (mistake["file"], mistake["line"]) == ("server/tools/calculator.py", 1)
    answer = ask(lab, workspace="frank")
    assert answer["answer"] == "fine" and answer["generation"] == refused.json()["error"]["generation"]


def test_a_workspace_whose_first_code_is_broken(lab: Server) -> None:
    lab.session.put("/workspaces/gina/files/tools/calculator.py", data=b"1/0\n")
    asked = {"question": QUESTION, "workspace": "gina"}
    assert error(lab.session.post("/run_script", json=asked), 422) == "reload_failed"
    lab.session.put("/workspaces/gina/files/tools/calculator.py", data=CALCULATOR.format(answer="mended").encode())
    assert ask(lab, workspace="gina")["answer"] == "mended"


def test_broken_first_code_is_loaded_once_and_who_waits_for_it_can_be_stopped(lab: Server, tmp_path: Path) -> None:
    loads, may_end = tmp_path / "loads", tmp_path / "may_end"
    text = (
        "import time\nfrom pathlib import Path\n"
        f"with open({str(loads)!r}, 'a') as file: file.write('x')\n"
        f"while not Path({str(may_end)!r}).exists(): time.sleep(0.05)\n1 / 0\n"
    )
    lab.session.put("/workspaces/olga/files/tools/calculator.py", data=text.encode())
    asked = {"question": QUESTION, "workspace": "olga"}
    answers: list[Any] = []
    callers = [
        threading.Thread(target=lambda: answers.append(lab.session.post("/run_script", json=asked))) for _ in range(3)
    ]
    for caller in callers:
        caller.start()

    def waiting() -> Any:
        runs = lab.session.get("/runs?workspace=olga").json()["runs"]
        return runs if loads.exists() and len(runs) == 3 else None

    runs = lab.wait_until(waiting, "the runs to wait")
    for run in runs:
        assert lab.session.delete(f"/runs/{run['run_id']}").ok
    lab.wait_until(lambda: len(answers) == 2, "the two that wait to stop", 20)
    assert [error(answer, 499) for answer in answers] == ["run_cancelled"] * 2
    may_end.touch()
    for caller in callers:
        caller.join()
    assert error(lab.session.post("/run_script", json=asked), 422) == "reload_failed"
    assert loads.read_text() == "x"


def test_what_was_live_when_and_what_differs(lab: Server) -> None:
    for answer in ("one", "two"):
        put(lab, "henry", answer)
    listed = lab.session.get("/generations?workspace=henry").json()
    second, first = (one["generation"] for one in listed["generations"])
    assert listed["live"] == second and listed["workspace"] == "henry"
    assert [one["changed"] for one in listed["generations"]] == [["tools/calculator.py"], None]
    [difference] = lab.session.get(f"/generations/{first}/diff?to={second}").json()["files"]
    assert difference["path"] == "tools/calculator.py"
    assert '-    return "one"\n+    return "two"\n' in difference["diff"]
    assert lab.session.get(f"/generations/{first}/diff?to={first}").json()["files"] == []
    assert len(lab.session.get("/generations?workspace=henry&limit=1").json()["generations"]) == 1
    assert error(lab.session.get(f"/generations/{first}/diff?to=ffffffffffff"), 404) == "generation_not_found"
    assert error(lab.session.get(f"/generations/{first}/diff"), 422) == "invalid_request"
    assert error(lab.session.get("/generations?limit=0"), 422) == "invalid_request"
    assert error(lab.session.get("/generations?workspace=nobody"), 404) == "workspace_not_found"


def test_code_is_brought_back_and_asked_without_bringing_it_back(lab: Server) -> None:
    put(lab, "ines", "one")
    first = ask(lab, workspace="ines")["generation"]
    put(lab, "ines", "two")
    assert ask(lab, workspace="ines", generation=first[:6])["answer"] == "one"
    assert ask(lab, workspace="ines")["answer"] == "two"
    back = lab.session.post("/reload_modules", json={"workspace": "ines", "generation": first}).json()
    assert back["generation"] == first and back["changed"] == ["tools.calculator"]
    assert ask(lab, workspace="ines")["answer"] == "one"
    unknown = {"workspace": "ines", "generation": "ffffffffffff"}
    assert error(lab.session.post("/reload_modules", json=unknown), 404) == "generation_not_found"
    assert (
        error(lab.session.post("/run_script", json={"question": QUESTION, **unknown}), 404) == "generation_not_found"
    )


def test_main_is_brought_back_too(lab: Server) -> None:
    live = lab.session.get("/generations").json()["live"]
    put(lab, "jonas", "other")
    other = ask(lab, workspace="jonas")["generation"]
    assert lab.session.post("/reload_modules", json={"generation": other}).json()["generation"] == other
    assert ask(lab)["answer"] == "other"
    assert lab.session.post("/reload_modules").json()["generation"] == live
    assert ask(lab)["answer"] == "1924"


def test_generations_are_forgotten_unless_someone_needs_them(lab: Server) -> None:
    generations = []
    for answer in ("asked", "not asked", "live"):
        put(lab, "karin", answer)
        if answer == "asked":
            ask(lab, workspace="karin")
        generations.append(lab.session.get("/generations?workspace=karin").json()["live"])
    asked, unused, live = generations
    assert error(lab.session.delete(f"/generations/{asked}"), 409) == "generation_in_use"
    assert error(lab.session.delete(f"/generations/{live}"), 409) == "generation_in_use"
    assert lab.session.delete(f"/generations/{unused}").json() == {"generation": unused}
    assert error(lab.session.delete(f"/generations/{unused}"), 404) == "generation_not_found"
    history = lab.session.get("/generations?workspace=karin").json()["generations"]
    assert [one["generation"] for one in history] == [live, asked]
    assert [one["runs"] for one in history] == [0, 1]


def test_a_run_is_kept_with_all_that_decided_it(lab: Server) -> None:
    put(lab, "alice", "alice's")
    answer = ask(lab, workspace="alice", max_steps=3)
    record = lab.session.get(f"/runs/{answer['run_id']}").json()
    assert record.items() >= answer.items()
    assert (record["state"], record["question"], record["max_steps"]) == ("done", QUESTION, 3)
    assert answer["provenance"]["model"]["name"] == "embedded"
    assert answer["provenance"]["model"]["dtype"] == "float32"
    assert answer["provenance"]["agent"] == "react" and answer["provenance"]["max_steps"] == 3
    listed = lab.session.get("/runs?workspace=alice&limit=2").json()["runs"]
    assert listed[0] == record
    assert error(lab.session.get("/runs/unknown"), 404) == "run_not_found"


def test_a_question_is_asked_again_of_the_code_that_answered_it(lab: Server) -> None:
    put(lab, "luis", "then")
    first = ask(lab, workspace="luis")
    put(lab, "luis", "now")
    again = lab.session.post(f"/runs/{first['run_id']}/replay").json()
    assert again["same_answer"] is True and again["replay_of"] == first["run_id"] != again["run_id"]
    for name in ("answer", "steps", "generation", "workspace", "model", "provenance", "function"):
        assert again[name] == first[name]
    assert ask(lab, workspace="luis")["answer"] == "now"
    assert error(lab.session.post("/runs/unknown/replay"), 404) == "run_not_found"


def test_a_run_that_fails_is_kept_with_its_error(lab: Server) -> None:
    text = "question " * 3000
    assert error(lab.session.post("/run_script", json={"question": text}), 422) == "prompt_too_long"
    record = lab.session.get("/runs?limit=1").json()["runs"][0]
    assert record["state"] == "failed" and record["error"]["type"] == "prompt_too_long"
    assert "answer" not in record


SLOW = '''
import time
from pathlib import Path

from langchain_core.tools import tool


@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression, like `2 * (3 + 4)` or `sqrt(2)`."""
    while True:
        time.sleep(0.05)
'''


def test_a_run_is_seen_in_flight_and_cancelled(lab: Server) -> None:
    lab.session.put("/workspaces/maria/files/tools/calculator.py", data=SLOW.encode())
    answers: list[Any] = []
    asked = {"question": QUESTION, "workspace": "maria"}
    caller = threading.Thread(target=lambda: answers.append(lab.session.post("/run_script", json=asked)))
    caller.start()

    def running() -> Any:
        runs = lab.session.get("/runs?workspace=maria").json()["runs"]
        return [run for run in runs if run["state"] == "running"]

    [run] = lab.wait_until(running, "the run to begin")
    generation = run["generation"]
    put(lab, "maria", "other")
    assert error(lab.session.delete(f"/generations/{generation}"), 409) == "generation_in_use"
    assert lab.session.delete(f"/runs/{run['run_id']}").json() == {"run_id": run["run_id"], "cancelled": True}
    caller.join()
    assert error(answers[0], 499) == "run_cancelled"
    assert lab.session.get(f"/runs/{run['run_id']}").json()["state"] == "cancelled"
    assert error(lab.session.delete(f"/runs/{run['run_id']}"), 404) == "run_not_found"


def test_all_of_it_is_there_after_a_restart(start_server: Callable[..., Server], tmp_path: Any) -> None:
    folder = tmp_path / "kept"
    before = start_server(DATA_DIR=folder)
    put(before, "alice", "then")
    first = ask(before, workspace="alice")
    put(before, "alice", "now")
    assert before.stop() == 0
    after = start_server(DATA_DIR=folder)
    assert ask(after, workspace="alice")["answer"] == "now"
    again = after.session.post(f"/runs/{first['run_id']}/replay").json()
    assert (again["answer"], again["same_answer"]) == ("then", True)
    history = after.session.get("/generations?workspace=alice").json()["generations"]
    assert [one["generation"] for one in history][-1] == first["generation"] and len(history) == 2
