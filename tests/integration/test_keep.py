"""Values that outlive the code that built them. What `keep` promises a worker is in test_kept_values.py."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.errors import ReloadFailedError, StoreError, WorkerCrashedError
from server.reload import Snapshot, Workspace
from tests.support.full_disk import full_disk
from tests.support.reload_code import LOOK, Code, code, wait_until
from tests.support.server_process import Server

__all__ = ["code"]  # a fixture

KEEPS = """
    from langchain_core.tools import tool
    from server.sdk import keep

    VERSION = {version}
    AT_IMPORT = keep("at import", lambda: {{"built by": VERSION}})

    @tool
    def calculator(expression: str) -> str:
        "Work something out."
        return str(keep("in a run", lambda: {{"built by": VERSION}})["built by"]) + str(VERSION)
"""


@pytest.fixture
def keeping(code: Code) -> Code:
    """Code with a tool that looks into the modules."""
    code.write("tools/look.py", LOOK)
    return code


def names(code: Code) -> dict[str, str]:
    """The values that there are, and of which kind each is."""
    return {one.name: one.kind for one in code.workspace.kept.values()}


def test_values_survive_reloads_crashes_and_a_restart_of_the_server(keeping: Code) -> None:
    keeping.write("tools/calculator.py", KEEPS.format(version=1))
    keeping.reload()
    assert keeping.ask() == "11"
    assert names(keeping) == {"at import": "saved", "in a run": "saved"}
    keeping.write("tools/calculator.py", KEEPS.format(version=2))
    assert keeping.reload().rebuilt == []
    assert keeping.ask() == "12"
    with pytest.raises(WorkerCrashedError):
        keeping.look("tools", "__import__('os').kill(__import__('os').getpid(), 9)")
    assert keeping.ask() == "12"
    assert keeping.workspace.live is not None
    keeping.workspace.live.close()
    keeping.workspace = Workspace("main", keeping.root, keeping.runner)
    keeping.write("tools/calculator.py", KEEPS.format(version=3))
    keeping.reload()
    assert keeping.ask() == "13"
    assert keeping.look("tools.calculator", "AT_IMPORT") == {"built by": 1}


def test_a_failed_reload_and_a_dry_run_save_nothing(keeping: Code) -> None:
    keeping.reload()
    keeping.write("tools/calculator.py", KEEPS.format(version=1) + "    1 / 0\n")
    with pytest.raises(ReloadFailedError):
        keeping.reload()
    assert names(keeping) == {}
    keeping.write("tools/calculator.py", KEEPS.format(version=2))
    keeping.reload(dry_run=True)
    assert names(keeping) == {}
    keeping.reload()
    assert names(keeping) == {"at import": "saved"}
    assert keeping.look("tools.calculator", "AT_IMPORT") == {"built by": 2}
    folder = keeping.workspace.kept.folder
    wait_until(lambda: not list(folder.glob("*.draft")), "drafts that are removed")


def test_code_that_does_not_become_live_saves_nothing(keeping: Code) -> None:
    keeping.reload()
    live = keeping.workspace.live
    keeping.write("tools/calculator.py", KEEPS.format(version=1))
    with full_disk(os.getpid(), Path(keeping.database.name)), pytest.raises(StoreError):
        keeping.reload()
    assert keeping.workspace.live is live and names(keeping) == {}
    keeping.write("tools/calculator.py", KEEPS.format(version=2))
    keeping.reload()
    assert keeping.look("tools.calculator", "AT_IMPORT") == {"built by": 2}


def test_an_earlier_generation_has_the_same_values(keeping: Code) -> None:
    first = keeping.reload().generation
    keeping.write("tools/calculator.py", KEEPS.format(version=1))
    second = keeping.reload().generation
    keeping.write("tools/calculator.py", KEEPS.format(version=2))
    keeping.reload(snapshot=Snapshot(keeping.store.files(first)))
    with keeping.workspace.pin_earlier(second) as pinned:
        assert keeping.look("tools.calculator", "AT_IMPORT", pinned) == {"built by": 1}
        assert keeping.ask(generation=pinned) == "11"
    keeping.reload()
    assert keeping.ask() == "12"


MINE = """
    from dataclasses import dataclass
    from server.sdk import keep

    @dataclass
    class {name}:
        number: int

        def double(self):
            return 2 * self.number + {more}

    VALUE = keep("mine", lambda: {name}({number}))
"""


def test_objects_of_reloadable_classes_are_handed_on_as_far_as_they_unpickle(keeping: Code) -> None:
    keeping.write("tools/mine.py", MINE.format(name="Mine", number=1, more=0))
    keeping.reload()
    keeping.write("tools/mine.py", MINE.format(name="Mine", number=2, more=100))
    keeping.reload()
    assert keeping.look("tools.mine", "(VALUE.double(), isinstance(VALUE, Mine))") == (102, True)
    # Its class is gone: built again, and saved again.
    keeping.write("tools/mine.py", MINE.format(name="Renamed", number=3, more=0))
    keeping.reload()
    assert keeping.look("tools.mine", "VALUE.double()") == 6
    keeping.write("tools/mine.py", MINE.format(name="Renamed", number=4, more=0))
    keeping.reload()
    assert keeping.look("tools.mine", "VALUE.double()") == 6 and names(keeping) == {"mine": "saved"}


def test_what_does_not_pickle_is_built_in_each_worker_and_the_answer_names_it(keeping: Code) -> None:
    text = "from server.sdk import keep\nVERSION = {0}\nVALUE = keep('a lambda', lambda: (lambda: VERSION))"
    for version in (1, 2):
        keeping.write("tools/mine.py", text.format(version))
        assert keeping.reload().rebuilt == ["a lambda"]
        assert keeping.look("tools.mine", "VALUE()") == version
    assert names(keeping) == {"a lambda": "in_worker"}


def test_a_value_is_dropped_everywhere(keeping: Code) -> None:
    keeping.write("tools/calculator.py", KEEPS.format(version=1))
    keeping.reload()
    assert keeping.ask() == "11"
    keeping.write("tools/calculator.py", KEEPS.format(version=2))
    keeping.reload()
    assert keeping.ask() == "12"
    assert keeping.workspace.forget("in a run") is True and names(keeping) == {"at import": "saved"}
    assert keeping.ask() == "22"
    assert keeping.workspace.forget("nothing") is False


def test_a_factory_that_hangs_is_ended_with_the_reload(keeping: Code) -> None:
    keeping.reload()
    keeping.limit(2)
    keeping.write("tools/hangs.py", "from server.sdk import keep\n\ndef f():\n    while True: pass\n\nkeep('x', f)")
    [error] = keeping.refused()
    assert (error["type"], error["file"], error["line"]) == ("TimeoutError", "server/tools/hangs.py", 4)
    keeping.limit(60)
    keeping.write("tools/hangs.py", "from server.sdk import keep\n\nVALUE = keep('x', lambda: 1)")
    keeping.reload()
    assert keeping.look("tools.hangs", "VALUE") == 1


def test_each_workspace_has_its_own(start_server: Callable[..., Server]) -> None:
    server = start_server()
    text = (
        "from langchain_core.tools import tool\nfrom server.sdk import keep\n\n\n@tool\n"
        "def calculator(expression: str) -> str:\n"
        '    """Work out an arithmetic expression, like `2 * (3 + 4)` or `sqrt(2)`."""\n'
        "    calls = keep('calls', list)\n    calls.append(1)\n    return str(len(calls))\n"
    )

    def answer(name: str) -> str:
        body = server.session.post("/run_script", json={"question": "What is 37 * 52?", "workspace": name}).json()
        return str(body["answer"])

    def kept(name: str) -> Any:
        return server.session.get(f"/workspaces/{name}/kept").json()["kept"]

    for name in ("alice", "bob"):
        server.session.put(f"/workspaces/{name}/files/tools/calculator.py", data=text.encode())
    assert [answer(name) for name in ("alice", "alice", "bob", "alice")] == ["1", "2", "1", "3"]
    server.session.put("/workspaces/alice/files/tools/calculator.py", data=(text + "# edited\n").encode())
    assert server.session.post("/reload_modules", json={"workspace": "alice"}).json()["changed"]
    assert answer("alice") == "1", "it is handed on as it was built"
    [listed] = kept("alice")
    assert (listed["name"], listed["type"], listed["kind"]) == ("calls", "list", "saved") and listed["bytes"] > 0
    assert server.session.delete("/workspaces/alice/kept/calls").status_code == 200
    assert server.session.delete("/workspaces/alice/kept/calls").json()["error"]["type"] == "not_kept"
    assert kept("alice") == [] and len(kept("bob")) == 1
    assert answer("alice") == "1" and answer("bob") == "2"
