"""Log-probabilities of the tokens that the model chooses."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class LogProbs:
    """`log_probability`: the sum over the chosen tokens, at temperature 1, each among the tokens that the grammar
    allowed there. A token that the grammar forces has the probability 1."""

    log_probability: float = 0.0


_current: ContextVar[LogProbs | None] = ContextVar("logprobs", default=None)


@contextmanager
def measured() -> Iterator[LogProbs]:
    """Sums the log-probabilities of what the engine writes in this context."""
    logprobs = LogProbs()
    token = _current.set(logprobs)
    try:
        yield logprobs
    finally:
        _current.reset(token)


def current() -> LogProbs | None:
    """The sum of this context; None outside of `measured`."""
    return _current.get()
