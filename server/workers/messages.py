"""What server and worker send each other: JSON messages, each after its length, for many calls over one socket.

What a worker sends comes from people's code, so it is input from outside: its size is bounded, each field is checked,
and nothing in it is executed.
"""

import json
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from server.bounds import bounded

LONGEST = 64 * 1024 * 1024
"""Maximum number of bytes of a message to a worker."""
LONGEST_FROM_WORKER = 16 * 1024 * 1024
"""Maximum number of bytes of a message to the server. The worker's other messages wait while it is read."""
SEND_SECONDS = 10.0
"""Maximum time for which the other side may read nothing, before a message to it fails."""
MOST_CITATIONS = 200
"""Maximum number of an answer's citations."""
LARGEST_PLACE = 2**53
_LENGTH = struct.Struct("!I")

# Made here: people's code may put something else in the place of `json.dumps`.
encode = json.JSONEncoder(separators=(",", ":")).encode
decode = json.JSONDecoder().decode


class MessageError(Exception):
    """What was received is not a message, or what should be sent is not JSON or too long."""


class UnknownGrammarError(Exception):
    """The server no longer remembers the grammar of that hash: the worker sends its text."""


class Channel:
    """One end of the socket. Any number of threads may send; one receives."""

    def __init__(self, connection: socket.socket, sends: int = LONGEST, receives: int = LONGEST) -> None:
        """`sends`, `receives`: the maximum size of a message, in bytes."""
        self._socket = connection
        self._sends, self._receives = sends, receives
        # Bound here for the same reason as `encode`.
        self._send_all, self._receive_into = connection.sendall, connection.recv_into
        # The kernel's own limit: a timeout of Python's would hold for receiving as well.
        seconds = struct.pack("ll", int(SEND_SECONDS), 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        self._sending = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Raises `OSError` when the other side is gone or does not read: then the connection ends. Raises
        `MessageError` for a message that is too long or is no JSON."""
        try:
            data = encode(message).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise MessageError(f"{message.get('kind')!r} is no JSON: {error}") from error
        if len(data) > self._sends:
            raise MessageError(f"{message.get('kind')!r} takes {len(data)} bytes; {self._sends} are the most.")
        with self._sending:
            try:
                self._send_all(_LENGTH.pack(len(data)) + data)
            except OSError:
                # A part may have gone out, and what follows would be read as the rest of it.
                self._end()
                raise

    def _end(self) -> None:
        with suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close_sending(self) -> None:
        """Send nothing more. The other side can read what was sent before, and then the end."""
        with suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_WR)

    def receive(self) -> bytes | None:
        """The next message as JSON; None at the end. Raises `OSError`, and `MessageError` for one that is too long
        or breaks off."""
        head = self._read(_LENGTH.size)
        if head is None:
            return None
        length = _LENGTH.unpack(head)[0]
        if length > self._receives:
            raise MessageError(f"a message of {length} bytes was announced; {self._receives} are the most")
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


Text = Annotated[str, AfterValidator(bounded)]
"""A text, shortened. Workers shorten texts themselves, but people's code may send messages too."""
Json = Annotated[Any, AfterValidator(bounded)]
Object = Annotated[dict[str, Any], AfterValidator(bounded)]
Objects = Annotated[list[dict[str, Any]], AfterValidator(bounded)]


class _FromWorker(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Report(_FromWorker):
    """One error of loading code; see `server.workers.failure.ErrorReport`."""

    file: Text | None
    line: int | None
    type: Text
    message: Text
    traceback: Text


class Raised(_FromWorker):
    """An error. `type`: the name of its class. `known`: whether the class is in `server.errors`; then the server
    raises it with `message` and `details`. `file`, `line`: the innermost place in people's code. `reports`: about
    code that could not be loaded."""

    type: Text
    known: bool = False
    message: Text
    details: Object = {}
    file: Text | None = None
    line: int | None = None
    traceback: Text = ""
    reports: list[Report] | None = None


class Citation(_FromWorker):
    """Words of a document that an answer rests on; see `server.agent.agent.Citation`."""

    document: Annotated[str, Field(max_length=1000)]
    document_id: Annotated[str, Field(max_length=200)]
    page: Annotated[int, Field(ge=0, le=LARGEST_PLACE)]
    page_label: Annotated[str, Field(max_length=1000)] | None
    quote: Annotated[str, Field(min_length=1, max_length=10_000)]
    start: Annotated[int, Field(ge=0, le=LARGEST_PLACE)]
    end: Annotated[int, Field(ge=0, le=LARGEST_PLACE)]
    score: Annotated[float, Field(allow_inf_nan=False)]
    at: Annotated[int, Field(ge=0, le=LARGEST_PLACE)] = 0


class Answered(BaseModel):
    """The result of an agent. It fits `server.runs.AgentResult`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    answer: str
    function: str | None
    steps: list[dict[str, Any]]
    usage: dict[str, int]
    details: dict[str, Any]
    citations: Annotated[list[Citation], Field(max_length=MOST_CITATIONS)] = []


class Done(_FromWorker):
    """A task has its result."""

    kind: Literal["done"]
    task: int
    value: Json = None


class Failed(_FromWorker):
    """A task ended with an error."""

    kind: Literal["failed"]
    task: int
    error: Raised


class Ask(_FromWorker):
    """A call of people's code: of the model, of `jobs`, of `code` for the sandbox, of `documents`, or of `internet`.
    `task`: the task that it belongs to; None outside of all tasks. `tool`: the tool that calls, or None.
    `tool_call`: the number of its call, as in `ToolBegan`."""

    kind: Literal["ask"]
    call: int
    task: int | None
    tool: str | None = None
    tool_call: int | None = None
    what: Literal[
        "continue",
        "count",
        "cut",
        "render",
        "complete",
        "chat",
        "note",
        "jobs",
        "code",
        "documents",
        "internet",
        "images",
        "tools",
    ]
    given: dict[str, Any]


class Leave(_FromWorker):
    """The worker no longer waits for the answer of a call."""

    kind: Literal["leave"]
    call: int


class Step(_FromWorker):
    """A step of the task's run is done."""

    kind: Literal["step"]
    task: int
    step: Object


class Progress(_FromWorker):
    """How far the task's tool is."""

    kind: Literal["progress"]
    task: int
    done: Annotated[float, Field(allow_inf_nan=False)]
    total: Annotated[float, Field(allow_inf_nan=False)] | None
    message: Text


class Plan(_FromWorker):
    """The plan of the task's run has changed."""

    kind: Literal["plan"]
    task: int
    steps: Objects


class Recalled(_FromWorker):
    """The messages of the session that the agent gets with the task's question."""

    kind: Literal["recalled"]
    task: int
    messages: Annotated[list[dict[str, str]], AfterValidator(bounded)]


class ToolsShown(_FromWorker):
    """The agent showed the model these tools of the task's run, and not all."""

    kind: Literal["tools_shown"]
    task: int
    tools: Annotated[list[str], AfterValidator(bounded)]


class ToolBegan(_FromWorker):
    """A tool call began. `seconds`: its time limit."""

    kind: Literal["tool_began"]
    task: int
    call: int
    tool: str
    seconds: float


class ToolEnded(_FromWorker):
    """A tool call ended, or its time is up."""

    kind: Literal["tool_ended"]
    task: int
    call: int
    seconds: float
    failed: bool


class Stuck(_FromWorker):
    """Something that a task no longer waits for, such as a tool whose time is up, has not ended."""

    kind: Literal["stuck"]
    task: int
    what: Text


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
    Done
    | Failed
    | Ask
    | Leave
    | Step
    | Progress
    | Plan
    | Recalled
    | ToolsShown
    | ToolBegan
    | ToolEnded
    | Stuck
    | Saved,
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
