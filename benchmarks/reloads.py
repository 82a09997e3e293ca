"""Reloading alone, over workspaces of several sizes, beside what Python itself needs for the same bytes."""

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from server.errors import ModelNotLoadedError
from server.reload import CodeFolders, CodeRunner, Workspace
from server.reload.snapshot import read_stamp
from server.store import Database, GenerationStore
from server.workers.model_calls import ModelCalls
from server.workers.pool import Workers
from tests.support.no_session import NoSession

TOOL = '''
"""A tool like many."""

from langchain_core.tools import ToolException, tool

LIMIT = {number}


class Row:
    """What it works with."""

    def __init__(self, text: str) -> None:
        self.words = text.split()


@tool
def tool_{number}(text: str, limit: int = LIMIT) -> str:
    """Count the words of a text, up to a limit."""
    if limit < 0:
        raise ToolException("the limit is below nothing")
    return f"{{min(len(Row(text).words), limit)}} {edit}"
'''
LOADER = """
import importlib
import pkgutil


def load_tools(llm):
    modules = [importlib.import_module("." + found.name, __package__) for found in pkgutil.iter_modules(__path__)]
    return {tool.name: tool for module in modules for tool in vars(module).values() if hasattr(tool, "args_schema")}
"""


def measure(folder: Path, files: int, times: int) -> dict[str, list[float]]:
    """Seconds for one edit among `files` tools: taken over by a reload, by looking whether there is one, and by
    Python: compiling and executing all the bytes, or the edited module alone with `importlib.reload`."""
    root = folder / "server"
    _write(root / "model.py", "def load_model(): ...")
    _write(root / "agent" / "__init__.py", "class CustomAgentGuidance: ...")
    _write(root / "tools" / "__init__.py", LOADER)
    for number in range(files):
        _write(root / "tools" / f"tool_{number}.py", TOOL.format(number=number, edit=""))
    workers = Workers(ModelCalls(_no_model, _no_model), NoSession())
    store = GenerationStore(Database(folder / "data"))
    runner = CodeRunner(workers, CodeFolders(folder / "generations"), store, folder / "kept", 60)
    space = Workspace("main", root, runner)
    space.reload(build=True)
    sys.path.insert(0, str(folder / "plain"))
    _write(folder / "plain" / f"plain_{files}.py", TOOL.format(number=0, edit=""))
    plain = importlib.import_module(f"plain_{files}")
    edits = iter(range(1_000_000))

    def edit() -> str:
        text = TOOL.format(number=0, edit=next(edits))
        _write(root / "tools" / "tool_0.py", text)
        _write(folder / "plain" / f"plain_{files}.py", text)
        return text

    def settle() -> None:
        while not read_stamp(root).settled:
            time.sleep(0.01)
        space.catch_up(build=True)

    def run_all(text: str) -> None:
        for path in sorted(root.rglob("*.py")):
            namespace: dict[str, Any] = {"__name__": f"bench.{path.stem}", "__package__": "bench"}
            exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), namespace)

    def once(work: Callable[[str], object]) -> float:
        text = edit()
        began = time.perf_counter()
        work(text)
        return time.perf_counter() - began

    def look() -> float:
        settle()
        began = time.perf_counter()
        assert space.catch_up(build=True) is None
        return time.perf_counter() - began

    def reload_plainly(text: str) -> None:
        # As its users know: without it, an edit within a second of the last is not seen.
        Path(importlib.util.cache_from_source(str(plain.__file__))).unlink(missing_ok=True)
        importlib.reload(plain)

    rounds = range(-3, times)  # the first three warm up
    measured: dict[str, list[float]] = {
        f"{files} files: reload": [once(lambda _: space.reload(build=True)) for _ in rounds],
        f"{files} files: reload on request": [once(lambda _: space.catch_up(build=True)) for _ in rounds],
        f"{files} files: nothing has changed": [look() for _ in rounds],
        f"{files} files: compile and execute them all": [once(run_all) for _ in rounds],
        f"{files} files: importlib.reload of the one": [once(reload_plainly) for _ in rounds],
    }
    workers.close()
    return {what: seconds[3:] for what, seconds in measured.items()}


def _no_model(*_: object, **__: object) -> NoReturn:
    raise ModelNotLoadedError("These tools ask no model.")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
