"""The tools of MCP servers as tools of the workspace."""

import contextvars
import re
import unicodedata
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypedDict

from langchain_core.tools import BaseTool, ToolException
from mcp.shared.dispatcher import ProgressFnT
from mcp_types import CallToolResult, Tool
from pydantic import PrivateAttr

from server.bounds import shortened
from server.sdk import progress as report
from server.sdk.tool_result import as_text
from server.sdk.untrusted import FromOutside, marked
from server.workers.inside.mcp.bounds import LONGEST_DESCRIPTION, LONGEST_FAILURE, LONGEST_NAME, LONGEST_SCHEMA
from server.workers.inside.mcp.connection import McpRefusalError, McpServerError
from server.workers.messages import encode

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")

Call = Callable[[str, str, dict[str, Any], ProgressFnT], Awaitable[CallToolResult]]
"""Calls a tool, named by its server and its name there, with arguments."""


class ListedTool(TypedDict):
    """A tool of a server, as the server's process keeps it for later workers of the generation."""

    server: str
    tool: str
    name: str
    title: str | None
    description: str
    args_schema: dict[str, Any]
    annotations: dict[str, Any]


class UnusableToolError(Exception):
    """A server offers a tool that can't be one here. The message is a sentence."""


def listed(server: str, tool: Tool) -> ListedTool:
    """A tool as a server describes it. Raises `UnusableToolError`."""
    name = f"{server}_{_NOT_IN_NAMES.sub('_', tool.name)}"
    if len(name) > LONGEST_NAME:
        raise UnusableToolError(f"the name of the tool {tool.name[:40]!r}... has more than {LONGEST_NAME} characters")
    try:
        size = len(encode(tool.input_schema))
    except (ValueError, RecursionError):
        raise UnusableToolError(f"the schema of {tool.name!r} is too deep") from None
    if size > LONGEST_SCHEMA:
        raise UnusableToolError(f"the schema of {tool.name!r} has more than {LONGEST_SCHEMA} characters")
    title = tool.title or (tool.annotations.title if tool.annotations is not None else None)
    description = _plain(tool.description or "") or _plain(title or "") or f"The tool {tool.name} of {server}."
    return ListedTool(
        server=server,
        tool=tool.name,
        name=name,
        title=_plain(title)[:200] if title else None,
        description=shortened(description, LONGEST_DESCRIPTION),
        args_schema=tool.input_schema,
        annotations=(
            tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations is not None else {}
        ),
    )


class McpTool(BaseTool):
    """A tool that an MCP server runs. What it gives is text from outside."""

    args_schema: dict[str, Any]
    _call: Call = PrivateAttr()
    _server: str = PrivateAttr()
    _tool: str = PrivateAttr()

    def __init__(self, of: ListedTool, call: Call) -> None:
        extras = {"title": of["title"], "annotations": of["annotations"]}
        super().__init__(name=of["name"], description=of["description"], args_schema=of["args_schema"], extras=extras)
        self._call, self._server, self._tool = call, of["server"], of["tool"]

    def _run(self, /, **arguments: Any) -> Any:
        raise NotImplementedError("it is asynchronous")

    async def _arun(self, /, **arguments: Any) -> Any:
        within = contextvars.copy_context()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            # A server may send infinity and the like, which is no progress.
            with suppress(ValueError):
                within.copy().run(report, progress, total, message or "")

        source = f"the MCP server {self._server}"
        try:
            result = await self._call(self._server, self._tool, arguments, on_progress)
        except McpRefusalError as error:
            raise ToolException(marked(str(error), f"{source}, which failed,")) from None
        except McpServerError as error:
            raise ToolException(f"The MCP server {self._server} failed: {error}.") from None
        if result.is_error:
            said = shortened(as_text(result), LONGEST_FAILURE) or "the tool failed without a reason"
            raise ToolException(marked(said, f"{source}, whose tool failed,"))
        return FromOutside(result, source)


def _plain(text: str) -> str:
    """`text` without control characters and halves of surrogate pairs; line breaks and tabs stay."""
    return "".join(one for one in text if one in "\n\t" or unicodedata.category(one) not in ("Cc", "Cs")).strip()
