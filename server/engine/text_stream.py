"""Text as it comes: the engine tells each piece of it, while it is written, to the run that it belongs to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from server.sdk.usage import Usage

Listener = Callable[[str, Usage], None]
"""Takes a piece of text, and what the call of the engine that it comes from has cost so far: the same object each
time, which goes on counting."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def scope(listener: Listener) -> Iterator[None]:
    """Within it, on this thread and in copies of its context, `listener` is told every piece of text."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(text: bytes, counted: Usage) -> None:
    """Hand a piece of text, whole characters of UTF-8 or nothing yet, to whoever listens in this context."""
    listener = _listener.get()
    if listener is not None:
        listener(text.decode(), counted)
