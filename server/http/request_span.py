"""A span for each request; see `server.observability.tracing`."""

from contextlib import ExitStack

from flask import Flask, Response, g, request

from server.observability import semantic_conventions as names
from server.observability import tracing
from server.observability.logs import request_id
from server.sdk import context

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
OTHER_METHOD = "_OTHER"
FREQUENT = ("/health", "/metrics")
"""Monitoring calls them every few seconds."""


def register(app: Flask) -> None:
    """Give every request a span, which ends with its response. Nothing if spans are off."""
    if not tracing.is_on():
        return

    def begin() -> None:
        g.span_scope = ExitStack()
        if request.path in FREQUENT:
            return
        method = request.method if request.method in METHODS else OTHER_METHOD
        # Without the query, which may contain the token.
        attributes = {names.METHOD: method, names.PATH: request.path, names.SCHEME: request.scheme}
        attributes[names.REQUEST] = request_id.get()
        if request.url_rule is not None:
            attributes[names.ROUTE] = request.url_rule.rule
        g.span = tracing.serve(f"{method} {attributes.get(names.ROUTE, '')}".strip(), attributes, _carried())
        g.span_scope.enter_context(context.scope(span=g.span))

    def end(response: Response) -> Response:
        made = g.pop("span", None)
        if made is None:
            return response
        tracing.put(made, {names.STATUS: response.status_code})
        if response.status_code >= 500:
            tracing.fail(made, str(response.status_code))
        # The server sends a file without the response's own end.
        if response.is_streamed and not response.direct_passthrough:
            response.call_on_close(lambda: tracing.end(made))
        else:
            tracing.end(made)
        return response

    def leave(error: BaseException | None) -> None:
        if (scope := g.pop("span_scope", None)) is not None:
            scope.close()
        tracing.end(g.pop("span", None))  # there was no response

    app.before_request(begin)
    app.after_request(end)
    app.teardown_request(leave)


def _carried() -> dict[str, str]:
    """The request's headers that name the span of its client."""
    return {name: request.headers[name] for name in ("traceparent", "tracestate") if name in request.headers}
