"""The request log: an id for each request, and a line for each response."""

import logging
import secrets
import time
from urllib.parse import quote

from flask import Flask, Response, g, request

from server.observability.logs import request_id

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Give every request an id, for its log lines and for the header `X-Request-Id` of its response."""

    def begin() -> None:
        request_id.set(secrets.token_hex(4))
        g.arrived = time.perf_counter()

    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = request_id.get()
        # Monitoring calls /health every few seconds.
        level = logging.DEBUG if request.path == "/health" else logging.INFO
        # Without the query, which may contain the token; quoted, because a path may contain a line break.
        path, milliseconds = quote(request.path), (time.perf_counter() - g.arrived) * 1000
        log.log(level, "%s %s %d, %.0f ms", request.method, path, response.status_code, milliseconds)
        return response

    app.before_request(begin)
    app.after_request(end)
