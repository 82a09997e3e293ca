"""Messages of MCP clients: JSON-RPC over HTTP, by the current protocol and by those with a handshake.

The current protocol has no sessions: each request says its version and what its client can, in its body and in
headers that must agree: https://modelcontextprotocol.io/specification/2026-07-28/basic/transports#streamable-http
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from flask import Request as FlaskRequest
from flask import g
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    DEFAULT_NEGOTIATED_VERSION,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
    UNSUPPORTED_PROTOCOL_VERSION,
    Implementation,
    Result,
)
from mcp_types.jsonrpc import JSONRPCNotification, JSONRPCRequest
from mcp_types.methods import serialize_server_result, validate_client_request
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from server import VERSION
from server.errors import AgentFailedError, McpRequestError
from server.http.body import read_bytes, read_json

RequestId = str | int
SERVER_INFO = Implementation(name="hearth", title="Hearth", version=VERSION)
LONGEST_SHOWN = 100
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Methods whose header `Mcp-Name` repeats a parameter."""
_BASE64 = ("=?base64?", "?=")


@dataclass(frozen=True)
class Request:
    """A request. `version`: the protocol that its answer follows."""

    id: RequestId
    method: str
    params: Mapping[str, Any]
    version: str

    @property
    def is_current(self) -> bool:
        """Whether it follows the protocol without a handshake."""
        return self.version in MODERN_PROTOCOL_VERSIONS

    @property
    def progress_token(self) -> RequestId | None:
        """Its client wants to be notified of progress under this token; None: it does not."""
        meta = self.params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, Mapping) else None
        return token if isinstance(token, str | int) and not isinstance(token, bool) else None


@dataclass(frozen=True)
class Notification:
    """A message that has no answer."""

    method: str
    params: Mapping[str, Any]


def read(asked: FlaskRequest) -> Request | Notification:
    """The message of a request's body. Raises `McpRequestError`, `MalformedRequestError`, `TooLargeError`. From here
    on errors are answered with the message's id."""
    given = read_json(read_bytes(asked))
    if not isinstance(given, dict):
        refuse(INVALID_REQUEST, "The body has to be one JSON-RPC request or notification: an object, and no list.")
    try:
        if "id" not in given:
            notification = JSONRPCNotification.model_validate(given)
            return Notification(notification.method, notification.params or {})
        envelope = JSONRPCRequest.model_validate(given)
    except ValidationError as error:
        refuse(INVALID_REQUEST, f"The body is not a JSON-RPC request or notification: {_first(error)}.")
    g.mcp_request_id = envelope.id
    params = envelope.params or {}
    version = asked.headers.get("Mcp-Protocol-Version")
    meta = params.get("_meta")
    says_version = isinstance(meta, Mapping) and PROTOCOL_VERSION_META_KEY in meta
    if version in HANDSHAKE_PROTOCOL_VERSIONS or (version is None and not says_version):
        g.mcp_is_older = True
        version = version or DEFAULT_NEGOTIATED_VERSION
    else:
        version = _checked_version(asked, envelope.method, params)
    request = Request(envelope.id, envelope.method, params, version)
    try:
        validate_client_request(request.method, version, envelope.params)
    except KeyError:
        refuse_method(request)
    except ValidationError as error:
        refuse(INVALID_PARAMS, f"The parameters of {request.method} are not valid: {_first(error)}.")
    return request


def answer(request: Request, result: Result | dict[str, Any]) -> dict[str, Any]:
    """The message that answers a request; a dict is as the protocol has it. Raises `AgentFailedError` for a result
    that is not: it is made of what people's code says."""
    if isinstance(result, Result):
        result = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    if request.is_current:
        result = {"resultType": "complete", **result}
    try:
        shown = serialize_server_result(request.method, request.version, result)
    except ValidationError as error:
        raise AgentFailedError(f"The workspace's code gave what MCP has no form for: {_first(error)}.") from None
    if request.is_current:
        info = SERVER_INFO.model_dump(by_alias=True, mode="json", exclude_none=True)
        shown["_meta"] = {**shown.get("_meta", {}), SERVER_INFO_META_KEY: info}
    return {"jsonrpc": "2.0", "id": request.id, "result": shown}


def notification(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A message to the client that has no answer."""
    return {"jsonrpc": "2.0", "method": method, "params": dict(params)}


def refuse(code: int, message: str, data: Any = None) -> NoReturn:
    """Raises `McpRequestError` with a code of JSON-RPC or MCP."""
    raise McpRequestError(message, jsonrpc_code=code, **({} if data is None else {"data": data}))


def refuse_method(request: Request) -> NoReturn:
    """Raises `McpRequestError`: there is no such method."""
    named = request.method[:LONGEST_SHOWN]
    refuse(METHOD_NOT_FOUND, f"There is no method {named!r}. This server has tools: tools/list and tools/call.")


def _checked_version(asked: FlaskRequest, method: str, params: Mapping[str, Any]) -> str:
    """The version of a request by the current protocol. Raises `McpRequestError` if it is not served, or if the
    headers do not say what the body says."""
    meta = params.get("_meta")
    if not isinstance(meta, Mapping):
        meta = {}
    for key in (PROTOCOL_VERSION_META_KEY, CLIENT_CAPABILITIES_META_KEY):
        if key not in meta:
            refuse(INVALID_PARAMS, f"params._meta has no {key!r}, which each request needs.")
    version = meta[PROTOCOL_VERSION_META_KEY]
    expected = {"Mcp-Protocol-Version": version, "Mcp-Method": method}
    if (field := _NAMED.get(method)) is not None and params.get(field) is not None:
        expected["Mcp-Name"] = params[field]
    for header, value in expected.items():
        found = asked.headers.getlist(header)
        if len(found) != 1 or (_decoded(found[0]) if header == "Mcp-Name" else found[0]) != value:
            refuse(HEADER_MISMATCH, f"The header {header} has to be there once, and to say what the body says.")
    if version not in MODERN_PROTOCOL_VERSIONS:
        supported = [*MODERN_PROTOCOL_VERSIONS, *HANDSHAKE_PROTOCOL_VERSIONS]
        refuse(
            UNSUPPORTED_PROTOCOL_VERSION,
            f"The protocol version {str(version)[:LONGEST_SHOWN]!r} is not supported.",
            {"supported": supported, "requested": str(version)[:LONGEST_SHOWN]},
        )
    return str(version)


def _decoded(value: str) -> str | None:
    """A header's text, which is in base64 where a header can't have it; None: it is damaged."""
    before, after = _BASE64
    if not (value.startswith(before) and value.endswith(after) and len(value) >= len(before + after)):
        return value
    try:
        return base64.b64decode(value[len(before) : -len(after)], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _first(error: ValidationError) -> str:
    """The first mistake, without the value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part)[:LONGEST_SHOWN] for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
