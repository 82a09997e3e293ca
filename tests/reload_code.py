"""Reloadable code for the tests of reloading: small, real files in a folder laid out like `server/`."""

import os
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

# The packages that a reload needs take seconds to import the first time, which counts for no deadline in the server.
import server.engine.engine  # noqa: F401
from server.errors import ReloadFailedError
from server.reload import ErrorReport, Workspace
from server.reload.naming import package_of
from server.store import Database, GenerationStore

LLM = FakeListChatModel(responses=["fine"])

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


def tool_file(answer: object, name: str = "calculator") -> str:
    """A file with one tool that always gives `answer`."""
    return textwrap.dedent(f"""
        from langchain_core.tools import tool

        @tool
        def {name}(expression: str) -> str:
            "Work something out."
            return {str(answer)!r}
    """)


class Code:
    """The files of a workspace, and the workspace over them."""

    def __init__(self, root: Path, deadline_seconds: float = 20) -> None:
        self.root = root
        self.database = Database(root.parent / "data")
        self.store = GenerationStore(self.database)
        self.workspace = Workspace("main", root, self.store, deadline_seconds)
        self.write("model.py", "def load_model(name, **options): return name")
        self.write("agent/__init__.py", "class CustomAgentGuidance: pass")
        self.write("tools/__init__.py", TOOLS)
        self.write("tools/calculator.py", tool_file(1))

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        # At once: several threads may write the same file, and none may leave a mix of two texts.
        draft = file.with_name(f".{file.name}.{threading.get_ident()}")
        draft.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        os.replace(draft, file)
        return file

    def reload(self, **options: Any) -> Any:
        return self.workspace.reload(LLM, **options)

    def ask(self, tool: str = "calculator") -> str:
        """What a run that starts now gets from a tool."""
        with self.workspace.pin() as generation:
            assert generation.tools is not None
            return str(generation.tools[tool].invoke({"expression": "?"}))

    def module(self, name: str) -> Any:
        """A module of the live generation."""
        assert self.workspace.live is not None
        return self.workspace.live.module(name)

    def close(self) -> None:
        """Let the process forget what is still live."""
        if self.workspace.live is not None:
            self.workspace.live.close()
        self.database.close()

    def refused(self, **options: Any) -> list[ErrorReport]:
        """Reload, see it refused and nothing changed, and give the errors."""
        before, live = process_state(), self.workspace.live
        tools = None if live is None else live.tools
        with pytest.raises(ReloadFailedError) as refusal:
            self.reload(**options)
        assert process_state() == before
        assert self.workspace.live is live
        assert live is None or live.tools is tools
        assert refusal.value.details["generation"] == (live.hash if live else None)
        errors: list[ErrorReport] = refusal.value.details["errors"]
        assert errors
        for error in errors:
            assert set(error) == {"file", "line", "type", "message", "traceback"}
            shown = error["message"] + error["traceback"]
            assert "hearth_" not in shown and "server/reload" not in shown and "importlib" not in shown
        return errors


def private_modules() -> set[str]:
    """The names of the modules of all generations that the process holds now."""
    return {name for name in list(sys.modules) if package_of(name)}


def process_state() -> tuple[object, ...]:
    """What a failed reload must leave as it was. (The one hook of all generations comes with the first.)"""
    hooks = [hook for hook in sys.path_hooks if hook.__module__ != "server.reload.importer"]
    return private_modules(), list(sys.meta_path), list(sys.path), hooks


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Code]:
    """Code that loads, not loaded yet, with Python's cache of compiled files switched on."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    made = Code(tmp_path / "server")
    yield made
    made.close()
