"""`tools/call`: the answer as JSON, or after the first notification as a stream of messages."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response, jsonify

from server.errors import HearthError, RunCancelledError, WorkerCrashedError
from server.http.auth import still_allowed
from server.http.mcp import errors
from server.http.mcp.messages import Request, answer, notification
from server.http.sse import LOOK_SECONDS, PING, PING_SECONDS, ServerSentEvent, client_gone, event_stream, revoked
from server.jobs.live_call import LiveCall
from server.sdk.tool_content import ToolContent
from server.sdk.tool_error import ToolFailedError


def respond(request: Request, call: LiveCall, streams: bool) -> Response:
    """The answer to `tools/call`, whose call was started. `streams`: whether the client reads events. A stream begins
    with the first notification, or when there was none for `PING_SECONDS`: an answer before that has its own status.

    If the client disconnects, the call is cancelled. Raises `RunCancelledError`, and what `LiveCall.result` raises.
    """
    gone, allowed, until = client_gone(), still_allowed(), time.monotonic() + PING_SECONDS
    notifications = _notifications(request, call)
    first: list[ServerSentEvent] = []
    for one in notifications:
        if gone() or not allowed():
            call.stop("its client has left, or may not call it any more")
            # Nobody reads the answer to a client that has left; raising frees the thread.
            raise RunCancelledError("The client has closed the connection.") if gone() else revoked()
        if streams and one is not None:
            first = [_event(one)]
            break
        if streams and time.monotonic() > until:
            first = [PING]
            break
    else:
        return jsonify(_result(request, call))

    def batches(begun: Callable[[], bool]) -> Iterator[list[ServerSentEvent]]:
        yield first
        for one in notifications:
            yield [] if one is None else [_event(one)]
        try:
            yield [_event(_result(request, call))]
        except HearthError as error:
            yield [_event(errors.message(error, request.id))]

    return event_stream(batches, when_left=lambda: call.stop("its client has left"))


def _notifications(request: Request, call: LiveCall) -> Iterator[dict[str, Any] | None]:
    """The notifications of progress that the client wants, until the call has ended. None: nothing to send now."""
    token, last = request.progress_token, -math.inf
    for report in call.reports(LOOK_SECONDS):
        # Each has to be more than the one before.
        if report is None or token is None or report.done <= last:
            yield None
            continue
        last = report.done
        shown = {"total": report.total, "message": report.message or None}
        shown = {name: value for name, value in shown.items() if value is not None}
        yield notification("notifications/progress", {"progressToken": token, "progress": last, **shown})


def _result(request: Request, call: LiveCall) -> dict[str, Any]:
    """The answer to a call that has ended. That the tool failed is a result too, which a model may read."""
    try:
        content, failed = call.result(), False
    except (ToolFailedError, WorkerCrashedError) as error:
        text = error.message if isinstance(error, WorkerCrashedError) else str(error)
        content, failed = ToolContent([{"type": "text", "text": text}]), True
    result: dict[str, Any] = {"content": content.blocks, "isError": failed}
    if content.structured is not None:
        result["structuredContent"] = content.structured
    return answer(request, result)


def _event(message: dict[str, Any]) -> ServerSentEvent:
    return None, "message", message
