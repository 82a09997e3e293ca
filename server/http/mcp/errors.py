"""Errors as JSON-RPC has them: https://www.jsonrpc.org/specification#error_object"""

from typing import Any

from flask import g, has_request_context

from server.errors import (
    HearthError,
    InvalidRequestError,
    MalformedRequestError,
    McpRequestError,
    ToolNotFoundError,
)

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS, INTERNAL_ERROR = -32602, -32603
_CODES = {
    MalformedRequestError.code: PARSE_ERROR,
    InvalidRequestError.code: INVALID_REQUEST,
    ToolNotFoundError.code: INVALID_PARAMS,
}


def shape(error: HearthError) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The JSON, the status and the headers of an error in answer to the current request."""
    inside = has_request_context()
    return message(error, g.get("mcp_request_id") if inside else None), _status(error, inside), {}


def message(error: HearthError, request_id: str | int | None) -> dict[str, Any]:
    """An error as the message that answers the request of that id; None: it could not be read. `data` has the error
    as other routes show it."""
    code = error.details.get("jsonrpc_code", _CODES.get(error.code, INTERNAL_ERROR))
    is_own = isinstance(error, McpRequestError)
    data = error.details.get("data") if is_own else {"type": error.code, **error.details}
    shown = {"code": code, "message": error.message}
    return {"jsonrpc": "2.0", "id": request_id, "error": shown if data is None else {**shown, "data": data}}


def _status(error: HearthError, inside: bool) -> int:
    is_about_call = error.details.get("jsonrpc_code") in (METHOD_NOT_FOUND, INVALID_PARAMS)
    if is_about_call or isinstance(error, ToolNotFoundError):
        # Clients of the protocols with a handshake take 404 for the end of their session.
        if inside and g.get("mcp_is_older", False):
            return 200
        return 404 if error.details.get("jsonrpc_code") == METHOD_NOT_FOUND else 400
    return error.status
