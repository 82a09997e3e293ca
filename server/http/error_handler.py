"""The one handler that answers every error with its JSON shape."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from server.errors import HearthError, NotFoundError, known

Shape = Callable[[HearthError], tuple[dict[str, Any], int, dict[str, str]]]
"""Gives the JSON, the status and the headers with which an error is answered."""


def register(app: Flask, shapes: Mapping[str, Shape]) -> None:
    """Answer every error of `app` with the one JSON shape, or as `shapes` has it for the beginning of the path."""

    def answer(error: Exception) -> Response:
        shape = next((shape for prefix, shape in shapes.items() if request.path.startswith(prefix)), _own_shape)
        return _answer(error, shape)

    app.register_error_handler(Exception, answer)


def _own_shape(error: HearthError) -> tuple[dict[str, Any], int, dict[str, str]]:
    return error.to_dict(), error.status, {}


def _answer(error: Exception, shape: Shape) -> Response:
    told = _from_http(error) if isinstance(error, HTTPException) else known(error)
    body, status, headers = shape(told)
    if isinstance(error, HTTPException):
        headers |= {name: value for name, value in error.get_headers() if name == "Allow"}
    if "retry_after" in told.details:
        headers["Retry-After"] = str(told.details["retry_after"])
    response = jsonify(body)
    response.status_code = status
    response.headers.update(headers)
    return response


def _from_http(error: HTTPException) -> HearthError:
    """What Flask raises by itself: an unknown route, a method that a route does not take."""
    if error.code == NotFoundError.status:
        return NotFoundError(f"There is no route {request.path}. GET /openapi.json lists those that there are.")
    told = HearthError(error.description or error.name)
    # On the instance: there is a class for each status, and little to say about most of them.
    told.status = error.code or 500  # type: ignore[misc]
    told.code = error.name.lower().replace(" ", "_")  # type: ignore[misc]
    return told
