"""The thread that owns the model: every sequence that is being written takes part in each forward pass."""

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

import torch

from server.engine.kv_cache import Memory, common_prefix, is_out_of_memory
from server.engine.offload import GivenBack, Weights
from server.engine.prompt_lookup import LONGEST, Drafts
from server.engine.sampling import choose
from server.engine.sequence import Sequence
from server.errors import (
    ModelAsleepError,
    ModelNotLoadedError,
    OutOfMemoryError,
    PromptTooLongError,
    RunCancelledError,
)
from server.observability import metrics

#: New tokens a pass: a longer prompt is read in pieces, beside the others' decoding.
TOKENS_A_PASS = 512
#: Guessed tokens are read beside others as long as all are no more than this: what is hardly slower than one alone.
TOKENS_WITH_DRAFTS = 64
#: Seconds between two tellings of a reader, who else would wake up for every token.
TELLING = 0.03
#: Tokens. A beginning that is longer by so many than what is known, and that somebody else is just reading, is waited
#: for.
WORTH_WAITING = 32


@dataclass
class Reading:
    """What the model reads of a sequence in a pass: `new` tokens, with which it has `end`, and guesses behind them.

    `logits` is the row of the pass's logits that tells what follows, once it is known where that is.
    """

    sequence: Sequence
    new: list[int]
    end: int
    draft: list[int] = field(default_factory=list)
    logits: int = 0

    def goes_on(self) -> bool:
        """Whether what the text goes on with was guessed, so that the pass tells its next token as well. What was
        guessed wrong is taken back."""
        row, tokens = self.sequence.row, self.sequence.tokens
        assert row is not None
        start = min(self.end, len(row.held))
        agreeing = start + common_prefix(row.held[start:], tokens[start:])
        right = agreeing - self.end
        if right > 0 and agreeing == len(tokens):
            return True
        row.held = row.held[: min(agreeing, len(tokens) - 1)]
        if self.draft:
            self.sequence.draft.judge(right)
        return False


Batch = list[Reading]


class Decoder:
    """Writes sequences until their grammars end.

    What a sequence has in KV memory counts as there only after the pass that wrote it, so a pass can always be
    repeated: one that fails is tried again with each sequence alone, and those fail that fail alone.

    While it is asleep it takes no sequences, and holds no KV memory and no weights on another device than the CPU.
    """

    def __init__(self, memory: Memory, weights: Weights, end_token: int, context_length: int, threads: int) -> None:
        """`end_token` ends a text; `context_length` is how many tokens the model reads at most; `threads` of the CPU
        run a pass."""
        self._memory = memory
        self._drafts = Drafts()
        self._weights = weights
        self._end_token = end_token
        self._context_length = context_length
        self._threads = threads
        self._changed = threading.Condition()
        self._arrived: list[Sequence] = []
        self._closed = False
        self._asleep = False
        """No sequences are taken; those that were are written to their end."""
        self._errand: tuple[Callable[[], GivenBack | None], Future[GivenBack | None]] | None = None
        """What the thread is to do when no sequence is being written."""
        self._waiting: deque[Sequence] = deque()
        self._active: list[Sequence] = []
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, sequence: Sequence) -> None:
        """Write `sequence`, from the next pass on that has a place for it."""
        with self._changed:
            if self._closed:
                raise _unloaded()
            if self._asleep:
                raise ModelAsleepError("The model is asleep. POST /wake brings it back.")
            self._arrived.append(sequence)
            self._changed.notify()

    def sleep(self) -> GivenBack:
        """Give up KV memory and, on another device than the CPU, the weights' place, once what is being written has
        ended. New sequences are refused from now on, with ModelAsleepError, until `wake`.

        Raises what `Weights.move_out` raises; then it is awake. Not for several threads at once, as `wake` isn't.
        """
        with self._changed:
            self._asleep = True
        try:
            given = self._run_between(self._fall_asleep)
        except BaseException:
            self._asleep = False
            raise
        assert given is not None
        return given

    def wake(self) -> None:
        """Be as before `sleep`. Raises what `Weights.move_back` raises; then it sleeps on."""
        self._run_between(self._weights.move_back)
        self._asleep = False

    def close(self) -> None:
        """End the thread and give the memory back; what is still being written ends with ModelNotLoadedError."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run_between(self, errand: Callable[[], GivenBack | None]) -> GivenBack | None:
        """What `errand` gives on the model's thread, when no sequence is being written there."""
        done: Future[GivenBack | None] = Future()
        with self._changed:
            if self._closed:
                raise _unloaded()
            self._errand = (errand, done)
            self._changed.notify()
        return done.result()

    def _fall_asleep(self) -> GivenBack:
        weights_bytes = self._weights.move_out()
        kv_bytes = self._memory.bytes
        self._memory.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return GivenBack(kv_bytes, weights_bytes)

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        while not self._closed:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._arrived or self._waiting or self._active or self._errand
                )
                self._waiting += self._arrived
                self._arrived.clear()
                errand = None
                if not self._waiting and not self._active:
                    errand, self._errand = self._errand, None
            if errand is not None:
                _do(*errand)
                continue
            try:
                self._round()
            except Exception as error:  # boundary: whatever it is, nobody may wait for ever
                for sequence in [*self._active, *self._waiting]:
                    self._end(sequence, error)
        with self._changed:
            self._waiting += self._arrived
            errand, self._errand = self._errand, None
        if errand is not None:
            errand[1].set_exception(_unloaded())
        for sequence in [*self._active, *self._waiting]:
            self._end(sequence, _unloaded())
        self._memory.clear()

    def _round(self) -> None:
        """One pass, and what comes before and after it."""
        for sequence in [*self._active, *self._waiting]:
            if sequence.abandoned or sequence.cancelled.is_set():
                self._end(sequence, RunCancelledError("The run was cancelled before it had an answer. Ask again."))
            elif len(sequence.tokens) >= self._context_length:
                self._end(sequence, too_long(len(sequence.tokens), self._context_length))
        self._make_room()
        self._admit()
        # Those that are decoding bring a token or a few; a prompt takes what they leave.
        batch: Batch = []
        room = TOKENS_A_PASS
        for sequence in sorted(self._active, key=lambda one: len(one.new)):
            reading = self._reading(sequence, room)
            if reading.new:
                batch.append(reading)
                room -= len(reading.new)
        room -= TOKENS_A_PASS - TOKENS_WITH_DRAFTS
        for reading in batch:
            reading.draft = self._draft(reading, room // len(batch))
        if batch:
            self._pass(batch)

    def _make_room(self) -> None:
        """Longer rows where a sequence outgrows them; where there is no memory for so many, the last ones wait."""
        while self._active:
            longest = max(self._active, key=lambda sequence: len(sequence.tokens))
            try:
                if self._memory.reach(len(longest.tokens)):
                    return
            except Exception as error:  # boundary: of the device
                self._refuse(longest, error)
                continue
            last = self._active.pop()
            self._release(last)
            self._waiting.appendleft(last)

    def _admit(self) -> None:
        """Give a row to those that wait, in the order of their arrival, as long as there are any."""
        for sequence in list(self._waiting):
            if self._read_by_another(sequence):
                continue
            try:
                row = self._memory.take(sequence.tokens)
            except Exception as error:  # boundary: of the device
                self._refuse(sequence, error)
                self._make_room()
                continue
            if row is None:
                return
            sequence.row = row
            if not sequence.usage.forward_passes:
                sequence.usage.cached_tokens = min(len(row.held), sequence.usage.prompt_tokens - 1)
            self._waiting.remove(sequence)
            self._active.append(sequence)

    def _read_by_another(self, sequence: Sequence) -> bool:
        """Whether a good part of its beginning is just being read for somebody else."""
        ahead = max(
            (
                common_prefix(other.tokens, sequence.tokens)
                for other in self._active
                if len(other.new) > WORTH_WAITING
            ),
            default=0,
        )
        return ahead > WORTH_WAITING and ahead > self._memory.known(sequence.tokens) + WORTH_WAITING

    def _reading(self, sequence: Sequence, most: int) -> Reading:
        """At most so many tokens of what the model has not read of it."""
        assert sequence.row is not None
        new = sequence.new[:most]
        return Reading(sequence, new, len(sequence.row.held) + len(new))

    def _draft(self, reading: Reading, most: int) -> list[int]:
        sequence, row = reading.sequence, reading.sequence.row
        assert row is not None
        most = min(most, LONGEST, self._context_length - reading.end, self._memory.spare(row) - len(reading.new))
        if most <= 0 or reading.end < len(sequence.tokens):
            return []
        return list(sequence.draft.next(sequence.tokens, most, self._drafts))

    def _pass(self, batch: Batch) -> None:
        try:
            logits = self._memory.run(
                [(one.sequence.row, one.new + one.draft) for one in batch if one.sequence.row],
                [1 + len(one.draft) for one in batch],
            )
            likeliest = logits.argmax(-1)
        except Exception as error:  # boundary: the model's code comes from elsewhere
            self._failed([one.sequence for one in batch], error)
            return
        metrics.PASSES.inc()
        metrics.BATCH.observe(len(batch))
        # On a GPU the pass is only under way, and what follows is done beside it.
        ready = []
        for one, end in zip(batch, accumulate(1 + len(one.draft) for one in batch), strict=True):
            one.logits = end - 1 - len(one.draft)
            one.sequence.usage.forward_passes += 1
            if one.end == len(one.sequence.tokens) and self._guarded(one.sequence, one.sequence.look_ahead):
                ready.append(one)
        while ready:
            ready = self._choose(logits, likeliest, ready)

    def _choose(self, logits: torch.Tensor, likeliest: torch.Tensor, ready: Batch) -> Batch:
        """Each sequence's next token. Gives those of which the pass tells the one behind it as well."""
        sequences = [one.sequence for one in ready]
        try:
            places = [one.logits for one in ready]
            tokens = choose(logits, places, likeliest.tolist(), sequences, self._end_token)
        except Exception as error:  # boundary: of the device, which may tell only here that the pass went wrong
            for sequence in sequences:
                assert sequence.row is not None
                sequence.row.held = sequence.row.held[: len(sequence.tokens) - 1]
            self._failed(sequences, error)
            return []
        now = time.monotonic()
        further = []
        for one, token in zip(ready, tokens, strict=True):
            sequence = one.sequence
            behind = len(sequence.tokens)
            if not self._guarded(sequence, partial(sequence.commit, token)):
                continue
            if now - sequence.told_at > TELLING:
                sequence.tell(now)
            if one.goes_on() and self._guarded(sequence, sequence.look_ahead):
                one.logits += len(sequence.tokens) - behind
                further.append(one)
        return further

    def _guarded(self, sequence: Sequence, step: Callable[[], bool]) -> bool:
        """Whether the sequence goes on after a `step` of its grammar; else it has ended."""
        try:
            goes_on = step()
        except Exception as error:  # boundary: of llguidance
            self._end(sequence, None if sequence.out_of_tokens else error)
            return False
        if not goes_on:
            self._end(sequence)
        return goes_on

    def _failed(self, sequences: list[Sequence], error: Exception) -> None:
        """Find out whom a failed pass was about."""
        if len(sequences) == 1:
            self._refuse(sequences[0], error)
            return
        self._let_go(error)
        for sequence in sequences:
            self._pass([self._reading(sequence, TOKENS_A_PASS)])

    def _refuse(self, sequence: Sequence, error: Exception) -> None:
        """End a sequence that an error is about."""
        self._let_go(error)
        if is_out_of_memory(error):
            refused = OutOfMemoryError(
                f"There was not enough memory for a text of {len(sequence.tokens)} tokens. Ask again when fewer "
                "questions are under way, ask a shorter one, or load a smaller model."
            )
            refused.__cause__ = error
            self._end(sequence, refused)
        else:
            self._end(sequence, error)

    def _let_go(self, error: Exception) -> None:
        """Give back what an error holds on to: by its frames, all that the failed pass had made. Where there is no
        memory, what idle rows hold as well."""
        traceback.clear_frames(error.__traceback__)
        if is_out_of_memory(error):
            self._give_back()

    def _give_back(self) -> None:
        self._memory.forget()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _end(self, sequence: Sequence, error: BaseException | None = None) -> None:
        if sequence in self._active:
            self._active.remove(sequence)
        else:
            self._waiting.remove(sequence)
        self._release(sequence)
        self._drafts.remember(sequence.tokens, sequence.draft.start)
        sequence.end(error)

    def _release(self, sequence: Sequence) -> None:
        if sequence.row is not None:
            self._memory.give_back(sequence.row)
            sequence.row = None


def _do(errand: Callable[[], GivenBack | None], done: "Future[GivenBack | None]") -> None:
    try:
        done.set_result(errand())
    except Exception as error:  # boundary: whoever waits for it is told
        done.set_exception(error)


def too_long(length: int, limit: int) -> PromptTooLongError:
    """The error of a text that outgrew the model's window; both in tokens."""
    return PromptTooLongError(
        f"The text is {length} tokens long, and the model reads at most {limit}. "
        "Ask a shorter question, or load a model with a longer window.",
        tokens=length,
        limit=limit,
    )


def _unloaded() -> ModelNotLoadedError:
    return ModelNotLoadedError("The model was unloaded. POST /load_model loads one.")
