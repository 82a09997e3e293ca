"""The usage of a run: tokens and forward passes."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass


@dataclass
class Usage:
    """Tokens and forward passes, summed over all calls of the engine in a run.

    `prompt_tokens`: the prompts of all calls; of these, `cached_tokens` were in the KV cache. `completion_tokens`:
    chosen by the model; `forced_tokens`: forced by the grammar. Together these are the written text.
    `forward_passes`: of the model.
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
    """Sums the usage of all engine calls in this context, those of tools included.

    Nested contexts both count.
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
    """Add the usage of an engine call that has ended."""
    current = _current.get()
    if current is not None:
        current.add(usage)
