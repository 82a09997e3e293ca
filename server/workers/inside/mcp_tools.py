"""The tools that a generation has from MCP servers. Without an `mcp.json` this imports nothing."""

import importlib.util
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from langchain_core.tools import BaseTool

from server.sdk.tool_absent import AbsentTool
from server.workers.inside.loading import LoadedCode
from server.workers.inside.toolset import problems_of
from server.workers.messages import encode

if TYPE_CHECKING:
    from server.workers.inside.mcp.servers import McpServers
    from server.workers.inside.mcp.tools import ListedTool

FILE = "server/mcp.json"
LONGEST_LIST = 2 * 1024 * 1024
"""Characters of all tools of all servers as JSON. They go to the server's process in one message."""
MISSING = (
    "the tools of mcp.json need the package mcp. pip install -r requirements-mcp.txt installs it; then restart the "
    "server and reload"
)
MOST_ABSENT = 500


class McpTools:
    """Beside the tools of the generation's own code."""

    def __init__(self, code: LoadedCode, own: Mapping[str, BaseTool]) -> None:
        """`own`: the code's own tools."""
        self.tools: dict[str, BaseTool] = {}
        self.listed: list[dict[str, Any]] = []
        """The tools as the server's process keeps them for later workers of the generation."""
        self.absent: list[AbsentTool] = []
        self.imports: list[str] = []
        """What later workers need besides what the code imports."""
        self._code = code
        self._own = own

    @property
    def warnings(self) -> list[dict[str, str]]:
        """For a reload's answer: what is absent, and why."""
        return [{"file": FILE, "message": one.reason} for one in self.absent]

    def find(self, seconds: float) -> None:
        """Ask the servers for their tools, for at most so many `seconds`, and check these for half that time. What
        can't be had is `absent`: a server that somebody else runs must not prevent a reload. Raises `LoadError` if
        `mcp.json` is wrong."""
        servers = self._servers()
        if servers is None:
            return
        found, absent = servers.find_tools(seconds)
        self._leave_out(absent)
        deadline, room = time.monotonic() + seconds / 2, LONGEST_LIST
        for one in found:
            tool = self._tool(one, servers)
            room -= len(encode(one))
            reason = self._why_not(tool, room, deadline)
            if reason is not None:
                self._leave_out([(tool.name, f"the MCP server {one['server']!r} of mcp.json: {reason}.")])
                continue
            self.tools[tool.name] = tool
            self.listed.append(dict(one))

    def _why_not(self, tool: BaseTool, room: int, deadline: float) -> str | None:
        """Why a tool is left out; None: it is not."""
        if tool.name in self._own:
            return f"the workspace has a tool {tool.name!r} of its own"
        if room < 0:
            return f"there is no room for {tool.name!r}: the tools of all servers have {LONGEST_LIST:,} characters"
        if time.monotonic() > deadline:
            return f"there was no time to check {tool.name!r}"
        mistakes = problems_of(self._code, tool.name, tool, type(tool)._run)
        return mistakes[0]["message"] if mistakes else None

    def take(self, listed: Sequence[Mapping[str, Any]]) -> None:
        """Have the tools that were found in another worker of this generation. Servers are reached with the first
        call."""
        servers = self._servers() if listed else None
        if servers is not None:
            for one in listed:
                self.tools[one["name"]] = self._tool(cast("ListedTool", one), servers)

    def _servers(self) -> "McpServers | None":
        """None if there is no `mcp.json`, or no package for it."""
        file = self._code.folder / "mcp.json"
        if not file.is_file():
            return None
        if importlib.util.find_spec("mcp") is None:
            self._leave_out([("mcp.json", MISSING)])
            return None
        from server.workers.inside.mcp.servers import McpServers

        self.imports = ["mcp"]
        return McpServers(file)

    @staticmethod
    def _tool(one: "ListedTool", servers: "McpServers") -> BaseTool:
        from server.workers.inside.mcp.tools import McpTool

        return McpTool(one, servers.call)

    def _leave_out(self, absent: Sequence[tuple[str, str]]) -> None:
        room = MOST_ABSENT - len(self.absent)
        self.absent += [AbsentTool(name[:100], reason[:500]) for name, reason in absent[:room]]
