"""Tools that may run in the background: what they are, how they are called, how they reach another process."""

import asyncio
import importlib
import pickle
import sys
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, Tool
from pydantic import Field

from server.jobs.executor.global_context import GlobalContext
from server.sdk.tool_result import as_text

_current: ContextVar[GlobalContext | None] = ContextVar("global context", default=None)


class ToolNotSendableError(TypeError):
    """A background tool can't be sent to another process. The message says why, and what to do."""


class BaseParallelizableTool(BaseTool):
    """A LangChain tool that knows the global context, and may run in the background.

    `_run` may be a generator: each value that it yields is a report, which is shown at once. Its result is what it
    returns, or its last report if it returns nothing.

    A job gets a copy of the tool: what `_run` changes in `self` stays in the job.
    """

    is_parallelizable: bool = False
    """Whether each call is a job in the background."""
    global_context: Any = Field(default=None, exclude=True, repr=False)
    """The `GlobalContext` of the executor that has this tool."""
    context: dict[str, Any] | None = Field(default=None, exclude=True, repr=False)
    """In a job: `{"job_id": "brave-otter"}`."""


def is_parallel(tool: BaseTool) -> bool:
    """Whether each call is a job: a `BaseParallelizableTool` with `is_parallelizable`, or any LangChain tool with
    `extras={"background": True}`."""
    if isinstance(tool, BaseParallelizableTool) and tool.is_parallelizable:
        return True
    return (tool.extras or {}).get("background") is True


def current_global_context() -> GlobalContext:
    """The global context, for tools that are functions. Raises `LookupError` outside of a tool's call."""
    context = _current.get()
    if context is None:
        raise LookupError("There is a global context only while an executor calls a tool.")
    return context


def call(
    tool: BaseTool, tool_input: str | dict[str, Any], context: GlobalContext, report: Callable[[str], object]
) -> Any:
    """The tool's result. `report` gets each value that a generator yields, as text. Raises what the tool raises."""
    token = _current.set(context)
    try:
        if isinstance(tool, StructuredTool | Tool) and tool.func is None:
            result = asyncio.run(tool.arun(tool_input))
        else:
            result = tool.run(tool_input)
        return _last(result, report) if isinstance(result, Generator) else result
    finally:
        _current.reset(token)


def _last(reports: Generator[Any, None, Any], report: Callable[[str], object]) -> Any:
    last = None
    while True:
        try:
            last = next(reports)
        except StopIteration as end:
            return last if end.value is None else end.value
        report(as_text(last))


@dataclass(frozen=True)
class SentTool:
    """A tool on its way to a job's process: pickled, or the place where it is imported from."""

    pickled: bytes | None
    module: str = ""
    name: str = ""

    def load(self) -> BaseTool:
        """The tool, in the job's process. Raises whatever unpickling or importing raises."""
        # The executor has made these bytes, so they may be unpickled.
        found = pickle.loads(self.pickled) if self.pickled is not None else _import(self.module, self.name)
        if not isinstance(found, BaseTool):
            raise TypeError(
                f"{self.module}.{self.name} is a {type(found).__name__} in the job's process, and no tool"
            )
        return found


def sendable(tool: BaseTool) -> SentTool:
    """The tool, made ready to be sent. Raises `ToolNotSendableError`.

    A tool that can't be pickled, such as one made by `@tool`, is imported by the job's process, if it is a variable
    at the top level of a module.
    """
    changes: dict[str, Any] = {"callbacks": None}
    if isinstance(tool, BaseParallelizableTool):
        changes |= {"global_context": None, "context": None}
    place = _place(tool)
    in_main = type(tool).__module__ == "__main__" or (place is not None and place[0] == "__main__")
    if in_main and not _can_be_imported(sys.modules["__main__"]):
        raise ToolNotSendableError(
            f"The tool {tool.name!r} is defined in a notebook or in an interactive session. A job is a process of "
            "its own and can't import it from there. Put the tool into a file (a module), and import it."
        )
    try:
        return SentTool(pickle.dumps(tool.model_copy(update=changes)))
    except Exception as error:  # boundary: people's classes may raise anything here
        if place is not None:
            return SentTool(None, *place)
        raise ToolNotSendableError(
            f"The tool {tool.name!r} can't be sent to a job's process: {error}. Make it a variable at the top level "
            "of a module that can be imported, or a class derived from BaseParallelizableTool at the top level of a "
            "module, whose fields can be pickled. A tool that is made inside of a function can't be sent."
        ) from error


def _place(tool: BaseTool) -> tuple[str, str] | None:
    """Module and name of the variable that is this tool; None if there is none."""
    function = getattr(tool, "func", None) or getattr(tool, "coroutine", None)
    names = {getattr(function, "__module__", None), type(tool).__module__}
    for module in sorted(name for name in names if name):
        for name, value in list(vars(sys.modules.get(module, ModuleType(module))).items()):
            if value is tool:
                return module, name
    return None


def _import(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _can_be_imported(main: ModuleType) -> bool:
    """Whether multiprocessing can import the main module in another process: it is a module or a file."""
    if getattr(getattr(main, "__spec__", None), "name", None) is not None:
        return True
    file = getattr(main, "__file__", None)
    return file is not None and Path(file).is_file()
