"""`mcp.json`: the MCP servers of a workspace, in the form that MCP clients have for them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, ValidationError

from server.workers.failure import LoadError, problem

FILE = "server/mcp.json"
"""As people know it."""
LONGEST_FILE = 256 * 1024
MOST_SERVERS = 50
SHORTEST_SECRET = 4
"""Characters. Shorter values, such as a port, are in many texts."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class UrlServer(_Strict):
    """A server behind a URL, by the streamable HTTP transport."""

    url: Annotated[str, Field(min_length=1)]
    headers: dict[str, str] = {}
    type: Literal["http", "streamable-http"] = "http"


class CommandServer(_Strict):
    """A program that is started, and speaks over its standard input and output."""

    command: Annotated[str, Field(min_length=1)]
    args: list[str] = []
    env: dict[str, str] = {}
    type: Literal["stdio"] = "stdio"


def _kind(value: Any) -> str:
    return "url" if isinstance(value, Mapping) and "url" in value else "command"


McpServer = Annotated[
    Annotated[UrlServer, Tag("url")] | Annotated[CommandServer, Tag("command")], Discriminator(_kind)
]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,50}$")]


class _File(_Strict):
    mcpServers: Annotated[dict[Name, McpServer], Field(max_length=MOST_SERVERS)]


class UnsetVariableError(Exception):
    """A `${NAME}` names an environment variable that the worker does not have. The message is a sentence."""


class Expansion:
    """Puts environment variables in the place of `${NAME}`, and hides their values in texts that people read."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._used: dict[str, str] = {}

    def expand(self, text: str) -> str:
        """Raises `UnsetVariableError`."""

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name not in self._environment:
                raise UnsetVariableError(
                    f"the environment variable {name} is not set in the worker. Set it where the server starts"
                )
            self._used[name] = self._environment[name]
            return self._environment[name]

        return _VARIABLE.sub(value, text)

    def hide(self, text: str) -> str:
        """`text` with `${NAME}` in the place of each value that was put in."""
        for name, value in sorted(self._used.items(), key=lambda one: -len(one[1])):
            if len(value) >= SHORTEST_SECRET:
                text = text.replace(value, f"${{{name}}}")
        return text


def read(file: Path) -> dict[str, UrlServer | CommandServer]:
    """The servers by their names. Raises `LoadError` that says what is wrong in the file."""
    data = file.read_bytes()
    if len(data) > LONGEST_FILE:
        raise LoadError([problem(FILE, None, "InvalidMcpFileError", f"it has more than {LONGEST_FILE} bytes")])
    try:
        return dict(_File.model_validate_json(data).mcpServers)
    except ValidationError as error:
        raise LoadError([_report(one) for one in error.errors(include_url=False, include_input=False)[:20]]) from None


def _report(error: Any) -> Any:
    place = ".".join(str(part) for part in error["loc"] if part not in ("url", "command") or part == error["loc"][-1])
    message = f"{place}: {error['msg']}" if place else error["msg"]
    return problem(
        FILE,
        None,
        "InvalidMcpFileError",
        f'{message}. It has the form {{"mcpServers": {{"name": {{"url": ..., "headers": ...}} or '
        '{"command": ..., "args": ..., "env": ...}}}',
    )
