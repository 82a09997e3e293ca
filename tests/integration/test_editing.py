"""Files that two people edit, files of generations, calls of one tool, and how tools have fared, over HTTP."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.server_process import REPOSITORY, Server, end, start

PATH = "/workspaces/{}/files/tools/shout.py"
TOOLS = '''
import ctypes

from langchain_core.tools import tool


@tool
def shout(text: str, times: int = 1) -> str:
    """Write a text in capital letters."""
    print("shouting", text)
    return text.upper() * times


@tool
def misfit(text: str) -> str:
    """Fail."""
    raise ValueError(text)


@tool
def crash() -> str:
    """Crash."""
    return ctypes.string_at(0)
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the workspace `ann`, which has tools of her own."""
    made = start(tmp_path_factory.mktemp("lab") / "server", REPOSITORY, {})
    try:
        made.wait_until_ready()
        assert made.session.put(PATH.format("ann"), data=TOOLS.encode()).ok
        assert made.session.post("/reload_modules", json={"workspace": "ann"}).ok
        yield made
    finally:
        end(made)


def call(lab: Server, tool: str, status: int = 200, **body: Any) -> dict[str, Any]:
    answer = lab.session.post(f"/tools/{tool}/call", json={"workspace": "ann", **body})
    assert answer.status_code == status, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def test_nobody_overwrites_what_they_have_not_read(lab: Server) -> None:
    path, session = PATH.format("bea"), lab.session
    made = session.put(path, data=b"first", headers={"If-None-Match": "*"})
    assert made.status_code == 201
    read = session.get(path)
    etag = read.headers["ETag"]
    assert etag == made.headers["ETag"]
    again = session.put(path, data=b"mine", headers={"If-None-Match": "*"})
    assert (again.status_code, again.json()["error"]["type"]) == (412, "file_changed")
    changed = session.put(path, data=b"second", headers={"If-Match": etag})
    assert changed.status_code == 200
    for refused in (
        session.put(path, data=b"mine", headers={"If-Match": etag}),
        session.put(path, data=b"mine", headers={"If-Match": f"W/{changed.headers['ETag']}"}),
        session.delete(path, headers={"If-Match": etag}),
    ):
        assert refused.status_code == 412
        assert refused.json()["error"]["etag"] == refused.headers["ETag"] == changed.headers["ETag"]
    assert session.get(path).content == b"second"
    both = {"If-Match": f'"other", {changed.headers["ETag"]}'}
    assert session.delete(path, headers=both).status_code == 200
    gone = session.put(path, data=b"mine", headers={"If-Match": "*"})
    assert (gone.status_code, gone.json()["error"]["etag"]) == (412, None)
    assert session.put(path, data=b"mine", headers={"If-Match": ""}).status_code == 422
    assert session.put(path, data=b"mine").status_code == 201  # without a header as ever


def test_of_two_who_save_at_the_same_time_one_is_refused(lab: Server) -> None:
    path = PATH.format("cleo")
    etag = lab.session.put(path, data=b"first").headers["ETag"]
    begin = threading.Barrier(8)
    statuses: list[int] = []

    def save(number: int) -> None:
        begin.wait()
        answer = lab.session.put(path, data=b"text %d" % number, headers={"If-Match": etag})
        statuses.append(answer.status_code)

    savers = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for one in savers:
        one.start()
    for one in savers:
        one.join()
    assert sorted(statuses) == [200, *[412] * 7]


def test_the_files_of_a_generation(lab: Server) -> None:
    live = lab.session.get("/generations?workspace=ann").json()["live"]
    listed = lab.session.get(f"/generations/{live[:6]}/files").json()
    assert listed["generation"] == live
    sizes = {one["path"]: one["bytes"] for one in listed["files"]}
    assert sizes["tools/shout.py"] == len(TOOLS.encode())
    assert "agent/react.py" in sizes and list(sizes) == sorted(sizes)
    assert lab.session.get(f"/generations/{live}/files/tools/shout.py").text == TOOLS
    assert lab.session.get(f"/generations/{live}/files/tools/none.py").json()["error"]["type"] == "file_not_found"
    assert lab.session.get("/generations/ffff/files").json()["error"]["type"] == "generation_not_found"


def test_a_tool_is_called(lab: Server) -> None:
    shown = call(lab, "shout", input={"text": "hi", "times": 2})
    assert (shown["result"], shown["error"], shown["output"]) == ("HIHI", None, "shouting hi\n")
    assert shown["generation"] == lab.session.get("/generations?workspace=ann").json()["live"]
    assert shown["seconds"] >= 0


def test_a_failure_is_an_answer(lab: Server) -> None:
    failed = call(lab, "misfit", input={"text": "no such freezer"})
    assert failed["result"] is None and failed["error"]["message"] == "ValueError: no such freezer"
    assert 'File "server/tools/shout.py", line 17' in failed["error"]["traceback"]
    invalid = call(lab, "shout", input={"times": "many"})
    assert "text: Field required" in invalid["error"]["message"]
    crashed = call(lab, "crash")
    place = {name: crashed["error"][name] for name in ("type", "signal", "file", "line")}
    assert place == {"type": "worker_crashed", "signal": "SIGSEGV", "file": "server/tools/shout.py", "line": 23}
    assert call(lab, "shout", input={"text": "hi"})["result"] == "HI"


def test_what_can_not_be_called(lab: Server) -> None:
    assert call(lab, "nothing", 404)["error"]["type"] == "tool_not_found"
    assert call(lab, "shout", 404, workspace="nobody")["error"]["type"] == "workspace_not_found"
    assert call(lab, "shout", 404, generation="ffff")["error"]["type"] == "generation_not_found"
    call(lab, "shout", 422, input=["a", "list"])


def test_an_earlier_generation_is_called(lab: Server) -> None:
    path = PATH.format("dora")
    lab.session.put(path, data=TOOLS.encode())
    first = lab.session.post("/reload_modules", json={"workspace": "dora"}).json()["generation"]
    lab.session.put(path, data=TOOLS.replace("upper", "title").encode())
    lab.session.post("/reload_modules", json={"workspace": "dora"})
    given: dict[str, Any] = {"workspace": "dora", "input": {"text": "hi"}}
    assert call(lab, "shout", **given)["result"] == "Hi"
    assert call(lab, "shout", **given, generation=first[:6])["result"] == "HI"


def test_how_tools_have_fared(lab: Server) -> None:
    asked = lab.session.post("/run_script", json={"workspace": "ann", "question": "Use shout on hello"}).json()
    lab.session.post("/run_script", json={"workspace": "ann", "question": "Use misfit on hello"})
    found = lab.session.get("/tools/statistics?workspace=ann").json()["statistics"]
    uses = {one["tool"]: (one["generation"], one["calls"], one["failures"]) for one in found}
    assert uses["shout"] == (asked["generation"], 1, 0)
    calls, failures = uses["misfit"][1:]
    assert calls == failures >= 1
    assert all(0 <= one["p50_seconds"] <= one["p95_seconds"] for one in found)
