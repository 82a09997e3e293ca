"""Warnings about values in a generation's files that look like tools and are not loaded as tools."""

import inspect
from collections.abc import Collection
from types import ModuleType
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.tools.base import BaseToolkit

from server.workers.inside.loading import LoadedCode
from server.workers.inside.toolset import held

MOST = 20


def overlooked(code: LoadedCode, tools: Collection[BaseTool]) -> list[dict[str, str]]:
    """A `file` and a `message` for each public name at the top level of a module in `tools/` that holds a tool which
    is not among `tools`, a toolkit, or a tool's class of which there is no tool. At most `MOST`."""
    found: list[dict[str, str]] = []
    for name, module in code.modules.items():
        if not name.startswith("tools."):
            continue
        public = {key: value for key, value in list(vars(module).items()) if not key.startswith("_")}
        has_tools = any(_is_among(one, tools) for value in public.values() for one in held(value))
        for key, value in public.items():
            message = _message(module, key, value, tools, has_tools)
            if message is not None and len(found) < MOST:
                file = code.files.name(str(module.__file__))
                found.append({"file": file or name, "message": message})
    return found


def _message(module: ModuleType, key: str, value: Any, tools: Collection[BaseTool], has_tools: bool) -> str | None:
    if isinstance(value, type):
        is_own = value.__module__ == module.__name__ and not inspect.isabstract(value)
        if is_own and issubclass(value, BaseTool) and not any(isinstance(tool, value) for tool in tools):
            return f"{key} is the class of a tool, and there is no tool of it: add {key.lower()} = {key}()"
        return None
    if isinstance(value, BaseToolkit) and not has_tools:
        return f"{key} is a toolkit, and its tools are not loaded: add {key}_tools = {key}.get_tools()"
    members = list(value.values()) if isinstance(value, dict) else held(value)
    missing = [one.name for one in members if isinstance(one, BaseTool) and not _is_among(one, tools)]
    if missing:
        return f"{key} holds {', '.join(missing)}, which load_tools does not give: give each tool a name of its own"
    return None


def _is_among(value: Any, tools: Collection[BaseTool]) -> bool:
    return any(value is tool for tool in tools)
