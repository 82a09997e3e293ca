"""Errors as OpenAI's clients expect them."""

from typing import Any

from server.errors import (
    AgentNotFoundError,
    HearthError,
    InvalidRequestError,
    PromptTooLongError,
    UnauthorizedError,
    UnknownModelError,
)

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""By status; of the others those from 500 on are a `server_error`, and the rest an `invalid_request_error`."""
CODES = {
    AgentNotFoundError.code: UnknownModelError.code,
    PromptTooLongError.code: "context_length_exceeded",
    UnauthorizedError.code: "invalid_api_key",
}
"""Where OpenAI has a code of its own that clients look for."""
DONE_IN_VAIN = (408, 500, 502)
"""Statuses with which a run ends that has done its work. OpenAI's clients would have it done twice again, with all
that its tools do."""


def shape(error: HearthError) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The JSON, the status and the headers of an error. What is well-formed and yet not what a route takes is 400
    here."""
    status = 400 if error.status == InvalidRequestError.status else error.status
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    told = {"message": error.message, "type": kind, "param": param(error), "code": CODES.get(error.code, error.code)}
    return {"error": told}, status, {"x-should-retry": "false"} if status in DONE_IN_VAIN else {}


def param(error: HearthError) -> str | None:
    """Which part of the request it is about, like `messages[0].content`."""
    details = error.details.get("details")
    if not details or not details[0]["loc"]:
        return "model" if error.code in (AgentNotFoundError.code, UnknownModelError.code) else None
    first, *rest = details[0]["loc"]
    return str(first) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest)


def invalid(message: str, *loc: str | int) -> InvalidRequestError:
    """The part of a request at `loc` is not valid; `message` is a sentence."""
    return InvalidRequestError(message, details=[{"type": "value_error", "loc": list(loc), "msg": message}])
