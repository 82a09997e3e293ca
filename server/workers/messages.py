"""What server and worker send each other: JSON messages behind their length, many streams over one socket.

What a worker sends comes from people's code, and is read as if it came from outside: bounded in size, checked field
by field, and nothing in it executes.
"""

import json
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

LONGEST = 64 * 1024 * 1024
"""Bytes of one message."""
SEND_SECONDS = 10.0
"""How long the other side may read nothing before a message to it fails."""
_LENGTH = struct.Struct("!I")

# Made here: people's code may put something else in the place of `json.dumps`.
encode = json.JSONEncoder(separators=(",", ":")).encode
decode = json.JSONDecoder().decode


class MessageError(Exception):
    """What was sent is no message, or what is to be sent is too long for one."""


class Channel:
    """One end of the socket. Any number of threads may send; one receives."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        # Bound here for the same reason as `encode`.
        self._send_all, self._receive_into = connection.sendall, connection.recv_into
        # The kernel's own limit: a timeout of Python's would hold for receiving as well.
        seconds = struct.pack("ll", int(SEND_SECONDS), 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        self._sending = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Raises `OSError` when the other side is gone or does not read, `MessageError` for a message that is too
        long or is no JSON."""
        try:
            data = encode(message).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise MessageError(f"{message.get('kind')!r} is no JSON: {error}") from error
        if len(data) > LONGEST:
            raise MessageError(f"{message.get('kind')!r} takes {len(data)} bytes; {LONGEST} are the most.")
        with self._sending:
            self._send_all(_LENGTH.pack(len(data)) + data)

    def close_sending(self) -> None:
        """The other side reads to the end of what was sent, and then that this is the end."""
        with suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_WR)

    def receive(self) -> bytes | None:
        """The next message as JSON; None at the end. Raises `OSError`, and `MessageError` for one that is too long
        or breaks off."""
        head = self._read(_LENGTH.size)
        if head is None:
            return None
        length = _LENGTH.unpack(head)[0]
        if length > LONGEST:
            raise MessageError(f"a message of {length} bytes was announced; {LONGEST} are the most")
        body = self._read(length)
        if body is None:
            raise MessageError("a message broke off")
        return body

    def _read(self, size: int) -> bytes | None:
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            count = self._receive_into(view[done:])
            if not count:
                return None
            done += count
        return bytes(data)


class _FromWorker(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Report(_FromWorker):
    """One error of loading code; see `server.reload.failure.ErrorReport`."""

    file: str | None
    line: int | None
    type: str
    message: str
    traceback: str


class Raised(_FromWorker):
    """An error. `type`: the name of its class; `known`: whether that is one of `server.errors`, which `message` and
    `details` make anew. `file`, `line`: the innermost place in people's code. `reports`: of code that could not be
    loaded."""

    type: str
    known: bool = False
    message: str
    details: dict[str, Any] = {}
    file: str | None = None
    line: int | None = None
    traceback: str = ""
    reports: list[Report] | None = None


class Answered(BaseModel):
    """What an agent gives back. It fits `server.runs.AgentResult`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    answer: str
    function: str | None
    steps: list[dict[str, Any]]
    usage: dict[str, int]
    details: dict[str, Any]


class Done(_FromWorker):
    """A job has its result."""

    kind: Literal["done"]
    job: int
    value: Any = None


class Failed(_FromWorker):
    """A job ended with an error."""

    kind: Literal["failed"]
    job: int
    error: Raised


class Ask(_FromWorker):
    """People's code asks the model for something. `job`: whose; None outside of every job. `tool`: which tool it is,
    if it is one."""

    kind: Literal["ask"]
    call: int
    job: int | None
    tool: str | None = None
    what: Literal["continue", "count", "cut", "render", "complete", "note"]
    given: dict[str, Any]


class Leave(_FromWorker):
    """Nobody reads the answer of a call any more."""

    kind: Literal["leave"]
    call: int


class Step(_FromWorker):
    """A step of the job's run is done."""

    kind: Literal["step"]
    job: int
    step: dict[str, Any]


class Plan(_FromWorker):
    """The plan of the job's run has changed."""

    kind: Literal["plan"]
    job: int
    steps: list[dict[str, Any]]


class Recalled(_FromWorker):
    """What the job's question is shown of its session."""

    kind: Literal["recalled"]
    job: int
    messages: list[dict[str, str]]


class ToolBegan(_FromWorker):
    """A call of a tool, which may take so many seconds."""

    kind: Literal["tool_began"]
    job: int
    call: int
    tool: str
    seconds: float


class ToolEnded(_FromWorker):
    """It ended, or its time is up."""

    kind: Literal["tool_ended"]
    job: int
    call: int
    seconds: float
    failed: bool


class Stuck(_FromWorker):
    """What a job has turned away from has not ended since."""

    kind: Literal["stuck"]
    job: int
    what: str


class Saved(_FromWorker):
    """`keep` built a value; see `server.sdk.saved_values.KeptReport`."""

    kind: Literal["saved"]
    name: str
    type: str
    bytes: int | None
    built: float
    how: Literal["saved", "in_worker"]
    draft: str | None


FromWorker = Annotated[
    Done | Failed | Ask | Leave | Step | Plan | Recalled | ToolBegan | ToolEnded | Stuck | Saved,
    Field(discriminator="kind"),
]
_from_worker: TypeAdapter[FromWorker] = TypeAdapter(FromWorker)


def read(data: bytes) -> FromWorker:
    """A worker's message. Raises `MessageError`."""
    try:
        return _from_worker.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise MessageError(f"{place}: {first['msg']}") from None
