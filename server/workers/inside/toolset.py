"""The tools of a generation, built and checked in its worker."""

import hashlib
import inspect
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from time import thread_time
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool

from server.grammar_check.bounds import COMPILE_SECONDS
from server.grammar_check.checker import too_costly_to_compile
from server.sdk.injection import injected
from server.sdk.jobs import is_background, is_idempotent, resources
from server.sdk.json_schema import UnusableSchemaError
from server.sdk.schema_grammar import grammar_schema
from server.sdk.shown_tools import FIND_TOOLS
from server.sdk.tool_schema import arguments_schema
from server.workers.failure import ErrorReport, LoadError, problem
from server.workers.inside.loading import LoadedCode
from server.workers.messages import decode, encode

HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
LONGEST_TITLE = 200

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def build_tools(code: LoadedCode, llm: BaseChatModel, check: bool = True) -> dict[str, BaseTool]:
    """Call `load_tools` of the generation's `tools` and check its result. Without `check`, because another worker has
    checked the same code, only its type is checked.

    It must be a dict with at least one tool. Every key must be the name of its tool and hold only letters, digits,
    `_` and `-`; every tool needs a description, and arguments that have a JSON schema. Raises `LoadError`
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
    for name, tool in built.items() if check else ():
        with code.running():
            errors += problems_of(code, name, tool, load_tools)
    if errors:
        raise LoadError(errors)
    return dict(built)


def describe_tool(code: LoadedCode, tool: BaseTool) -> dict[str, Any]:
    """A tool as a message to the server; see `server.workers.worker.BuiltTool`. `sources`: hashes of the modules that
    the tool depends on, by name: the module of its function (or its class), the modules with a global name for it,
    and what those import inside the generation, directly or not. An import inside a function counts only if it was
    executed before the tools were built."""
    makers = {_function(tool).__module__, type(tool).__module__}
    homes = [
        name
        for name, module in code.modules.items()
        if module.__name__ in makers
        or any(one is tool for value in list(vars(module).values()) for one in held(value))
    ]
    sources = {one for home in homes for one in code.closure(home)}
    return {
        "name": tool.name,
        "description": tool.description,
        "args_schema": arguments_schema(tool),
        "sources": {one: _hash(code, one) for one in sorted(sources)},
        "is_background": is_background(tool),
        "is_idempotent": is_idempotent(tool),
        "resources": resources(tool),
        "title": _title(tool),
        "annotations": _annotations(tool),
    }


def _title(tool: BaseTool) -> str | None:
    title = (tool.extras or {}).get("title")
    return title[:LONGEST_TITLE] if isinstance(title, str) else None


def _annotations(tool: BaseTool) -> dict[str, bool]:
    """What the tool's `extras` say of what a call does, by MCP's names:
    https://modelcontextprotocol.io/specification/2026-07-28/schema#toolannotations"""
    said = (tool.extras or {}).get("annotations")
    found = {key: one for key, one in said.items() if isinstance(one, bool)} if isinstance(said, dict) else {}
    hints = {key: one for key, one in found.items() if key in HINTS}
    return {"idempotentHint": True, **hints} if is_idempotent(tool) else hints


def held(value: Any) -> Sequence[Any]:
    """The values of a global name: the members of a list or tuple, or the value itself."""
    return value if isinstance(value, list | tuple) else [value]


def _hash(code: LoadedCode, module: str) -> str:
    return hashlib.sha256(code.path(module).read_bytes()).hexdigest()


def problems_of(code: LoadedCode, name: Any, tool: Any, load_tools: Callable[..., Any]) -> list[ErrorReport]:
    """A report for each mistake in a tool."""
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
    if tool.name == FIND_TOOLS:
        errors.append(
            _mistake(
                code, at, f"{FIND_TOOLS} is the name of the tool that finds the tools a model is not shown; rename it"
            )
        )
    if not tool.description.strip():
        errors.append(_mistake(code, at, f"the tool {tool.name!r} needs a description: the model chooses by it"))
    errors += [
        _mistake(
            code,
            at,
            f"the argument {argument!r} of {tool.name!r} is marked as injected, and here only a call's id and a "
            "ToolRuntime are injected. Give it a default, or let the tool find the value itself",
        )
        for argument in injected(tool).missing
    ]
    try:
        resources(tool)
    except ValueError as error:
        errors.append(_mistake(code, at, f"the extras of {tool.name!r}: {error}"))
    try:
        schema = arguments_schema(tool)
        text = encode(schema)
    except Exception as error:  # boundary: a schema is made by the tool's own types
        report = code.files.describe(error)
        message = f"no JSON schema can be made of the arguments of {tool.name!r}: {report['message']}"
        errors.append({**_mistake(code, at, message), "traceback": report["traceback"]})
    else:
        if (reason := _why_no_grammar(text)) is not None:
            message = f"the model can't be held to the JSON schema of the arguments of {tool.name!r}: {reason}"
            errors.append(_mistake(code, at, message))
    return errors


@lru_cache(maxsize=2_000)
def _why_no_grammar(schema: str) -> str | None:
    """Why a schema (JSON) has no grammar; None if it has one. The grammar may leave some conditions to the tool."""
    from llguidance import LLMatcher

    try:
        said = grammar_schema(decode(schema))
    except UnusableSchemaError as error:
        return str(error)
    began = thread_time()
    # In this process, which may die: people's code may have replaced what starting another one needs.
    reason = str(LLMatcher.validate_grammar(f"start: %json {encode({**said, 'x-guidance': {'lenient': True}})}"))
    if not reason and thread_time() - began > COMPILE_SECONDS:
        return too_costly_to_compile().message
    return reason.partition("\n")[0] or None


def _function(tool: BaseTool) -> Callable[..., Any]:
    """The tool's own function, which a call of the tool executes."""
    function = getattr(tool, "func", None) or getattr(tool, "coroutine", None) or type(tool)._run
    return function if inspect.isfunction(inspect.unwrap(function)) else type(tool)._run


def _mistake(code: LoadedCode, at: Callable[..., Any], message: str) -> ErrorReport:
    function = getattr(inspect.unwrap(at), "__code__", None)
    file = code.files.name(function.co_filename) if function else None
    return problem(file, function.co_firstlineno if function and file else None, "InvalidToolsError", message)
