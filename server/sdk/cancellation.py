"""Stopping a run, or a tool, from outside: the engine looks at the run's event before each forward pass."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from server.errors import RunCancelledError

_cancelled: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)
_time_is_up: ContextVar[threading.Event | None] = ContextVar("time is up", default=None)


@contextmanager
def scope(event: threading.Event) -> Iterator[None]:
    """Within it, on this thread and in copies of its context, decoding stops once `event` is set."""
    token = _cancelled.set(event)
    try:
        yield
    finally:
        _cancelled.reset(token)


@contextmanager
def time_limit(event: threading.Event) -> Iterator[None]:
    """Within it, on this thread and in copies of its context, `check` raises once `event` is set: the tool's time is
    up."""
    token = _time_is_up.set(event)
    try:
        yield
    finally:
        _time_is_up.reset(token)


def current() -> threading.Event | None:
    """What is set once the run that this context belongs to is cancelled; None where no run is known."""
    return _cancelled.get()


def check() -> None:
    """Raises RunCancelledError where the run that this context belongs to has been cancelled, or the time of the tool
    that it belongs to is up."""
    event, time_is_up = _cancelled.get(), _time_is_up.get()
    if event is not None and event.is_set():
        raise RunCancelledError("The run was cancelled before it had an answer. Ask again.")
    if time_is_up is not None and time_is_up.is_set():
        raise RunCancelledError("The tool's time is up. The run continues without its result.")
