"""Counting what a run costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass


@dataclass
class Usage:
    """Tokens and forward passes, summed over all calls of the engine in a run.

    `prompt_tokens`: what stood before the model at each call; of these, `cached_tokens` were still in KV memory.
    `completion_tokens` were chosen by the model, `forced_tokens` written by the grammar without a choice: together
    they are the length of the text that was made. `forward_passes` of the model.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    forced_tokens: int = 0
    forward_passes: int = 0

    def add(self, other: "Usage") -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


_current: ContextVar[Usage | None] = ContextVar("usage", default=None)


@contextmanager
def measured() -> Iterator[Usage]:
    """Collects the usage of every call of an engine in this context, a tool's own calls included.

    Within another, it counts for both.
    """
    usage, outer = Usage(), _current.get()
    token = _current.set(usage)
    try:
        yield usage
    finally:
        _current.reset(token)
        if outer is not None:
            outer.add(usage)


def record(usage: Usage) -> None:
    """A call of the engine has ended."""
    current = _current.get()
    if current is not None:
        current.add(usage)
