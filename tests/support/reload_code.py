"""Reloadable code for the tests of reloading: small, real files in a folder laid out like `server/`."""

import ast
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.errors import ReloadFailedError
from server.reload import CodeFolders, CodeRunner, Generation, Workspace
from server.store import Database, GenerationStore
from server.workers.failure import ErrorReport
from server.workers.pool import Workers

TOOLS = """
    import importlib
    import pkgutil

    from langchain_core.tools import BaseTool

    def load_tools(llm):
        tools = {}
        for found in pkgutil.iter_modules(__path__):
            module = importlib.import_module("." + found.name, __package__)
            made = [value for value in vars(module).values() if isinstance(value, BaseTool)]
            if hasattr(module, "build_tool"):
                made.append(module.build_tool(llm))
            for tool in made:
                if tools.setdefault(tool.name, tool) is not tool:
                    raise ValueError(f"two tools are named {tool.name}")
        return tools
"""

LOOK = textwrap.dedent("""
    import importlib
    from langchain_core.tools import tool

    @tool
    def look(module: str, expression: str) -> str:
        "What an expression gives in a module of the generation."
        return repr(eval(expression, vars(importlib.import_module("server." + module))))
""")

DEADLINE_SECONDS = 60.0


def tool_file(answer: object, name: str = "calculator") -> str:
    """A file with one tool that always gives `answer`."""
    return textwrap.dedent(f"""
        from langchain_core.tools import tool

        @tool
        def {name}(expression: str) -> str:
            "Work something out."
            return {str(answer)!r}
    """)


def wait_until(met: Callable[[], Any], what: str | Callable[[], str], seconds: float = 60) -> Any:
    """What `met()` gives as soon as that is true. `what`: what is waited for, or what says it at the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := met()):
        assert time.monotonic() < deadline, f"{seconds} s were not enough for {what() if callable(what) else what}"
        time.sleep(0.01)
    return value


class Code:
    """The files of a workspace, and the workspace over them. Its code runs in real workers."""

    def __init__(
        self, root: Path, workers: Workers, deadline_seconds: float = DEADLINE_SECONDS, name: str = "main"
    ) -> None:
        self.root = root
        self.workers = workers
        self.database = Database(root.parent / "data")
        self.store = GenerationStore(self.database)
        folders = CodeFolders(root.parent / "generations")
        self.runner = CodeRunner(workers, folders, self.store, root.parent / "kept", deadline_seconds)
        self.workspace = Workspace(name, root, self.runner)
        self.write("model.py", "def load_model(name, **options): return name")
        self.write("agent/__init__.py", "class CustomAgentGuidance: pass")
        self.write("tools/__init__.py", TOOLS)
        self.write("tools/calculator.py", tool_file(1))

    def write(self, path: str, text: str | bytes) -> Path:
        """Write a file at once: several threads may write the same one, and none may leave a mix of two texts."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{threading.get_ident()}")
        draft.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        os.replace(draft, file)
        return file

    def limit(self, seconds: float) -> None:
        """From now on, loading may take this long."""
        self.workspace._runner = replace(self.runner, deadline_seconds=seconds)

    def reload(self, build: bool = True, **options: Any) -> Any:
        """As `Workspace.reload`, with the tools built."""
        return self.workspace.reload(build, **options)

    def ask(self, tool: str = "calculator", generation: Generation | None = None, **given: Any) -> str:
        """What a call of a tool gives now, in the live generation or in one that the caller has pinned."""
        given = given or {"expression": "?"}
        if generation is not None:
            return generation.call_tool(tool, given, 60)
        with self.workspace.pin() as live:
            return live.call_tool(tool, given, 60)

    def look(self, module: str, expression: str, generation: Generation | None = None) -> Any:
        """What an expression gives in a module such as `tools.calculator`; a plain value. The code needs `LOOK` in
        `tools/look.py`."""
        return ast.literal_eval(self.ask("look", generation, module=module, expression=expression))

    def pids(self) -> set[int]:
        """The processes of the workspace's workers."""
        return {worker.process.pid for worker in self.workers.of(self.workspace.name)}

    def close(self) -> None:
        """End what is still live."""
        if self.workspace.live is not None:
            self.workspace.live.close()
        self.database.close()

    def refused(self, **options: Any) -> list[ErrorReport]:
        """Reload, see it refused and nothing changed, and give the errors."""
        before, live, pids = process_state(), self.workspace.live, self.pids()
        tools = None if live is None else live.tools
        with pytest.raises(ReloadFailedError) as refusal:
            self.reload(**options)
        assert process_state() == before
        assert self.workspace.live is live
        assert live is None or live.tools is tools
        assert refusal.value.details["generation"] == (live.hash if live else None)
        wait_until(lambda: self.pids() <= pids, "the end of the worker that was refused")
        errors: list[ErrorReport] = refusal.value.details["errors"]
        assert errors
        for error in errors:
            assert set(error) == {"file", "line", "type", "message", "traceback"}
            shown = error["message"] + error["traceback"]
            assert str(self.root.parent) not in shown and "importlib" not in shown, shown
        return errors


def process_state() -> tuple[object, ...]:
    """What people's code could change in the server's process if it ran there."""
    own = {name for name in list(sys.modules) if name.startswith(("server.tools", "server.agent", "server.model"))}
    return own, list(sys.meta_path), list(sys.path), list(sys.path_hooks), dict(os.environ), os.getcwd()


@pytest.fixture
def code(tmp_path: Path, workers: Workers) -> Iterator[Code]:
    """Code that loads, not loaded yet."""
    made = Code(tmp_path / "server", workers)
    yield made
    made.close()
