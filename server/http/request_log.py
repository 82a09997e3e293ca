"""A request's id, and its line in the log."""

import logging
import secrets
import time
from urllib.parse import quote

from flask import Flask, Response, g, request

from server.observability.logs import request_id

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Give every request an id, which the log's lines and the answer's `X-Request-Id` have."""

    def begin() -> None:
        request_id.set(secrets.token_hex(4))
        g.arrived = time.perf_counter()

    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = request_id.get()
        # /health is asked every few seconds by whatever watches the server.
        level = logging.DEBUG if request.path == "/health" else logging.INFO
        # The path alone, since a query may hold the token; quoted, since a path may hold a line's end.
        path, milliseconds = quote(request.path), (time.perf_counter() - g.arrived) * 1000
        log.log(level, "%s %s %d, %.0f ms", request.method, path, response.status_code, milliseconds)
        return response

    app.before_request(begin)
    app.after_request(end)
