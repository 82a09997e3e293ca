"""`POST /load_tools` and `/tools`: the tools of a workspace, calls of one, and how they have fared."""

from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.schemas import ErrorAnswer, WorkspaceChoice, WorkspaceQuery
from server.http.sse import client_gone
from server.http.tool_schemas import StatisticsQuery, ToolCall, ToolCallShown, ToolPath, ToolsLoaded, ToolsUsed
from server.jobs.job import Job
from server.jobs.trial import try_tool
from server.reload import Workspace
from server.runs.tool_statistics import tool_statistics


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

    @routes.post(
        "/tools/<tool>/call",
        summary="Call a tool in a process of its own, and wait for its result; no run is recorded",
        responses={200: ToolCallShown, **dict.fromkeys((404, 409, 422, 429, 499, 503), ErrorAnswer)},
    )
    @access("code", "workspace")
    def call(path: ToolPath, body: ToolCall) -> dict[str, Any]:
        space = host.workspaces.get(body.workspace)
        owner = caller().owner_in(space.name)
        host.quotas.check_tokens(owner, host.quotas.limits_of(owner))
        wanted = None if body.generation is None else host.generations.find(body.generation)
        if wanted is None:
            with space.pin() as live:
                wanted = live.hash
        job = Job(
            id="trial",
            workspace=space.name,
            owner=owner,
            generation=wanted,
            tool=path.tool,
            input=body.input,
            timeout=host.settings.TOOL_TIMEOUT,
        )
        with slow_requests.acquire():
            called = try_tool(job, caller().key, host.workspaces, host.runs.queue, client_gone(), host.quotas.count)
        return {"tool": path.tool, "workspace": space.name, "generation": wanted, **asdict(called)}

    @routes.get(
        "/tools/statistics",
        summary="Calls, failures and times of each tool, by generation",
        responses={200: ToolsUsed, 404: ErrorAnswer},
    )
    @access("read", "workspace")
    def statistics(query: StatisticsQuery) -> dict[str, Any]:
        space = host.workspaces.get(query.workspace)
        return {
            "workspace": space.name,
            "statistics": tool_statistics(host.traces.store.lines_of_runs(space.name, query.limit)),
        }

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
