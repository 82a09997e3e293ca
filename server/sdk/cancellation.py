"""Cancelling a run or a tool from outside: the engine checks the run's event before each forward pass."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from server.errors import RunCancelledError

_cancelled: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)
_time_is_up: ContextVar[threading.Event | None] = ContextVar("time is up", default=None)


@contextmanager
def scope(event: threading.Event) -> Iterator[None]:
    """In this context and in copies of it, decoding stops once `event` is set."""
    token = _cancelled.set(event)
    try:
        yield
    finally:
        _cancelled.reset(token)


@contextmanager
def time_limit(event: threading.Event) -> Iterator[None]:
    """In this context and in copies of it, `check` raises once `event` is set: the tool's time is up."""
    token = _time_is_up.set(event)
    try:
        yield
    finally:
        _time_is_up.reset(token)


def current() -> threading.Event | None:
    """The event that is set when this context's run is cancelled; None outside of a run."""
    return _cancelled.get()


def check() -> None:
    """Raises RunCancelledError if this context's run was cancelled, or if the time of its tool is up."""
    event, time_is_up = _cancelled.get(), _time_is_up.get()
    if event is not None and event.is_set():
        raise RunCancelledError("The run was cancelled before it had an answer. Ask again.")
    if time_is_up is not None and time_is_up.is_set():
        raise RunCancelledError("The tool's time is up. The run continues without its result.")
