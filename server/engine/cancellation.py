"""Stopping a run from outside: the engine looks at the run's event before each forward pass."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from server.errors import RunCancelledError

_cancelled: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)


@contextmanager
def scope(event: threading.Event) -> Iterator[None]:
    """Within it, on this thread and in copies of its context, decoding stops once `event` is set."""
    token = _cancelled.set(event)
    try:
        yield
    finally:
        _cancelled.reset(token)


def current() -> threading.Event | None:
    """What is set once the run that this context belongs to is cancelled; None where no run is known."""
    return _cancelled.get()


def check() -> None:
    """Raises RunCancelledError where the run that this context belongs to has been cancelled."""
    event = _cancelled.get()
    if event is not None and event.is_set():
        raise RunCancelledError("The run was cancelled before it had an answer. Ask again.")
