"""The scheduler: a thread that owns the model. Each forward pass serves all active sequences.

Over 400 lines, because one thread has all of its state.
"""

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, takewhile

import torch

from server.engine.images import FIRST_ID
from server.engine.kv_cache import KVCache, common_prefix, is_out_of_memory
from server.engine.offload import FreedMemory, Weights
from server.engine.prompt_lookup import MAX_DRAFT_TOKENS, RecentTexts
from server.engine.sampling import choose
from server.engine.scored_text import ScoredText
from server.engine.sequence import Sequence
from server.engine.text import Text
from server.engine.tokenizer import too_long
from server.errors import (
    ModelAsleepError,
    ModelNotLoadedError,
    OutOfMemoryError,
    RunCancelledError,
)
from server.observability import metrics

#: Maximum number of new tokens a pass. Longer prompts are split into chunks, so that others decode meanwhile.
TOKENS_A_PASS = 512
#: Draft tokens are added up to this number of tokens a pass, which takes hardly longer than a pass of one token.
TOKENS_WITH_DRAFTS = 64
#: Minimum seconds between two messages to a reader, so that it need not wake up for every token.
SEND_INTERVAL = 0.03
#: Tokens. A sequence waits if another one is reading a shared prefix that exceeds what is cached by this number.
WORTH_WAITING = 32


@dataclass
class Chunk:
    """The tokens of one sequence in a pass: `new` ones, after which `end` tokens are cached, and then draft tokens.

    `logits`: the row of the pass's logits after the last token that is known to be right.
    """

    sequence: Sequence
    new: list[int]
    end: int
    draft_tokens: list[int] = field(default_factory=list)
    logits: int = 0

    @property
    def tokens(self) -> list[int]:
        """The tokens that the model reads."""
        return self.new + self.draft_tokens

    @property
    def rows(self) -> int:
        """After how many of the last ones logits are needed."""
        return 1 + len(self.draft_tokens)

    def verify_draft(self) -> bool:
        """Compare the draft with the tokens that were chosen. True if the draft has them all, so that this pass has
        the logits of the next token as well. Otherwise the rejected draft tokens are dropped."""
        slot, tokens = self.sequence.slot, self.sequence.tokens
        assert slot is not None
        start = min(self.end, len(slot.cached_tokens))
        matching = start + common_prefix(slot.cached_tokens[start:], tokens[start:])
        accepted = matching - self.end
        if accepted > 0 and matching == len(tokens):
            return True
        slot.cached_tokens = slot.cached_tokens[: min(matching, len(tokens) - 1)]
        if self.draft_tokens:
            self.sequence.lookup.report(accepted)
        return False


@dataclass
class ScoredChunk:
    """The tokens of a scored text in a pass. `scored`: those whose successors are scored, the last ones."""

    sequence: ScoredText
    new: list[int]
    scored: int
    end: int

    @property
    def tokens(self) -> list[int]:
        """See `Chunk`."""
        return self.new

    @property
    def rows(self) -> int:
        """See `Chunk`. A pass gives at least one."""
        return max(self.scored, 1)


Batch = list[Chunk]


class Scheduler:
    """Decodes sequences until their grammars end.

    A token counts as cached only after the pass that wrote it, so a pass can always be repeated. A pass that fails is
    repeated with each sequence alone, and only a sequence that fails alone gets the error.

    An asleep scheduler accepts no sequences, and has neither a KV cache nor weights on a device other than the CPU.
    """

    def __init__(
        self, kv_cache: KVCache, weights: Weights, end_token: int, context_length: int, threads: int
    ) -> None:
        """`end_token`: the end of a text. `context_length`: the maximum number of tokens that the model reads.
        `threads`: CPU threads of a pass."""
        self._kv_cache = kv_cache
        self._recent_texts = RecentTexts()
        self._weights = weights
        self._end_token = end_token
        self._context_length = context_length
        self._threads = threads
        self._changed = threading.Condition()
        self._arrived: list[Text] = []
        self._closed = False
        self._asleep = False
        """New sequences are refused. Those that were accepted still run to their end."""
        self._errand: tuple[Callable[[], FreedMemory | None], Future[FreedMemory | None]] | None = None
        """What the thread does as soon as no sequence is active or waiting."""
        self._waiting: deque[Text] = deque()
        self._active: list[Text] = []
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, sequence: Text) -> None:
        """Decode or score `sequence`, from the next pass that has a slot for it."""
        with self._changed:
            if self._closed:
                raise _unloaded()
            if self._asleep:
                raise ModelAsleepError("The model is asleep. POST /wake brings it back.")
            self._arrived.append(sequence)
            self._changed.notify()

    def sleep(self) -> FreedMemory:
        """Free the KV cache and offload the weights to the host, after all accepted sequences have ended. New
        sequences are refused with ModelAsleepError until `wake`.

        Raises what `Weights.offload` raises; then it stays awake. Like `wake`, not safe for several threads at once.
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
        """Undo `sleep`. Raises what `Weights.restore` raises; then it stays asleep."""
        self._run_between(self._weights.restore)
        self._asleep = False

    def close(self) -> None:
        """Stop the thread and free the KV cache. Active sequences end with ModelNotLoadedError."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run_between(self, errand: Callable[[], FreedMemory | None]) -> FreedMemory | None:
        """Run `errand` on the model's thread while no sequence is active, and return its result."""
        done: Future[FreedMemory | None] = Future()
        with self._changed:
            if self._closed:
                raise _unloaded()
            self._errand = (errand, done)
            self._changed.notify()
        return done.result()

    def _fall_asleep(self) -> FreedMemory:
        weights_bytes = self._weights.offload()
        kv_bytes = self._kv_cache.bytes
        self._kv_cache.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return FreedMemory(kv_bytes, weights_bytes)

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
            except Exception as error:  # boundary: any error must reach the readers, or they wait for ever
                for sequence in [*self._active, *self._waiting]:
                    self._end(sequence, error)
        with self._changed:
            self._waiting += self._arrived
            errand, self._errand = self._errand, None
        if errand is not None:
            errand[1].set_exception(_unloaded())
        for sequence in [*self._active, *self._waiting]:
            self._end(sequence, _unloaded())
        self._kv_cache.clear()

    def _round(self) -> None:
        """Prepare and run one pass."""
        for sequence in [*self._active, *self._waiting]:
            if sequence.abandoned or sequence.cancelled.is_set():
                self._end(sequence, RunCancelledError("The run was cancelled before it had an answer. Ask again."))
            elif len(sequence.tokens) >= self._context_length:
                self._end(sequence, too_long(len(sequence.tokens), self._context_length, sequence.image_tokens))
        self._make_room()
        self._admit()
        # Decoding sequences have one or a few new tokens each; prompts get the rest.
        batch: list[Chunk | ScoredChunk] = []
        room = TOKENS_A_PASS
        for sequence in sorted(self._active, key=lambda one: len(one.new)):
            chunk = self._chunk(sequence, room)
            if chunk.new:
                batch.append(chunk)
                room -= len(chunk.new)
        room -= TOKENS_A_PASS - TOKENS_WITH_DRAFTS
        for chunk in batch:
            if isinstance(chunk, Chunk):
                chunk.draft_tokens = self._draft(chunk, room // len(batch))
        if batch:
            self._pass(batch)

    def _make_room(self) -> None:
        """Make slots longer if a sequence outgrows them. Without memory for all, the last sequences wait again."""
        while self._active:
            longest = max(self._active, key=lambda sequence: len(sequence.tokens))
            try:
                if self._kv_cache.ensure_capacity(len(longest.tokens)):
                    return
            except Exception as error:  # boundary: of the device
                self._refuse(longest, error)
                continue
            last = self._active.pop()
            self._release(last)
            self._waiting.appendleft(last)

    def _admit(self) -> None:
        """Give free slots to waiting sequences, in the order of their arrival."""
        for sequence in list(self._waiting):
            if self._read_by_another(sequence):
                continue
            try:
                slot = self._kv_cache.take(sequence.tokens)
            except Exception as error:  # boundary: of the device
                self._refuse(sequence, error)
                self._make_room()
                continue
            if slot is None:
                return
            sequence.use(slot)
            if not sequence.usage.forward_passes:
                sequence.usage.cached_tokens = min(len(slot.cached_tokens), sequence.usage.prompt_tokens - 1)
            self._waiting.remove(sequence)
            self._active.append(sequence)

    def _read_by_another(self, sequence: Text) -> bool:
        """Whether a long prefix of it is just being read for another sequence."""
        ahead = max(
            (
                common_prefix(other.tokens, sequence.tokens)
                for other in self._active
                if len(other.new) > WORTH_WAITING
            ),
            default=0,
        )
        return ahead > WORTH_WAITING and ahead > self._kv_cache.prefix_match(sequence.tokens) + WORTH_WAITING

    def _chunk(self, sequence: Text, most: int) -> Chunk | ScoredChunk:
        """Up to `most` tokens of the sequence that the model has not read yet."""
        assert sequence.slot is not None
        if isinstance(sequence, ScoredText):
            # No more than its share: rows of logits take time, and leave less room for the others' draft tokens.
            new, scored = sequence.chunk(most, max(TOKENS_WITH_DRAFTS // len(self._active), 1))
            return ScoredChunk(sequence, new, scored, len(sequence.slot.cached_tokens) + len(new))
        assert isinstance(sequence, Sequence), "there are two kinds of texts"
        new = sequence.new[:most]
        return Chunk(sequence, new, len(sequence.slot.cached_tokens) + len(new))

    def _draft(self, chunk: Chunk, most: int) -> list[int]:
        sequence, slot = chunk.sequence, chunk.sequence.slot
        assert slot is not None
        most = min(
            most,
            MAX_DRAFT_TOKENS,
            self._context_length - chunk.end,
            self._kv_cache.spare_capacity(slot) - len(chunk.new),
        )
        if most <= 0 or chunk.end < len(sequence.tokens):
            return []
        proposed = sequence.lookup.propose(sequence.tokens, most, self._recent_texts)
        # No model chooses an image token.
        return list(takewhile(lambda token: token < FIRST_ID, proposed))

    def _pass(self, batch: list[Chunk | ScoredChunk]) -> None:
        try:
            logits = self._kv_cache.run(
                [(one.sequence.slot, one.tokens) for one in batch if one.sequence.slot],
                [one.rows for one in batch],
            )
            likeliest = logits.argmax(-1)
        except Exception as error:  # boundary: the model's code comes from elsewhere
            self._failed([one.sequence for one in batch], error)
            return
        metrics.PASSES.inc()
        metrics.BATCH.observe(len(batch))
        # On a GPU the pass is still running, and the grammars are computed meanwhile.
        ready = []
        for one, end in zip(batch, accumulate(one.rows for one in batch), strict=True):
            if isinstance(one, ScoredChunk):
                self._score(one, logits[end - one.rows : end])
                continue
            one.logits = end - 1 - len(one.draft_tokens)
            one.sequence.usage.forward_passes += 1
            if one.end == len(one.sequence.tokens) and self._guarded(one.sequence, one.sequence.look_ahead):
                ready.append(one)
        while ready:
            ready = self._choose(logits, likeliest, ready)

    def _score(self, chunk: ScoredChunk, logits: torch.Tensor) -> None:
        """Score the tokens that follow those of a chunk, if they are to be scored."""
        sequence = chunk.sequence
        sequence.usage.forward_passes += 1
        if chunk.scored:
            try:
                continues = sequence.read(logits)
            except Exception as error:  # boundary: of the device
                self._refuse(sequence, error)
            else:
                if not continues:
                    self._end(sequence)

    def _choose(self, logits: torch.Tensor, likeliest: torch.Tensor, ready: Batch) -> Batch:
        """Choose each sequence's next token. Returns those for which this pass has the logits after it as well."""
        sequences = [one.sequence for one in ready]
        try:
            places = [one.logits for one in ready]
            tokens = choose(logits, places, likeliest.tolist(), sequences, self._end_token)
        except Exception as error:  # boundary: of the device, which may report a failed pass only here
            for sequence in sequences:
                assert sequence.slot is not None
                sequence.slot.cached_tokens = sequence.slot.cached_tokens[: len(sequence.tokens) - 1]
            self._failed(list(sequences), error)
            return []
        now = time.monotonic()
        further = []
        for one, token in zip(ready, tokens, strict=True):
            sequence = one.sequence
            length = len(sequence.tokens)
            if not self._guarded(sequence, partial(sequence.commit, token)):
                continue
            if now - sequence.sent_at > SEND_INTERVAL:
                sequence.send(now)
            if one.verify_draft() and self._guarded(sequence, sequence.look_ahead):
                one.logits += len(sequence.tokens) - length
                further.append(one)
        return further

    def _guarded(self, sequence: Sequence, step: Callable[[], bool]) -> bool:
        """Run a `step` of the sequence's grammar. Returns whether the sequence continues; otherwise it has ended."""
        try:
            continues = step()
        except Exception as error:  # boundary: of llguidance
            self._end(sequence, None if sequence.out_of_tokens else error)
            return False
        if not continues:
            self._end(sequence)
        return continues

    def _failed(self, sequences: list[Text], error: Exception) -> None:
        """Repeat a failed pass with each sequence alone, to find the one that fails."""
        if len(sequences) == 1:
            self._refuse(sequences[0], error)
            return
        self._free(error)
        for sequence in sequences:
            self._pass([self._chunk(sequence, TOKENS_A_PASS)])

    def _refuse(self, sequence: Text, error: Exception) -> None:
        """End a sequence with the error that it causes."""
        self._free(error)
        if is_out_of_memory(error):
            refused = OutOfMemoryError(
                f"There was not enough memory for a text of {len(sequence.tokens)} tokens. Ask again when fewer "
                "questions are under way, ask a shorter one, or load a smaller model."
            )
            refused.__cause__ = error
            self._end(sequence, refused)
        else:
            self._end(sequence, error)

    def _free(self, error: Exception) -> None:
        """Free what an error references: its frames hold the tensors of the failed pass. Without memory, free idle
        slots as well."""
        traceback.clear_frames(error.__traceback__)
        if is_out_of_memory(error):
            self._drop_idle()

    def _drop_idle(self) -> None:
        self._kv_cache.drop_idle()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _end(self, sequence: Text, error: BaseException | None = None) -> None:
        if sequence in self._active:
            self._active.remove(sequence)
        else:
            self._waiting.remove(sequence)
        self._release(sequence)
        if isinstance(sequence, Sequence):
            self._recent_texts.remember(sequence.tokens, sequence.lookup.start)
        sequence.end(error)

    def _release(self, sequence: Text) -> None:
        if sequence.slot is not None:
            self._kv_cache.release(sequence.slot)
            sequence.slot = None


def _do(errand: Callable[[], FreedMemory | None], done: "Future[FreedMemory | None]") -> None:
    try:
        done.set_result(errand())
    except Exception as error:  # boundary: the caller gets the error
        done.set_exception(error)


def _unloaded() -> ModelNotLoadedError:
    return ModelNotLoadedError("The model was unloaded. POST /load_model loads one.")
