"""What the server says about itself, with a handshake and without one."""

from mcp_types import (
    DiscoverResult,
    EmptyResult,
    InitializeResult,
    Result,
    ServerCapabilities,
    ToolsCapability,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS

from server.http.mcp.messages import SERVER_INFO, Request

_CAPABILITIES = ServerCapabilities(tools=ToolsCapability(list_changed=False))
"""Clients list the tools again when they want to: a server without sessions can't tell them of a reload."""


def description(request: Request, workspace: str) -> Result:
    """The result of `initialize`, `server/discover` or `ping`. A client that asks for an unknown version is offered
    the latest one with a handshake."""
    instructions = (
        f"The tools of the workspace {workspace} of a Hearth server. Its people change them: list them again."
    )
    match request.method:
        case "initialize":
            wanted = request.params.get("protocolVersion")
            is_known = wanted in HANDSHAKE_PROTOCOL_VERSIONS
            return InitializeResult(
                protocol_version=str(wanted) if is_known else LATEST_HANDSHAKE_VERSION,
                capabilities=_CAPABILITIES,
                server_info=SERVER_INFO,
                instructions=instructions,
            )
        case "server/discover":
            return DiscoverResult(
                supported_versions=[*MODERN_PROTOCOL_VERSIONS, *HANDSHAKE_PROTOCOL_VERSIONS],
                capabilities=_CAPABILITIES,
                instructions=instructions,
            )
    return EmptyResult()
