"""A text that is there already, and the log-probabilities that the model gives its tokens (teacher forcing)."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from server.engine.kv_cache import Slot
from server.engine.text import Text
from server.sdk.usage import Usage

BEST = 5
"""The number of alternatives that pages show."""
ROWS_A_PASS = 32
"""Maximum rows of logits that a text takes of one pass. Each is as long as the vocabulary."""


@dataclass(frozen=True)
class ScoredToken:
    """A token. `logprob`: at temperature 1, among the whole vocabulary; None for a text's very first token, which
    follows nothing. `top`: the likeliest tokens there with theirs, the likeliest first."""

    id: int
    logprob: float | None
    top: list[tuple[int, float]]


class ScoredText(Text):
    """The scheduler has the model read it along with the texts that it decodes, a few rows of logits a pass."""

    def __init__(
        self, tokens: list[int], first: int, best: int = BEST, cancelled: threading.Event | None = None
    ) -> None:
        """`tokens`: at least two. Those from the place `first` on, at least 1, are scored. `best`: the number of
        alternatives. `cancelled` may be set at any time."""
        # No logits are needed after the last token.
        super().__init__(tokens[:-1], cancelled, Usage(prompt_tokens=len(tokens) - 1))
        self._best = best
        self._targets = tokens[first:]
        self._first = first
        self._scored: list[ScoredToken] = []
        self._done: Future[list[ScoredToken]] = Future()

    def use(self, slot: Slot) -> None:
        """See `Text`. The tokens before a scored one are read again, cached or not."""
        super().use(slot)
        slot.cached_tokens = slot.cached_tokens[: self._first - 1 + len(self._scored)]

    def chunk(self, most: int, rows: int) -> tuple[list[int], int]:
        """Up to `most` tokens to read next, and after how many of the last ones logits are needed, `rows` at most."""
        assert self.slot is not None
        before = self._first - 1 - len(self.slot.cached_tokens)
        if before > 0:
            return self.new[: min(most, before)], 0
        new = self.new[: min(most, rows, ROWS_A_PASS)]
        return new, len(new)

    def read(self, logits: torch.Tensor) -> bool:
        """Score the tokens that follow the last chunk, from its `logits` (tokens, vocabulary). False at the end."""
        begin = len(self._scored)
        targets = self._targets[begin : begin + len(logits)]
        logprobs = logits.log_softmax(-1)
        best = logprobs.topk(min(self._best, logprobs.shape[-1]))
        own = logprobs.gather(1, torch.tensor(targets, device=logprobs.device)[:, None])[:, 0].tolist()
        for target, logprob, ids, values in zip(
            targets, own, best.indices.tolist(), best.values.tolist(), strict=True
        ):
            self._scored.append(ScoredToken(target, logprob, list(zip(ids, values, strict=True))))
        return len(self._scored) < len(self._targets)

    def end(self, error: BaseException | None = None) -> None:
        """See `Text`."""
        if error is None:
            self._done.set_result(self._scored)
        else:
            self._done.set_exception(error)

    def result(self) -> list[ScoredToken]:
        """Wait for the end. Raises the error that ended it."""
        return self._done.result()
