"""The usage of a run: tokens and forward passes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from server.sdk import context


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


@contextmanager
def measured() -> Iterator[Usage]:
    """Sums the usage of all engine calls in this context, those of tools included.

    Nested contexts both count.
    """
    usage, outer = Usage(), context.current().usage
    try:
        with context.scope(usage=usage):
            yield usage
    finally:
        if outer is not None:
            outer.add(usage)


def record(usage: Usage) -> None:
    """Add the usage of an engine call that has ended."""
    if (measured := context.current().usage) is not None:
        measured.add(usage)
