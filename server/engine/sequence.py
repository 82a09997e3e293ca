"""One text that is being written: its tokens, the grammar that bounds it, and what comes of it."""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import llguidance
import torch
from guidance._schema import SamplingParams

from server.engine.kv_cache import Row
from server.engine.prompt_lookup import Draft
from server.sdk.logprobs import Likelihood
from server.sdk.usage import Usage

Progress = list[dict[str, Any]]
"""What llguidance reports of a step: pieces of text, and captures."""
ENDS = ("NoExtension", "EndOfSentence", "NoExtensionBias")
"""llguidance's reasons to stop where a grammar has come to its end."""
T = TypeVar("T")


class Sampling(SamplingParams, total=False):
    """guidance's parameters, and what it has no place for: the `temperature` where a grammar names none, and a
    `seed`, with which the same text is drawn again."""

    temperature: float
    seed: int


class Sequence:
    """Made by the thread that wants the text, decoded by the model's thread, read by the first again."""

    def __init__(
        self,
        tokens: list[int],
        parser: llguidance.LLInterpreter,
        compile_anew: Callable[[], llguidance.LLInterpreter],
        vocabulary: int,
        sampling: Sampling | SamplingParams | None,
        cancelled: threading.Event | None,
        usage: Usage,
        likelihood: Likelihood | None,
    ) -> None:
        """`tokens` as `parser` wants the prompt. `compile_anew` gives a parser that is where `parser` is and shares
        nothing with others. `usage` and `likelihood` are counted up; `cancelled` may be set at any time."""
        self.tokens = tokens
        self.sampling: dict[str, Any] = dict(sampling or {})
        self.cancelled = cancelled or threading.Event()
        self.usage = usage
        self.likelihood = likelihood
        self.parser = parser
        self.row: Row | None = None
        self.draft = Draft(tokens)
        self.abandoned = False
        """Nobody reads it any more."""
        self.unread: Progress = []
        self.told_at = 0.0
        """When the reader was last told, by the monotonic clock."""
        self._told: queue.SimpleQueue[Progress | BaseException | None] = queue.SimpleQueue()
        self._buffer = bytearray((vocabulary + 31) // 32 * 4)
        self.mask = torch.frombuffer(self._buffer, dtype=torch.uint8)
        """A bit a token, the lowest first, on the CPU: 1 where the grammar allows it next."""
        self.may_end = False
        self.temperature = 0.0
        self.random: torch.Generator | None = None
        """What tokens are drawn with, if there is a seed."""
        self._looked = False
        self._compile_anew: Callable[[], llguidance.LLInterpreter] | None = compile_anew
        self._way: list[int | None] = []
        """What the parser was asked: to commit a token, or (None) what may come."""

    @property
    def out_of_tokens(self) -> bool:
        """Whether the `max_tokens` of the whole grammar are used up; llguidance raises an error then."""
        return bool(self.parser.stop_reason() == "MaxTokensTotal")

    @property
    def new(self) -> list[int]:
        """The tokens that the model has not read yet."""
        assert self.row is not None
        return self.tokens[len(self.row.held) :]

    def allows(self, token: int) -> bool:
        """Whether the grammar allows `token` next, by `mask`."""
        return bool(self._buffer[token >> 3] >> (token & 7) & 1)

    def look_ahead(self) -> bool:
        """What the grammar allows behind the last token, into `mask`. False where it has come to its end."""
        if not self._looked:
            status = self._ask(None, lambda parser: json.loads(parser.compute_mask_into(self._buffer)))
            self.unread += status["progress"]
            self.temperature = status["temperature"] or self.sampling.get("temperature", 0.0)
            self.may_end = self.parser.is_accepting()
            self._looked = True
            return not status["stop"]
        return True

    def commit(self, token: int) -> bool:
        """The model has chosen `token`, and the grammar may force more behind it. False where that was the end."""
        backtrack, forced = self._ask(token, lambda parser: parser.commit_token(token))
        self._looked = False
        self.usage.completion_tokens += 1
        self.usage.forced_tokens += len(forced) - (forced[:1] == [token])
        if backtrack:
            self.tokens = self.tokens[:-backtrack]
            if self.row is not None:
                self.row.held = self.row.held[: len(self.tokens)]
        self.tokens = self.tokens + forced
        return self.look_ahead() if self.parser.has_pending_stop() else True

    def _ask(self, step: int | None, question: Callable[[llguidance.LLInterpreter], T]) -> T:
        """What the parser says to `question`.

        Copies of a compiled grammar share what llguidance has found out about it, and the bounds on how much that may
        be. So where one is in trouble, a parser of its own goes the same way, and is asked again.
        """
        try:
            answer = question(self.parser)
            troubled = self.parser.stop_reason() not in ("NotStopped", "MaxTokensTotal", *ENDS)
        except Exception:  # boundary: of llguidance
            if self._compile_anew is None or self.out_of_tokens:
                raise
            troubled = True
        if troubled and self._compile_anew is not None:
            self.parser, self._compile_anew = self._compile_anew(), None
            for before in self._way:
                if before is None:
                    self.parser.compute_mask_into(self._buffer)
                else:
                    self.parser.commit_token(before)
            answer = question(self.parser)
        self._way.append(step)
        return answer

    def tell(self, now: float) -> None:
        """Hand on what came since the last time."""
        self.told_at = now
        self._told.put(self.unread)
        self.unread = []

    def end(self, error: BaseException | None = None) -> None:
        """The last word: nothing more comes, or `error` is raised at the reader."""
        self._told.put(self.unread)
        self._told.put(error)

    def progress(self) -> Iterator[tuple[Progress, bool]]:
        """What comes, and whether it is the last. Raises the error that ended it."""
        while True:
            told = self._told.get()
            if isinstance(told, BaseException):
                raise told
            yield told or [], told is None
            if told is None:
                return
