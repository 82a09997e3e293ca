"""The one handler that answers every error with its JSON shape."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from server.errors import HearthError, NotFoundError, as_hearth_error

Shape = Callable[[HearthError], tuple[dict[str, Any], int, dict[str, str]]]
"""The JSON, the status and the headers of an error response."""


def register(app: Flask, shapes: Mapping[str, Shape]) -> None:
    """Answer every error of `app` in the same JSON shape. `shapes`: other shapes, by the prefix of the path;
    the first one that fits counts."""

    def answer(error: Exception) -> Response:
        shape = next((shape for prefix, shape in shapes.items() if request.path.startswith(prefix)), _own_shape)
        return _answer(error, shape)

    app.register_error_handler(Exception, answer)


def _own_shape(error: HearthError) -> tuple[dict[str, Any], int, dict[str, str]]:
    return error.to_dict(), error.status, {}


def _answer(error: Exception, shape: Shape) -> Response:
    shown = _from_http(error) if isinstance(error, HTTPException) else as_hearth_error(error)
    body, status, headers = shape(shown)
    if isinstance(error, HTTPException):
        headers |= {name: value for name, value in error.get_headers() if name == "Allow"}
    if "retry_after" in shown.details:
        headers["Retry-After"] = str(shown.details["retry_after"])
    if shown.details.get("etag"):
        headers["ETag"] = shown.details["etag"]
    response = jsonify(body)
    response.status_code = status
    response.headers.update(headers)
    return response


def _from_http(error: HTTPException) -> HearthError:
    """An error that Flask raises itself: an unknown route, or a method that a route does not have."""
    if error.code == NotFoundError.status:
        return NotFoundError(f"There is no route {request.path}. GET /openapi.json lists all routes.")
    shown = HearthError(error.description or error.name)
    # On the instance, since a class for each status would say nothing more.
    shown.status = error.code or 500  # type: ignore[misc]
    shown.code = error.name.lower().replace(" ", "_")  # type: ignore[misc]
    return shown
