"""Log-probabilities of the tokens that the model chooses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from server.sdk import context


@dataclass
class LogProbs:
    """`log_probability`: the sum over the chosen tokens, at temperature 1, each among the tokens that the grammar
    allowed there. A token that the grammar forces has the probability 1."""

    log_probability: float = 0.0


@contextmanager
def measured() -> Iterator[LogProbs]:
    """Sums the log-probabilities of what the engine writes in this context."""
    logprobs = LogProbs()
    with context.scope(logprobs=logprobs):
        yield logprobs
