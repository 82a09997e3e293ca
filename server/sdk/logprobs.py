"""How likely the model finds what it writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Likelihood:
    """`log_probability`: of the tokens that were chosen, each among those that the grammar allowed at its place, at
    temperature 1. What a grammar forces has the probability 1."""

    log_probability: float = 0.0


_current: ContextVar[Likelihood | None] = ContextVar("likelihood", default=None)


@contextmanager
def measured() -> Iterator[Likelihood]:
    """Counts what the engine writes in this context."""
    likelihood = Likelihood()
    token = _current.set(likelihood)
    try:
        yield likelihood
    finally:
        _current.reset(token)


def current() -> Likelihood | None:
    """Where the calls of this context are counted; None where nobody asks."""
    return _current.get()
