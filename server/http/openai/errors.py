"""Errors in the shape of OpenAI's API."""

from collections.abc import Sequence
from typing import Any

from flask import has_request_context, request

from server.errors import (
    AgentNotFoundError,
    HearthError,
    InvalidRequestError,
    PromptTooLongError,
    QuotaReachedError,
    UnauthorizedError,
    UnknownModelError,
)
from server.http.multipart import is_form

QUOTA = "insufficient_quota"
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""By status. Others are a `server_error` from 500 on, else an `invalid_request_error`."""
CODES = {
    AgentNotFoundError.code: UnknownModelError.code,
    PromptTooLongError.code: "context_length_exceeded",
    UnauthorizedError.code: "invalid_api_key",
    QuotaReachedError.code: QUOTA,
}
"""Errors for which OpenAI has a code that clients look for."""
NOT_RETRYABLE = (408, 500, 502)
"""Statuses that are not retryable: the tools have already run. OpenAI's clients would retry twice."""


def shape(error: HearthError) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The JSON, the status and the headers of an error. An invalid request is 400 here, as in OpenAI's API."""
    status = 400 if error.status == InvalidRequestError.status else error.status
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = CODES.get(error.code, error.code)
    shown = {"message": error.message, "type": QUOTA if code == QUOTA else kind, "param": param(error), "code": code}
    return {"error": shown}, status, retry_headers(error)


def retry_headers(error: HearthError) -> dict[str, str]:
    """The header by which the clients of OpenAI and of Anthropic know that a request is not to be repeated."""
    # Of a quota that is used up, clients would wait for minutes before they say so.
    never = error.status in NOT_RETRYABLE or error.code == QuotaReachedError.code
    return {"x-should-retry": "false"} if never else {}


def param(error: HearthError) -> str | None:
    """The part of the request that an error is about, like `messages[0].content`."""
    details = error.details.get("details")
    if not details or not details[0]["loc"]:
        return "model" if error.code in (AgentNotFoundError.code, UnknownModelError.code) else None
    first, *rest = _in_body(details[0]["loc"])
    return str(first) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest)


def _in_body(loc: Sequence[str | int]) -> Sequence[str | int]:
    """A place as the request's body has it: without the names that pydantic gives to the alternatives of a type, and
    without what was made of the body first."""
    if not has_request_context() or is_form(request):
        return loc
    value: Any = request.get_json()
    found = []
    for number, part in enumerate(loc):
        is_there = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        if is_there:
            value = value[part]
        if is_there or (isinstance(value, dict) and isinstance(part, str) and number == len(loc) - 1):
            # Also what is missing.
            found.append(part)
    return found or loc


def invalid(message: str, *loc: str | int) -> InvalidRequestError:
    """An error about the part of a request at `loc`."""
    return InvalidRequestError(message, details=[{"type": "value_error", "loc": list(loc), "msg": message}])
