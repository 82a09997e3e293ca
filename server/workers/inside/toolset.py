"""The tools of a generation, built and checked in its worker."""

import hashlib
import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool

from server.sdk.tool_schema import arguments_schema
from server.workers.failure import ErrorReport, LoadError, problem
from server.workers.inside.loading import LoadedCode
from server.workers.messages import decode, encode

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def build_tools(code: LoadedCode, llm: BaseChatModel) -> dict[str, BaseTool]:
    """Call `load_tools` of the generation's `tools` and check what it gives.

    It must be a dict with at least one tool. Every key must be the name of its tool and hold only letters, digits,
    `_` and `-`; every tool needs a description, and arguments that a JSON schema can be made of. Raises `LoadError`
    with a report for each mistake, or for what `load_tools` raises.
    """
    load_tools: Callable[..., Any] = code.modules["tools"].load_tools
    with code.running(builder=load_tools.__module__):
        built = load_tools(llm)
    if not isinstance(built, dict):
        message = f"load_tools must give a dict of tools, not {type(built).__name__}"
        raise LoadError([_mistake(code, load_tools, message)])
    if not built:
        raise LoadError([_mistake(code, load_tools, "load_tools found no tools: there must be at least one")])
    errors: list[ErrorReport] = []
    for name, tool in built.items():
        with code.running():
            errors += _problems(code, name, tool, load_tools)
    if errors:
        raise LoadError(errors)
    return dict(built)


def describe_tool(code: LoadedCode, tool: BaseTool) -> dict[str, Any]:
    """A tool as the server knows it; see `server.reload.toolset.ToolInfo`. `sources`: hashes of the modules that the
    tool rests on, by name: the module of its function (or its class), the modules that hold it under a global name,
    and what those import inside the generation, directly or not. An import inside a function counts only if it was
    executed before the tools were built."""
    makers = {_function(tool).__module__, type(tool).__module__}
    homes = [
        name
        for name, module in code.modules.items()
        if module.__name__ in makers or any(value is tool for value in list(vars(module).values()))
    ]
    sources = {one for home in homes for one in code.closure(home)}
    return {
        "name": tool.name,
        "description": tool.description,
        "args_schema": arguments_schema(tool),
        "sources": {one: _hash(code, one) for one in sorted(sources)},
    }


def _hash(code: LoadedCode, module: str) -> str:
    return hashlib.sha256(code.path(module).read_bytes()).hexdigest()


def _problems(code: LoadedCode, name: Any, tool: Any, load_tools: Callable[..., Any]) -> list[ErrorReport]:
    """All that is wrong with a tool."""
    if not isinstance(tool, BaseTool):
        message = f"{name!r} must be a LangChain tool, not a {type(tool).__name__}"
        return [_mistake(code, load_tools, message)]
    function = _function(tool)
    at = function if code.files.name(inspect.unwrap(function).__code__.co_filename) else load_tools
    errors = []
    if name != tool.name:
        errors.append(_mistake(code, at, f"load_tools gives the tool {tool.name!r} under another name, {name!r}"))
    if not _NAME.fullmatch(tool.name):
        errors.append(_mistake(code, at, f"a tool's name takes only letters, digits, _ and -: {tool.name!r}"))
    if not tool.description.strip():
        errors.append(_mistake(code, at, f"the tool {tool.name!r} needs a description: the model chooses by it"))
    try:
        schema = arguments_schema(tool)
        text = encode(schema)
    except Exception as error:  # boundary: a schema is made by the tool's own types
        report = code.files.describe(error)
        message = f"no JSON schema can be made of the arguments of {tool.name!r}: {report['message']}"
        errors.append({**_mistake(code, at, message), "traceback": report["traceback"]})
    else:
        if schema.get("type") != "object":
            errors.append(_mistake(code, at, f"the JSON schema of the arguments of {tool.name!r} must be an object"))
        elif (reason := _why_no_grammar(text)) is not None:
            message = f"the model can't be held to the JSON schema of the arguments of {tool.name!r}: {reason}"
            errors.append(_mistake(code, at, message))
    return errors


@lru_cache(maxsize=2_000)
def _why_no_grammar(schema: str) -> str | None:
    """Why guidance can't make a grammar of a schema (JSON); None where it can, some conditions left to the tool."""
    import guidance

    try:
        guidance.json(schema=decode(schema), lenient=True)
    except ValueError as error:
        return str(error)
    return None


def _function(tool: BaseTool) -> Callable[..., Any]:
    """The function of the tool's own that is called when the tool is."""
    function = getattr(tool, "func", None) or getattr(tool, "coroutine", None) or type(tool)._run
    return function if inspect.isfunction(inspect.unwrap(function)) else type(tool)._run


def _mistake(code: LoadedCode, at: Callable[..., Any], message: str) -> ErrorReport:
    function = getattr(inspect.unwrap(at), "__code__", None)
    file = code.files.name(function.co_filename) if function else None
    return problem(file, function.co_firstlineno if function and file else None, "InvalidToolsError", message)
