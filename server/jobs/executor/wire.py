"""What a job's process and the executor send each other: lines of JSON over the job's own socket.

What comes from a job is input from outside: it is checked and bounded, and never unpickled.
"""

import json
import socket
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from server.jobs.executor.global_context import ContextRequest

MAX_LINE = 16 * 1024 * 1024
"""Bytes of one message."""
_CHUNK = 1 << 16


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Started(_Message):
    """The tool's process exists. It is sent before any code of the tool runs."""

    kind: Literal["started"] = "started"
    pid: int = Field(gt=1)
    """Also the name of its session and its process group."""


class Report(_Message):
    """What a generator has yielded."""

    kind: Literal["report"] = "report"
    text: str


class Result(_Message):
    """The tool has returned."""

    kind: Literal["result"] = "result"
    value: JsonValue
    text: str
    """The value as the model reads it."""


class Failure(_Message):
    """The tool has raised an error."""

    kind: Literal["failure"] = "failure"
    error: str
    traceback: str


class Ask(_Message):
    """A request to the global context. The reply is `{"reply": ...}` or `{"type_error": ...}`."""

    kind: Literal["ask"] = "ask"
    request: ContextRequest


FromJob = Started | Report | Result | Failure | Ask
_from_job: TypeAdapter[FromJob] = TypeAdapter(Annotated[FromJob, Field(discriminator="kind")])


class GuardReport(_Message):
    """How the tool's process ended. The guard sends it when nothing of the job is left."""

    exit_code: int | None
    signal: int | None


class WireError(Exception):
    """The job's process sent something that is no message."""


class LineReader:
    """The complete lines of a socket. What a killed process has left incomplete is dropped."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._rest = bytearray()
        self.ended = False
        """The other side has closed its end."""

    def read(self) -> Iterator[bytes]:
        """The lines that are there, without waiting. Raises `WireError` for a line above `MAX_LINE` bytes."""
        while not self.ended:
            try:
                data = self._source.recv(_CHUNK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.ended = True
                return
            yield from self._add(data)

    def wait(self) -> bytes | None:
        """The next line; waits for it. None at the end of the stream. For replies, which come one at a time."""
        while True:
            data = self._source.recv(_CHUNK)
            if not data:
                return None
            for line in self._add(data):
                return line

    def _add(self, data: bytes) -> list[bytes]:
        self._rest += data
        if len(self._rest) > MAX_LINE + _CHUNK:
            self._rest.clear()
            raise WireError(f"its process sent a message of more than {MAX_LINE:,} bytes")
        if b"\n" not in data:
            return []
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        return [bytes(line) for line in lines]


def line(message: BaseModel | dict[str, Any]) -> bytes:
    """A message as it is sent. Raises `ValueError` if it has more than `MAX_LINE` bytes."""
    text = message.model_dump_json() if isinstance(message, BaseModel) else json.dumps(message)
    data = text.encode("utf-8", "replace") + b"\n"
    if len(data) > MAX_LINE:
        raise ValueError(f"this has {len(data):,} bytes as JSON; the limit is {MAX_LINE:,}")
    return data


def from_job(data: bytes) -> FromJob:
    """A message of a job's process. Raises `WireError`."""
    try:
        return _from_job.validate_json(data)
    except ValidationError as error:
        raise WireError(f"its process sent what is no message: {data[:100]!r}") from error
