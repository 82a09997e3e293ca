"""State that outlives the code that built it."""

import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest

from server.errors import ReloadFailedError, StoreError
from server.keep import KeepError, Kept, keep, scope
from server.reload import Snapshot
from tests.full_disk import full_disk
from tests.reload_code import LLM, Code, code
from tests.server_process import Server

__all__ = ["code"]  # a fixture


def never(value: object) -> bool:
    return False


def test_a_value_is_built_once_and_stays() -> None:
    kept, built = Kept(never), []
    for _ in range(3):
        assert kept.get("x", lambda: built.append(1) or "value") == "value"
    assert built == [1]
    assert kept.get("y", lambda: None) is None and set(kept.values()) == {"x", "y"}


def test_many_at_once_build_it_once() -> None:
    kept, built, started = Kept(never), [], threading.Barrier(16)

    def build() -> object:
        built.append(1)
        return object()

    def work(_: int) -> object:
        started.wait()
        return kept.get("x", build)

    with ThreadPoolExecutor(16) as pool:
        values = set(pool.map(work, range(16)))
    assert len(values) == len(built) == 1


def test_a_factory_that_fails_keeps_nothing_and_the_next_caller_builds() -> None:
    kept = Kept(never)
    with pytest.raises(ZeroDivisionError):
        kept.get("x", lambda: 1 / 0)
    assert kept.values() == {}
    assert kept.get("x", lambda: 1) == 1


def test_a_factory_that_wants_itself_is_told() -> None:
    kept = Kept(never)
    with pytest.raises(KeepError, match="its own factory"):
        kept.get("x", lambda: kept.get("x", lambda: 1))
    assert kept.get("x", lambda: kept.get("y", lambda: 2)) == 2


def test_a_value_is_dropped_also_while_it_is_being_built() -> None:
    kept, building, may_end = Kept(never), threading.Event(), threading.Event()

    def build() -> str:
        building.set()
        assert may_end.wait(30)
        return "late"

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(kept.get, "x", build)
        assert building.wait(30)
        assert kept.drop("x") is True
        assert kept.get("x", lambda: "anew") == "anew"
        may_end.set()
        assert late.result() == "late"
    assert kept.get("x", lambda: "again") == "anew"
    assert kept.drop("x") is True and kept.drop("x") is False


def test_its_size_and_age() -> None:
    kept, before = Kept(never), time.time()
    kept.get("array", lambda: numpy.zeros(1000))
    kept.get("dict", lambda: {number: "x" * 1000 for number in range(1000)})
    sizes = {name: one.bytes for name, one in kept.values().items()}
    assert sizes["array"] == 8000
    assert sizes["dict"] is not None and sizes["dict"] > 40_000
    assert all(before <= one.built <= time.time() for one in kept.values().values())


@pytest.mark.parametrize("name", ["", "x" * 201, 7, None])
def test_names_that_are_refused(name: Any) -> None:
    with pytest.raises(KeepError, match="a name"):
        Kept(never).get(name, lambda: 1)


def test_outside_of_any_code_there_is_nothing_to_keep_in() -> None:
    with pytest.raises(KeepError, match="outside of a reload"):
        keep("x", lambda: 1)
    with scope(Kept(never)):
        assert keep("x", lambda: 1) == 1


# With code that is reloaded

KEEPS = """
    from langchain_core.tools import tool
    from server.keep import keep

    VERSION = {version}
    AT_IMPORT = keep("at import", lambda: {{"built by": VERSION}})

    @tool
    def calculator(expression: str) -> str:
        "Work something out."
        return str(keep("in a run", lambda: {{"built by": VERSION}})["built by"]) + str(VERSION)
"""


def ask(code: Code) -> str:
    with scope(code.workspace.kept):
        return code.ask()


def test_kept_state_survives_reloads_and_old_code_does_not_live_on_in_it(code: Code) -> None:
    code.write("tools/calculator.py", KEEPS.format(version=1))
    code.reload()
    assert ask(code) == "11"
    old = weakref.ref(code.module("tools.calculator").calculator.func)
    code.write("tools/calculator.py", KEEPS.format(version=2))
    code.reload()
    assert ask(code) == "12"
    assert code.module("tools.calculator").AT_IMPORT == {"built by": 1}
    gc.collect()
    assert old() is None


def test_a_failed_reload_and_a_dry_run_keep_nothing(code: Code) -> None:
    code.reload()
    code.write("tools/calculator.py", KEEPS.format(version=1) + "    1 / 0\n")
    with pytest.raises(ReloadFailedError):
        code.reload()
    assert code.workspace.kept.values() == {}
    code.write("tools/calculator.py", KEEPS.format(version=2))
    code.reload(dry_run=True)
    assert code.workspace.kept.values() == {}
    code.reload()
    assert set(code.workspace.kept.values()) == {"at import"}
    assert code.module("tools.calculator").AT_IMPORT == {"built by": 2}


def test_code_that_is_not_taken_over_keeps_nothing(code: Code) -> None:
    code.reload()
    live = code.workspace.live
    code.write("tools/calculator.py", KEEPS.format(version=1))
    with full_disk(os.getpid(), Path(code.database.name)), pytest.raises(StoreError):
        code.reload()
    assert code.workspace.live is live and code.workspace.kept.values() == {}
    code.write("tools/calculator.py", KEEPS.format(version=2))
    code.reload()
    assert code.module("tools.calculator").AT_IMPORT == {"built by": 2}
    assert set(code.workspace.kept.values()) == {"at import"}


def test_what_tells_a_size_is_not_the_codes_own_doing(
    code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library" / "pympler"
    library.mkdir(parents=True)
    (library / "__init__.py").touch()
    (library / "asizeof.py").write_text(
        "import os\nos.environ['OF_THE_LIBRARY'] = '1'\n\ndef asizeof(value):\n    return 42\n"
    )
    monkeypatch.setenv("OF_THE_LIBRARY", "0")
    monkeypatch.syspath_prepend(library.parent)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pympler"]:
        monkeypatch.delitem(sys.modules, name)
    code.write("tools/calculator.py", KEEPS.format(version=1))
    try:
        assert code.reload().left_behind == []
        assert code.workspace.kept.values()["at import"].bytes == 42
        assert os.environ["OF_THE_LIBRARY"] == "1"
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "pympler"]:
            del sys.modules[name]


def test_an_earlier_generation_has_the_same_state(code: Code) -> None:
    first = code.reload().generation
    code.write("tools/calculator.py", KEEPS.format(version=1))
    second = code.reload().generation
    code.reload(snapshot=Snapshot(code.store.files(first)))
    with code.workspace.pin_earlier(second, LLM) as pinned:
        assert pinned.module("tools.calculator").AT_IMPORT is code.workspace.kept.values()["at import"].value


@pytest.mark.parametrize("value", ["Mine()", "Mine", "lambda: 1", "Mine().method"])
def test_what_is_made_of_reloadable_code_is_refused(code: Code, value: str) -> None:
    code.reload()
    text = f"""
        from server.keep import keep

        class Mine:
            def method(self):
                pass

        VALUE = keep("mine", lambda: {value})
    """
    code.write("tools/mine.py", text)
    [error] = code.refused()
    assert error["type"] == "KeepError" and "reloads replace" in error["message"]
    assert code.workspace.kept.values() == {}


def test_a_factory_that_hangs_is_given_up_with_the_reload(code: Code) -> None:
    code.reload()
    code.workspace.deadline_seconds = 0.5
    code.write("tools/hangs.py", "from server.keep import keep\n\ndef f():\n    while True: pass\n\nkeep('x', f)")
    [error] = code.refused()
    assert error["type"] == "TimeoutError" and error["file"] == "server/tools/hangs.py"
    code.workspace.deadline_seconds = 20
    code.write("tools/hangs.py", "from server.keep import keep\n\nVALUE = keep('x', lambda: 1)")
    code.reload()
    assert code.module("tools.hangs").VALUE == 1


def test_each_workspace_has_its_own(start_server: Callable[..., Server]) -> None:
    server = start_server()
    text = (
        "from langchain_core.tools import tool\nfrom server.keep import keep\n\n\n@tool\n"
        "def calculator(expression: str) -> str:\n"
        '    """Work out an arithmetic expression, like `2 * (3 + 4)` or `sqrt(2)`."""\n'
        "    calls = keep('calls', list)\n    calls.append(1)\n    return str(len(calls))\n"
    )

    def answer(name: str) -> str:
        body = server.session.post("/run_script", json={"question": "What is 37 * 52?", "workspace": name}).json()
        return str(body["answer"])

    for name in ("alice", "bob"):
        server.session.put(f"/workspaces/{name}/files/tools/calculator.py", data=text.encode())
    assert [answer(name) for name in ("alice", "alice", "bob", "alice")] == ["1", "2", "1", "3"]
    server.session.put("/workspaces/alice/files/tools/calculator.py", data=(text + "# edited\n").encode())
    assert server.session.post("/reload_modules", json={"workspace": "alice"}).json()["changed"]
    assert answer("alice") == "4"
    [listed] = server.session.get("/workspaces/alice/kept").json()["kept"]
    assert (listed["name"], listed["type"]) == ("calls", "list") and listed["bytes"] > 0
    assert server.session.delete("/workspaces/alice/kept/calls").status_code == 200
    assert server.session.delete("/workspaces/alice/kept/calls").json()["error"]["type"] == "not_kept"
    assert answer("alice") == "1" and answer("bob") == "2"
