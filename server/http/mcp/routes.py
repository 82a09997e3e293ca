"""`POST /mcp`: one message of an MCP client, and its answer."""

import re
import secrets
from contextlib import ExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.mcp.in_flight import CallsInFlight
from server.http.schemas import WorkspaceQuery
from server.http.sse import EVENT_STREAM
from server.jobs.live_call import LiveCall
from server.reload import Workspace

if TYPE_CHECKING:
    from server.http.mcp.messages import Notification, Request

PATH = "/mcp"
SESSION = "Mcp-Session-Id"
CANCELLED = "notifications/cancelled"

_SESSION_ID = re.compile(r"[\x21-\x7e]{1,128}")
_MESSAGE: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}


def blueprint(host: Host, slow_requests: ConcurrencyLimit) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("mcp", __name__)
    calls = CallsInFlight()
    responses: dict[int | str | HTTPStatus, Any] = {
        status: {"content": _MESSAGE} for status in (400, 401, 403, 404, 409, 413, 422, 429, 503)
    }
    responses[200] = {"content": {**_MESSAGE, EVENT_STREAM: {"schema": {"type": "string"}}}}

    @routes.post(
        PATH,
        summary="The workspace's tools for an MCP client: a message by the Model Context Protocol, and its answer",
        responses=responses,
    )
    @access("code", "workspace")
    def receive(query: WorkspaceQuery) -> Response:
        from server.http.mcp import messages

        space = host.workspaces.get(query.workspace)
        message = messages.read(request)
        if isinstance(message, messages.Notification):
            return notified(message, space)
        match message.method:
            case "tools/list":
                return listed(message, space)
            case "tools/call":
                return called(message, space)
            case "initialize" | "server/discover" | "ping":
                return described(message, space)
        messages.refuse_method(message)

    def notified(message: "Notification", space: Workspace) -> Response:
        cancelled, session = message.params.get("requestId"), _session()
        if message.method == CANCELLED and session is not None and isinstance(cancelled, str | int):
            calls.cancel((caller().name, space.name, session, cancelled))
        return Response(status=HTTPStatus.ACCEPTED)

    def described(message: "Request", space: Workspace) -> Response:
        from server.http.mcp.about import description
        from server.http.mcp.messages import answer

        response = jsonify(answer(message, description(message, space.name)))
        if message.method == "initialize":
            response.headers[SESSION] = secrets.token_urlsafe(24)
        return response

    def listed(message: "Request", space: Workspace) -> Response:
        from server.http.mcp.messages import answer
        from server.http.mcp.tools import tools_page

        load(space)
        with space.pin() as generation:
            return jsonify(answer(message, tools_page(message, generation)))

    def called(message: "Request", space: Workspace) -> Response:
        from server.http.mcp.calls import respond

        load(space)
        owner = caller().owner_in(space.name)
        host.quotas.check_tokens(owner, host.quotas.limits_of(owner))
        held = ExitStack()
        held.enter_context(slow_requests.acquire())
        try:
            name, given = message.params["name"], message.params.get("arguments") or {}
            call = LiveCall(
                space, name, given, host.settings.TOOL_TIMEOUT, owner, caller().key, host.runs.queue, held.close
            )
            held.callback(lambda: host.quotas.count(call.used))
            if not message.is_current and (session := _session()) is not None:
                held.enter_context(calls.known((caller().name, space.name, session, message.id), call))
            call.start()
        except BaseException:
            held.close()
            raise
        return respond(message, call, _reads_events())

    def load(space: Workspace) -> None:
        """Build the tools if they are not built. Raises what `CodeLoader.load_tools` raises."""
        if space.live is None or space.live.tools is None:
            with slow_requests.acquire():
                host.code_loader.load_tools(space.name)

    return routes


def _session() -> str | None:
    """The session that the client has from `initialize`. It is not saved here, and only tells clients apart."""
    given = request.headers.get(SESSION, "")
    return given if _SESSION_ID.fullmatch(given) else None


def _reads_events() -> bool:
    return any(kind.lower() == EVENT_STREAM for kind, _ in request.accept_mimetypes)
