"""A sequence: its tokens, its grammar, and the messages to its reader."""

import json
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import llguidance
import torch
from guidance._schema import SamplingParams

from server.engine.compiled_grammars import is_panic, too_costly_to_follow
from server.engine.images import PreparedImage
from server.engine.prompt_lookup import PromptLookup
from server.engine.text import Text
from server.grammar_check.bounds import DECODE_SECONDS, TOKEN_SECONDS
from server.sdk.logprobs import LogProbs
from server.sdk.usage import Usage

Progress = list[dict[str, Any]]
"""What llguidance reports of a step: chunks of text, and captures."""
ENDS = ("NoExtension", "EndOfSentence", "NoExtensionBias")
"""llguidance's stop reasons for a grammar that is complete."""
LIMITS = ("LexerTooComplex", "ParserTooComplex")
"""llguidance's stop reasons for a grammar that exceeds its limits."""


class SharedLimitError(Exception):
    """A parser has hit a limit that it shares with others of the same grammar: see `Sequence.recover`."""


class Sampling(SamplingParams, total=False):
    """guidance's parameters, and those that it lacks: the `temperature` for grammars that set none, and a `seed`,
    which makes sampling repeatable. `presence_penalty` lowers the logit of each token that was written before, and
    `frequency_penalty` once for each time; `logit_bias` is added to those of tokens, by their ids."""

    temperature: float
    seed: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]


class Sequence(Text):
    """One thread creates it and reads its progress; the scheduler's thread decodes it."""

    def __init__(
        self,
        tokens: list[int],
        parser: llguidance.LLInterpreter,
        vocabulary: int,
        sampling: Sampling | SamplingParams | None,
        cancelled: threading.Event | None,
        usage: Usage,
        logprobs: LogProbs | None,
        images: Iterable[PreparedImage] = (),
    ) -> None:
        """`tokens`: the prompt as `parser` returned it, with the image tokens of `images`. `usage` and `logprobs` are
        updated; `cancelled` may be set at any time."""
        super().__init__(tokens, cancelled, usage, images)
        self.sampling: dict[str, Any] = dict(sampling or {})
        self.logprobs = logprobs
        self.parser = parser
        self.lookup = PromptLookup(tokens)
        self.unchanged = 0
        """The number of the prompt's first tokens that are as they were. Its last ones may be tokenized anew."""
        self.chosen: list[int] = []
        """The places in `tokens` of those that the model chose among several."""
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
        self._shares = True
        """Whether the parser shares caches with others."""
        self._history: list[int | None] = []
        """The calls of the parser: a token that was committed, or None for a mask."""
        self._failed_step: int | None = None
        """The call that raised `SharedLimitError`."""
        self.seconds = 0.0
        """CPU time of the calls."""

    @property
    def out_of_tokens(self) -> bool:
        """Whether the `max_tokens` of the whole grammar are used up. llguidance raises an error in that case."""
        return bool(self.parser.stop_reason() == "MaxTokensTotal")

    def allows(self, token: int) -> bool:
        """Whether the grammar allows `token` next, by `mask`."""
        return bool(self._buffer[token >> 3] >> (token & 7) & 1)

    def look_ahead(self) -> bool:
        """Compute `mask`, the tokens that the grammar allows next. False if the grammar is complete."""
        if not self._looked:
            status = self._step(None)
            self.unread += status["progress"]
            self.temperature = status["temperature"] or self.sampling.get("temperature", 0.0)
            self._looked = True
            return not status["stop"]
        return True

    def commit(self, token: int) -> bool:
        """Add the token that the model chose, and those that the grammar then forces. False if that was the end."""
        has_choice = self._has_choice()
        backtrack, forced = self._step(token)
        self._looked = False
        self.usage.completion_tokens += 1
        self.usage.forced_tokens += len(forced) - (forced[:1] == [token])
        if backtrack:
            self.tokens = self.tokens[:-backtrack]
            self.unchanged = min(self.unchanged, len(self.tokens))
            while self.chosen and self.chosen[-1] >= len(self.tokens):
                self.chosen.pop()
            if self.slot is not None:
                self.slot.cached_tokens = self.slot.cached_tokens[: len(self.tokens)]
        if has_choice and forced[:1] == [token]:
            self.chosen.append(len(self.tokens))
        self.tokens = self.tokens + forced
        return self.look_ahead() if self.parser.has_pending_stop() else True

    def _has_choice(self) -> bool:
        """Whether the grammar allows several tokens next, by `mask`."""
        bits = int.from_bytes(self._buffer, "little")
        return bool(bits & (bits - 1)) if bits else False

    def recover(self, parser: llguidance.LLInterpreter) -> bool:
        """After `SharedLimitError`: continue with `parser`, which shares nothing, and do again what was done so far.
        False if the grammar is complete then. It may take long, so the scheduler's thread must not call it."""
        self.parser, self._shares, self.seconds = parser, False, 0.0
        history, self._history = self._history, []
        for before in history:
            self._step(before)
        return self.look_ahead() if self._failed_step is None else self.commit(self._failed_step)

    def _step(self, step: int | None) -> Any:
        """Call the parser: commit the token `step`, or for None compute the mask.

        Raises `GrammarTooComplexError` if the text's grammar takes too long or exceeds llguidance's limits. Copies of
        a compiled grammar share llguidance's caches and their limits; if such a copy exceeds one, this raises
        `SharedLimitError`.
        """
        began, trouble = time.thread_time(), None
        try:
            if step is None:
                answer = json.loads(self.parser.compute_mask_into(self._buffer))
                self.may_end = self.parser.is_accepting()
            else:
                answer = self.parser.commit_token(step)
            if self.parser.stop_reason() in LIMITS:
                trouble = too_costly_to_follow()
        except BaseException as error:  # boundary: of llguidance, whose panics are no Exceptions
            if self.out_of_tokens or not (self._shares or self.parser.stop_reason() in LIMITS or is_panic(error)):
                raise
            trouble = too_costly_to_follow()
            trouble.__cause__ = error
        self.seconds += time.thread_time() - began
        if trouble is not None:
            if not self._shares:
                raise trouble
            self._failed_step = step
            raise SharedLimitError from trouble
        self._history.append(step)
        allowed = DECODE_SECONDS + TOKEN_SECONDS * len(self._history)
        if self.seconds > allowed:
            raise too_costly_to_follow(allowed)
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
        self.unread = []

    def progress(self) -> Iterator[tuple[Progress, bool]]:
        """Progress as it comes, each with whether it is the last. Raises the error that ended the sequence."""
        while True:
            sent = self._outbox.get()
            if isinstance(sent, BaseException):
                raise sent
            yield sent or [], sent is None
            if sent is None:
                return
