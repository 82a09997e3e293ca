"""`POST /load_tools` and `GET /tools`."""

from http import HTTPStatus
from typing import Any

from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.access import access
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.schemas import ErrorAnswer, ToolsLoaded, WorkspaceChoice, WorkspaceQuery
from server.reload import Workspace


def blueprint(host: Host, slow_requests: ConcurrencyLimit) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("tools", __name__)
    responses: dict[int | str | HTTPStatus, Any] = {
        200: ToolsLoaded,
        404: ErrorAnswer,
        409: ErrorAnswer,
        422: ErrorAnswer,
    }

    @routes.post("/load_tools", summary="Build the tools if they aren't built, and list them", responses=responses)
    @access("ask", "workspace")
    def load_tools(body: WorkspaceChoice) -> dict[str, Any]:
        with slow_requests.acquire():
            host.code_loader.load_tools(body.workspace)
        return _list(host.workspaces.get(body.workspace))

    @routes.get("/tools", summary="List the tools", responses=responses)
    @access("read", "workspace")
    def tools(query: WorkspaceQuery) -> dict[str, Any]:
        return _list(host.workspaces.get(query.workspace))

    return routes


def _list(workspace: Workspace) -> dict[str, Any]:
    with workspace.pin() as generation:
        return {
            "workspace": workspace.name,
            "generation": generation.hash,
            "tools": [
                {
                    "name": tool.name,
                    "description": tool.description,
                    "args_schema": tool.args_schema,
                    "background": tool.is_background,
                }
                for tool in (generation.tools or {}).values()
            ],
            "absent": generation.absent,
        }
