"""A sequence: its tokens, its grammar, and the messages to its reader."""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import llguidance
import torch
from guidance._schema import SamplingParams

from server.engine.kv_cache import Slot
from server.engine.prompt_lookup import PromptLookup
from server.sdk.logprobs import LogProbs
from server.sdk.usage import Usage

Progress = list[dict[str, Any]]
"""What llguidance reports of a step: chunks of text, and captures."""
ENDS = ("NoExtension", "EndOfSentence", "NoExtensionBias")
"""llguidance's stop reasons for a grammar that is complete."""
T = TypeVar("T")


class Sampling(SamplingParams, total=False):
    """guidance's parameters, and two that it lacks: the `temperature` for grammars that set none, and a `seed`, which
    makes sampling repeatable."""

    temperature: float
    seed: int


class Sequence:
    """One thread creates it and reads its progress; the scheduler's thread decodes it."""

    def __init__(
        self,
        tokens: list[int],
        parser: llguidance.LLInterpreter,
        compile_anew: Callable[[], llguidance.LLInterpreter],
        vocabulary: int,
        sampling: Sampling | SamplingParams | None,
        cancelled: threading.Event | None,
        usage: Usage,
        logprobs: LogProbs | None,
    ) -> None:
        """`tokens`: the prompt as `parser` returned it. `compile_anew` returns a parser in the same state that shares
        nothing with others. `usage` and `logprobs` are updated; `cancelled` may be set at any time."""
        self.tokens = tokens
        self.sampling: dict[str, Any] = dict(sampling or {})
        self.cancelled = cancelled or threading.Event()
        self.usage = usage
        self.logprobs = logprobs
        self.parser = parser
        self.slot: Slot | None = None
        self.lookup = PromptLookup(tokens)
        self.abandoned = False
        """Its reader is gone."""
        self.unread: Progress = []
        self.sent_at = 0.0
        """When progress was last sent to the reader, by the monotonic clock."""
        self._outbox: queue.SimpleQueue[Progress | BaseException | None] = queue.SimpleQueue()
        self._buffer = bytearray((vocabulary + 31) // 32 * 4)
        self.mask = torch.frombuffer(self._buffer, dtype=torch.uint8)
        """One bit for each token of the vocabulary, lowest first, on the CPU: 1 if the grammar allows it next."""
        self.may_end = False
        self.temperature = 0.0
        self.random: torch.Generator | None = None
        """The random generator, if there is a seed."""
        self._looked = False
        self._compile_anew: Callable[[], llguidance.LLInterpreter] | None = compile_anew
        self._history: list[int | None] = []
        """The calls of the parser: a token that was committed, or None for a mask."""

    @property
    def out_of_tokens(self) -> bool:
        """Whether the `max_tokens` of the whole grammar are used up. llguidance raises an error in that case."""
        return bool(self.parser.stop_reason() == "MaxTokensTotal")

    @property
    def new(self) -> list[int]:
        """The tokens that are not cached yet."""
        assert self.slot is not None
        return self.tokens[len(self.slot.cached_tokens) :]

    def allows(self, token: int) -> bool:
        """Whether the grammar allows `token` next, by `mask`."""
        return bool(self._buffer[token >> 3] >> (token & 7) & 1)

    def look_ahead(self) -> bool:
        """Compute `mask`, the tokens that the grammar allows next. False if the grammar is complete."""
        if not self._looked:
            status = self._ask(None, lambda parser: json.loads(parser.compute_mask_into(self._buffer)))
            self.unread += status["progress"]
            self.temperature = status["temperature"] or self.sampling.get("temperature", 0.0)
            self.may_end = self.parser.is_accepting()
            self._looked = True
            return not status["stop"]
        return True

    def commit(self, token: int) -> bool:
        """Add the token that the model chose, and those that the grammar then forces. False if that was the end."""
        backtrack, forced = self._ask(token, lambda parser: parser.commit_token(token))
        self._looked = False
        self.usage.completion_tokens += 1
        self.usage.forced_tokens += len(forced) - (forced[:1] == [token])
        if backtrack:
            self.tokens = self.tokens[:-backtrack]
            if self.slot is not None:
                self.slot.cached_tokens = self.slot.cached_tokens[: len(self.tokens)]
        self.tokens = self.tokens + forced
        return self.look_ahead() if self.parser.has_pending_stop() else True

    def _ask(self, step: int | None, question: Callable[[llguidance.LLInterpreter], T]) -> T:
        """The parser's answer to `question`.

        Copies of a compiled grammar share llguidance's caches and their limits. If one hits a limit, a parser that
        shares nothing repeats all calls so far, and answers instead.
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
            for before in self._history:
                if before is None:
                    self.parser.compute_mask_into(self._buffer)
                else:
                    self.parser.commit_token(before)
            answer = question(self.parser)
        self._history.append(step)
        return answer

    def send(self, now: float) -> None:
        """Send what is new to the reader."""
        self.sent_at = now
        self._outbox.put(self.unread)
        self.unread = []

    def end(self, error: BaseException | None = None) -> None:
        """Send the rest and the end; with `error`, the reader raises it."""
        self._outbox.put(self.unread)
        self._outbox.put(error)

    def progress(self) -> Iterator[tuple[Progress, bool]]:
        """Progress as it comes, each with whether it is the last. Raises the error that ended the sequence."""
        while True:
            sent = self._outbox.get()
            if isinstance(sent, BaseException):
                raise sent
            yield sent or [], sent is None
            if sent is None:
                return
