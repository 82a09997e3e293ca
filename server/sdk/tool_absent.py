"""Tools that a server can't offer: their file says so, and why."""

from dataclasses import dataclass

from server.sdk import context


class ToolAbsentError(Exception):
    """`build_tool` raises it for a tool that this server can't offer, such as one whose key is missing. The tool is
    left out, and `GET /tools` lists it under `absent`, with the reason: a sentence that says what to do."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


@dataclass(frozen=True)
class AbsentTool:
    """A tool that was left out, and why."""

    name: str
    reason: str


def leave_out(absent: ToolAbsentError) -> None:
    """Report a tool that was left out. Does nothing outside of a server."""
    found = context.current().absent_tools
    if found is not None:
        found.append(AbsentTool(str(absent.name)[:100], str(absent.reason)[:500]))
