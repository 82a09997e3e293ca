"""The run that the current code works for, as one object in one context variable."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from server.errors import RunCancelledError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from server.images.image_part import ImagePart
    from server.sdk.jobs import SessionJobs
    from server.sdk.logprobs import LogProbs
    from server.sdk.model_call import ModelCall
    from server.sdk.replay import ReplayedStep
    from server.sdk.run import Listener
    from server.sdk.tool_absent import AbsentTool
    from server.sdk.usage import Usage


@dataclass(frozen=True)
class Context:
    """What belongs to a run. A thread inherits nothing: copy the context, or hand the object on."""

    cancelled: threading.Event | None = None
    """Set when the run is cancelled. The engine checks it before each forward pass."""
    time_is_up: threading.Event | None = None
    """Set when the time of the tool is up."""
    tool: str | None = None
    """The tool that is running; None for the agent itself."""
    tool_call: int | None = None
    """In a worker: the number of the tool's call."""
    span: "Span | None" = None
    """In the server: what the current code is traced as; see `server.observability.tracing`."""
    queued_seconds: float | None = None
    """In the server: how long the model call has waited for its run's turn."""
    usage: "Usage | None" = None
    """The sum of all engine calls."""
    logprobs: "LogProbs | None" = None
    """The sum over all chosen tokens; None: not measured."""
    on_text: "Callable[[str, Usage], None] | None" = None
    """In the server: gets each chunk of text, and the usage so far of the engine call that wrote it. The usage is the
    same object for all chunks of a call, and keeps counting."""
    on_model_call: "Callable[[ModelCall], None] | None" = None
    """In the server: gets each model call at its end."""
    beginning: "Callable[[], str] | None" = None
    """In the server: gives, once, the text with which the agent's next model call has to begin; mostly empty."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """In the server: sampling parameters of the agent's model calls that replace what it asks for."""
    model: Any = None
    """In the server: the `ResidentModel` in use; None: the default one."""
    images: "Mapping[str, ImagePart]" = field(default_factory=dict)
    """In the server: the run's pictures by their keys. A model that takes images puts each one after its mark."""
    replayed: "tuple[ReplayedStep, ...]" = ()
    """In a worker: the steps of another run that this one replays."""
    listener: "Listener | None" = None
    """In a worker: gets the run's steps, plans and tool calls."""
    jobs: "SessionJobs | None" = None
    """In a worker: the jobs that the run's agent knows."""
    has_code: bool = False
    """In a worker: whether the run's session has files or variables."""
    has_documents: bool = False
    """In a worker: whether there are documents that the run may read."""
    has_images: bool = False
    """In a worker: whether there are pictures that the run's agent may look at."""
    is_alone: bool = False
    """In a worker: whether a tool runs without an agent, in a process of its own."""
    task: int | None = None
    """In a worker: the number of what the server has asked for."""
    most_tools: int | None = None
    """In a worker: the maximum number of tools that an agent shows the model; None: unlimited."""
    absent_tools: "list[AbsentTool] | None" = None
    """In a worker, while the tools are built: those that were left out."""
    absent_internet: Mapping[str, str] | None = None
    """In a worker, while the tools are built: what the server can't do on the web, and why."""
    session_tools: tuple[str, ...] = ()
    """In a worker: the tools that earlier questions of the run's session called, the latest first."""


_OUTSIDE = Context()
_current: ContextVar[Context] = ContextVar("context", default=_OUTSIDE)


def current() -> Context:
    """The context of this thread or coroutine; an empty one outside of a run."""
    return _current.get()


@contextmanager
def scope(**fields: Any) -> Iterator[None]:
    """Within this block, and in copies of its context, these fields of `Context` have these values."""
    token = _current.set(replace(_current.get(), **fields))
    try:
        yield
    finally:
        _current.reset(token)


def check_cancelled() -> None:
    """Raises `RunCancelledError` if the run was cancelled, or if the time of its tool is up."""
    now = _current.get()
    if now.cancelled is not None and now.cancelled.is_set():
        raise RunCancelledError("The run was cancelled before it had an answer. Ask again.")
    if now.time_is_up is not None and now.time_is_up.is_set():
        raise RunCancelledError("The tool's time is up. The run continues without its result.")


def send_text(text: bytes, usage: "Usage") -> None:
    """Send a chunk of text, whole UTF-8 characters or nothing, to the run's `on_text`."""
    if (on_text := _current.get().on_text) is not None:
        on_text(text.decode(), usage)
