"""Errors in the shape of Anthropic's API: https://docs.anthropic.com/en/api/errors"""

from typing import Any

from server.errors import HearthError, InvalidRequestError
from server.http.openai.errors import param, retry_headers
from server.observability.logs import request_id

REQUEST_ID = "request-id"
"""The header in which Anthropic's clients look for the id of a request."""
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    499: "api_error",
    503: "overloaded_error",
}
"""By status. Others are an `api_error` from 500 on, else an `invalid_request_error`."""


def shape(error: HearthError) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The JSON, the status and the headers of an error. An invalid request is 400 here, as in Anthropic's API."""
    status = 400 if error.status == InvalidRequestError.status else error.status
    headers = {**retry_headers(error), REQUEST_ID: request_id.get()}
    return body(error, request_id.get()), status, headers


def body(error: HearthError, asked: str) -> dict[str, Any]:
    """The JSON of an error. `asked`: the id of the request."""
    kind = TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    place = param(error)
    message = error.message if place is None or place in error.message else f"{place}: {error.message}"
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": asked}
