"""The tools of a generation: built, checked, and compared with those of another."""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from server.reload.failure import ErrorReport, LoadError, describe, problem
from server.reload.naming import file_of
from server.reload.residue import importing
from server.tool_schema import arguments_schema

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Traits:
    """What two tools of one name are compared by.

    `sources` holds the bytes of the modules that the tool rests on, by name: the module of its function (or
    its class), the modules that hold it under a global name, and what those import inside the generation,
    directly or not. An import inside a function counts only if it was executed before the tools were built.
    """

    description: str
    schema: str
    sources: Mapping[str, bytes]


@dataclass(frozen=True)
class Toolset:
    """The tools of a generation, and the traits of each, by name."""

    tools: dict[str, "BaseTool"]
    traits: dict[str, Traits]


def build_toolset(
    llm: "BaseChatModel",
    modules: Mapping[str, ModuleType],
    sources_of: Callable[[str], Mapping[str, bytes]],
) -> Toolset:
    """Call `load_tools` of a generation's `tools` and check what it gives.

    It must be a dict with at least one tool. Every key must be the name of its tool and hold only letters,
    digits, `_` and `-`; every tool needs a description, and arguments that a JSON schema can be made of.
    Raises `LoadError` with a report for each mistake; what `load_tools` itself raises is let through.

    `modules` are the generation's, by name; `sources_of` gives the bytes of one and of those it imports.
    """
    load_tools = modules["tools"].load_tools
    built = load_tools(llm)
    if not isinstance(built, dict):
        message = f"load_tools must give a dict of tools, not {type(built).__name__}"
        raise LoadError([_mistake(load_tools, message)])
    if not built:
        raise LoadError([_mistake(load_tools, "load_tools found no tools: there must be at least one")])
    schemas: dict[str, str] = {}
    errors: list[ErrorReport] = []
    for name, tool in built.items():
        try:
            schemas[name] = _checked_schema(name, tool, load_tools)
        except LoadError as mistakes:
            errors += mistakes.errors
    if errors:
        raise LoadError(errors)
    return Toolset(
        tools=dict(built),
        traits={
            name: Traits(tool.description, schemas[name], _rests_on(tool, modules, sources_of))
            for name, tool in built.items()
        },
    )


def compare(before: Mapping[str, Traits], after: Mapping[str, Traits]) -> dict[str, list[str]]:
    """The names of the tools `added`, `removed` and `changed`, each list in order.

    A tool has changed when there was one of its name before and any of the two's `Traits` differ.
    """
    return {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
    }


def _rests_on(
    tool: "BaseTool",
    modules: Mapping[str, ModuleType],
    sources_of: Callable[[str], Mapping[str, bytes]],
) -> dict[str, bytes]:
    makers = {_function(tool).__module__, type(tool).__module__}
    homes = [
        name
        for name, module in modules.items()
        if module.__name__ in makers or any(value is tool for value in list(vars(module).values()))
    ]
    return {name: data for home in homes for name, data in sources_of(home).items()}


def _checked_schema(name: Any, tool: Any, load_tools: Callable[..., Any]) -> str:
    """The JSON schema of a tool's arguments, as text. Raises `LoadError` with all that is wrong with it."""
    from langchain_core.tools import BaseTool

    if not isinstance(tool, BaseTool):
        message = f"{name!r} must be a LangChain tool, not a {type(tool).__name__}"
        raise LoadError([_mistake(load_tools, message)])
    function = _function(tool)
    at = function if file_of(inspect.unwrap(function).__code__.co_filename) else load_tools
    errors, text = [], ""
    if name != tool.name:
        errors.append(_mistake(at, f"load_tools gives the tool {tool.name!r} under another name, {name!r}"))
    if not _NAME.fullmatch(tool.name):
        errors.append(_mistake(at, f"a tool's name takes only letters, digits, _ and -: {tool.name!r}"))
    if not tool.description.strip():
        errors.append(_mistake(at, f"the tool {tool.name!r} needs a description: the model chooses by it"))
    try:
        schema = arguments_schema(tool)
        text = json.dumps(schema, sort_keys=True)
    except Exception as error:  # boundary: a schema is made by the tool's own types
        report = describe(error)
        message = f"no JSON schema can be made of the arguments of {tool.name!r}: {report['message']}"
        errors.append({**_mistake(at, message), "traceback": report["traceback"]})
    else:
        if schema.get("type") != "object":
            errors.append(_mistake(at, f"the JSON schema of the arguments of {tool.name!r} must be an object"))
        elif (reason := _why_no_grammar(json.dumps(schema))) is not None:
            message = f"the model can't be held to the JSON schema of the arguments of {tool.name!r}: {reason}"
            errors.append(_mistake(at, message))
    if errors:
        raise LoadError(errors)
    return text


@lru_cache(maxsize=2_000)
def _why_no_grammar(schema: str) -> str | None:
    """Why guidance can't make a grammar of a schema (JSON); None where it can, some conditions left to the tool."""
    with importing("guidance", ()):
        import guidance

    try:
        guidance.json(schema=json.loads(schema), lenient=True)
    except ValueError as error:
        return str(error)
    return None


def _function(tool: "BaseTool") -> Callable[..., Any]:
    """The function of the tool's own that is called when the tool is."""
    function = getattr(tool, "func", None) or getattr(tool, "coroutine", None) or type(tool)._run
    return function if inspect.isfunction(inspect.unwrap(function)) else type(tool)._run


def _mistake(at: Callable[..., Any], message: str) -> ErrorReport:
    code = getattr(inspect.unwrap(at), "__code__", None)
    file = file_of(code.co_filename) if code else None
    return problem(file, code.co_firstlineno if code and file else None, "InvalidToolsError", message)
