"""All MCP servers of a generation, in its worker: listed while the tools are built, called from then on."""

import asyncio
import atexit
import os
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mcp.shared.dispatcher import ProgressFnT
from mcp_types import CallToolResult, Tool

from server.workers.inside.mcp.config import CommandServer, Expansion, UnsetVariableError, UrlServer, read
from server.workers.inside.mcp.connection import Connection, MakeTransport, McpServerError
from server.workers.inside.mcp.http import http_transport
from server.workers.inside.mcp.stdio import stdio_transport
from server.workers.inside.mcp.tools import ListedTool, UnusableToolError, listed

CLOSE_SECONDS = 3.0
"""Maximum time for the servers to end when the worker ends."""

Absent = tuple[str, str]
"""The name of a server or of a tool that is not there, and why."""


class McpServers:
    """The servers of an `mcp.json`. Their connections share one event loop, on a thread of its own. Safe for any
    number of threads."""

    def __init__(self, file: Path) -> None:
        """Raises `LoadError` for a file that is wrong. Connects to nothing yet."""
        self._folder = file.parent
        self._expansion = Expansion(os.environ)
        self._unset: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._connections: dict[str, Connection] = {}
        for name, server in read(file).items():
            try:
                make = self._transport(name, server)
            except UnsetVariableError as error:
                self._unset[name] = str(error)
                continue
            self._connections[name] = Connection(make, self._expansion.hide)
        threading.Thread(target=self._loop.run_forever, name="MCP servers", daemon=True).start()
        atexit.register(self.close)

    def find_tools(self, seconds: float) -> tuple[list[ListedTool], list[Absent]]:
        """The tools of all servers, and what is absent. Servers that do not answer within `seconds` are absent."""

        async def find_all() -> list[tuple[list[ListedTool], list[Absent]]]:
            return await asyncio.gather(*(self._find(name, seconds) for name in self._connections))

        found = asyncio.run_coroutine_threadsafe(find_all(), self._loop).result()
        absent = [(name, f"{self._named(name)}: {reason}.") for name, reason in self._unset.items()]
        tools: dict[str, ListedTool] = {}
        for some, missing in found:
            absent += missing
            for tool in some:
                if (other := tools.setdefault(tool["name"], tool)) is not tool:
                    reason = f"the tool {tool['tool']!r} has the name of {other['tool']!r} of {other['server']}"
                    absent.append((tool["name"], f"{self._named(tool['server'])}: {reason}."))
        return list(tools.values()), absent

    async def call(
        self, server: str, tool: str, arguments: dict[str, Any], on_progress: ProgressFnT
    ) -> CallToolResult:
        """Call a tool, from any event loop. Raises `McpServerError`."""
        if server not in self._connections:
            raise McpServerError(self._unset.get(server, "mcp.json does not name it"))
        call = self._connections[server].call(tool, arguments, on_progress)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self._loop))

    def close(self) -> None:
        """End all connections, and the servers that were started."""

        async def close_all() -> None:
            await asyncio.gather(*(one.close() for one in self._connections.values()))

        with suppress(TimeoutError):  # the guard kills what is left
            asyncio.run_coroutine_threadsafe(close_all(), self._loop).result(CLOSE_SECONDS)

    async def _find(self, name: str, seconds: float) -> tuple[list[ListedTool], list[Absent]]:
        def read(tool: Tool) -> ListedTool | Absent:
            try:
                return listed(name, tool)
            except UnusableToolError as error:
                return f"{name}_{tool.name}"[:100], f"{self._named(name)}: {error}."

        try:
            found = await asyncio.wait_for(self._connections[name].tools(read), seconds)
        except McpServerError as error:
            return [], [(name, f"{self._named(name)}: {error}.")]
        except TimeoutError:
            await self._connections[name].close()
            return [], [(name, f"{self._named(name)}: it did not list its tools within {seconds:g} seconds.")]
        absent = [one for one in found if isinstance(one, tuple)]
        return [one for one in found if not isinstance(one, tuple)], absent

    def _transport(self, name: str, server: UrlServer | CommandServer) -> MakeTransport:
        """Raises `UnsetVariableError`."""
        expand = self._expansion.expand
        if isinstance(server, UrlServer):
            url, headers = expand(server.url), {key: expand(value) for key, value in server.headers.items()}
            return lambda ended: http_transport(url, headers)
        command = [expand(server.command), *map(expand, server.args)]
        env = {key: expand(value) for key, value in server.env.items()}
        return partial(stdio_transport, name, command, env, self._folder)

    @staticmethod
    def _named(name: str) -> str:
        return f"the MCP server {name!r} of mcp.json"
