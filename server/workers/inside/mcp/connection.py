"""The connection to one MCP server: opened with the first call, shared by all, and opened again after its end."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import httpx2
from mcp import MCPError
from mcp.client import Transport
from mcp.client.client import Client
from mcp.shared.dispatcher import ProgressFnT
from mcp_types import CONNECTION_CLOSED, INVALID_REQUEST, CallToolResult, Implementation, Tool

from server import VERSION
from server.workers.inside.mcp.bounds import LONGEST_REASON, MOST_PAGES, MOST_TOOLS
from server.workers.inside.mcp.http import RefusedResponseError

T = TypeVar("T")
MakeTransport = Callable[[Callable[[str], object]], Transport]
"""Makes a transport. It calls its argument with a sentence when the server has ended."""


class McpServerError(Exception):
    """The server can't be reached, has ended, or sent what it may not. The message is a sentence without a name."""


class McpRefusalError(McpServerError):
    """The server has answered with an error. The message has the server's own words."""


class Connection:
    """All of its methods run in one event loop."""

    def __init__(self, make_transport: MakeTransport, hide: Callable[[str], str]) -> None:
        """`hide` replaces what an error's message must not show."""
        self._make_transport = make_transport
        self._hide = hide
        self._opening = asyncio.Lock()
        self._open: _Open | None = None

    async def tools(self, read: Callable[[Tool], T]) -> list[T]:
        """What `read` makes of each of the server's tools, `MOST_TOOLS` at most. Raises `McpServerError`."""
        client, found, cursor = (await self._opened()).client, list[T](), None
        try:
            for _ in range(MOST_PAGES):
                page = await client.list_tools(cursor=cursor, cache_mode="refresh")
                # At once, because hundreds of messages of the largest size would fill the memory.
                found += map(read, page.tools)
                cursor = page.next_cursor
                if cursor is None or len(found) >= MOST_TOOLS:
                    break
        except Exception as error:  # boundary: a server may answer with anything
            raise McpServerError(self._sentence(error)) from None
        return found[:MOST_TOOLS]

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: ProgressFnT) -> CallToolResult:
        """The result of a tool. Cancelling it notifies the server. A call is sent again only where the server has
        refused it because of an older session. Raises `McpRefusalError`, `McpServerError`."""
        for is_last in (False, True):
            opened = await self._opened()
            try:
                return await opened.client.call_tool(tool, arguments, progress_callback=on_progress)
            except MCPError as error:
                # A server that was started again does not know the session.
                is_old = error.code == INVALID_REQUEST and error.message == "Session terminated"
                if is_old or error.code == CONNECTION_CLOSED:
                    reason = await opened.end()
                    if is_old and not is_last:
                        continue
                    raise McpServerError(f"it has ended during the call: {reason or error.message}") from None
                raise McpRefusalError(self._sentence(error)) from None
            except Exception as error:  # boundary: a server may answer with anything
                raise McpServerError(self._sentence(error)) from None
        raise AssertionError("the last one returned or raised")

    async def close(self) -> None:
        """End the connection, and a server that was started for it."""
        if self._open is not None:
            await self._open.end()

    async def _opened(self) -> "_Open":
        """Raises `McpServerError`."""
        async with self._opening:
            if self._open is None or self._open.is_over:
                self._open = await _Open.begin(self._make_transport, self._sentence)
            return self._open

    def _sentence(self, error: BaseException) -> str:
        return self._hide(_first(error))[:LONGEST_REASON]


class _Open:
    """One opening of a connection: a task of its own enters and leaves the client."""

    def __init__(self, sentence: Callable[[BaseException], str]) -> None:
        self._sentence = sentence
        self._leaving = asyncio.Event()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._reason: str | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def begin(cls, make_transport: MakeTransport, sentence: Callable[[BaseException], str]) -> "_Open":
        """Raises `McpServerError`. Cancelling this ends what has begun."""
        opened = cls(sentence)
        opened._task = asyncio.create_task(opened._hold(make_transport))
        try:
            await asyncio.shield(opened._ready)
        except asyncio.CancelledError:
            opened._task.cancel()
            raise
        return opened

    @property
    def client(self) -> Client:
        return self._ready.result()

    @property
    def is_over(self) -> bool:
        return self._leaving.is_set() or self._task is None or self._task.done()

    async def end(self) -> str | None:
        """End it. Returns why it has ended already, if it has."""
        self._leaving.set()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.wait([self._task])
        return self._reason

    def _over(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._leaving.set()

    async def _hold(self, make_transport: MakeTransport) -> None:
        us = Implementation(name="hearth", version=VERSION)
        try:
            async with Client(make_transport(self._over), client_info=us) as client:
                self._ready.set_result(client)
                await self._leaving.wait()
        except BaseException as error:  # boundary: the task's end; the calls that wait for the connection raise it
            if isinstance(error, asyncio.CancelledError):
                raise
            self._over(self._sentence(error))
        finally:
            if not self._ready.done():
                self._ready.set_exception(McpServerError(self._reason or "the connection was closed"))
                self._ready.exception()  # read here too: no call may be waiting any more
            self._leaving.set()


def _first(error: BaseException) -> str:
    """A sentence about an error, of a group the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, RefusedResponseError):
        return str(error)
    if isinstance(error, httpx2.TransportError):
        return f"it can't be reached ({type(error).__name__}: {error})"
    if isinstance(error, MCPError):
        return f"it answered with an error: {error.message}"
    if isinstance(error, OSError):
        return f"it can't be started ({error.strerror or error})"
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
