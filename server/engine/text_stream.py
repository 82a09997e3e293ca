"""Streamed text: the engine sends each chunk of text to the run that it belongs to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from server.sdk.usage import Usage

Listener = Callable[[str, Usage], None]
"""Gets a chunk of text, and the usage so far of the engine call that wrote it. The usage is the same object for all
chunks of a call, and keeps counting."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def scope(listener: Listener) -> Iterator[None]:
    """In this context and in copies of it, `listener` gets every chunk of text."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def send(text: bytes, counted: Usage) -> None:
    """Send a chunk of text, whole UTF-8 characters or nothing, to the listener of this context, if there is one."""
    listener = _listener.get()
    if listener is not None:
        listener(text.decode(), counted)
