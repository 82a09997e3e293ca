"""The guidance engine over the resident model.

Over 400 lines: guidance has one class for it.
"""

import codecs
import json
import logging
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from collections.abc import Sequence as Several
from contextlib import closing
from itertools import chain
from typing import Any, ClassVar, Literal

import guidance
import llguidance
import psutil
import torch
from guidance._schema import EngineResponse, SamplingParams, StepConfig, TokenUsage
from guidance.models import Model
from guidance.models._engine import Engine, EngineState
from guidance.models._engine._engine import LogitsOutput
from guidance.models._engine._interpreter import recode_special_tokens
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from server.engine import stop_sequences
from server.engine.compiled_grammars import CompiledGrammars, is_panic, too_costly_to_follow
from server.engine.image_features import ImageProbe
from server.engine.kv_cache import common_prefix
from server.engine.offload import FreedMemory, Weights
from server.engine.per_sequence_cache import PerSequenceCache
from server.engine.scheduler import Scheduler
from server.engine.scored_text import BEST, ScoredText, ScoredToken
from server.engine.sequence import ENDS, Progress, Sampling, Sequence, SharedLimitError
from server.engine.slot_kv_cache import SlotKVCache, fits, tolerance
from server.engine.tokenizer import EngineTokenizer, Prompt, too_long
from server.errors import InvalidRequestError, OutOfTokensError, PromptTooLongError
from server.images.image_part import ImagePart
from server.observability import metrics, tracing
from server.sdk import context, model_call, usage
from server.sdk.model_call import ModelCall
from server.sdk.program import Program
from server.sdk.schema_grammar import grammar_schema

log = logging.getLogger(__name__)

#: Number of weights. Smaller models run on one CPU thread, because sharing their short passes costs more than it
#: saves.
SMALL = 20_000_000
#: torch's default: the number of cores, or OMP_NUM_THREADS. Read before any engine changes it.
THREADS = torch.get_num_threads()
#: CPU time. A grammar that took a text longer is not cached: its lexer has many states.
SLOW_SECONDS = 0.1
#: Bytes. Longer ones are rare.
LONGEST_TOKEN = 64
#: llguidance's prefix for captures that belong to a list.
LIST_PREFIX = "__LIST_APPEND:"


class GuidedEngine(Engine):
    """Runs guidance grammars on a Transformers model. Any number of threads may call it at once. They share forward
    passes, and each gets the same text as alone."""

    guided: ClassVar[Literal[True]] = True
    """It supports grammars; see `server.sdk.GuidedModel`."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        kv_bytes: int | None = None,
        processor: Any = None,
        no_images: str = "The model takes no images.",
    ) -> None:
        """`kv_bytes`: the maximum size of the KV cache; None: most of the free GPU memory, or a part of the main
        memory (see `share_kv_memory`). `processor`: of a model that takes images; None
        for another one, with the reason as a sentence in `no_images`.

        The engine owns the model. `close` releases it, and so does dropping the engine.
        """
        # Some tokenizers have tokens without a logit, which are never chosen; most models have unused logits.
        self._vocabulary = max(model.get_output_embeddings().weight.shape[0], len(tokenizer))
        self.context_length: int = model.config.get_text_config().max_position_embeddings
        super().__init__(
            tokenizer=EngineTokenizer(tokenizer, self._vocabulary, self.context_length), enable_monitoring=False
        )
        self.tokenizer: EngineTokenizer
        self.sampling = _advised(model.generation_config)
        """The sampling parameters of the model's generation config; greedy if it has none. For callers that set
        none."""
        self._grammars = CompiledGrammars(self.tokenizer._ll_tokenizer, self.tokenizer.vocabulary)
        self._model = model
        self._shares = kv_bytes is None
        # It runs the model with its own attention, which the KV cache changes.
        probe = None if processor is None else ImageProbe(model, processor)
        self._kv_cache: SlotKVCache | PerSequenceCache = (
            SlotKVCache(model, kv_bytes or _affordable(model.device)) if fits(model) else PerSequenceCache(model)
        )
        self.no_images = no_images if probe is None else self._take_images(probe)
        """Why the model takes no images, in a sentence; empty if it does."""
        self._weights = Weights(model)
        threads = 1 if model.num_parameters() < SMALL else THREADS
        self._scheduler = Scheduler(
            self._kv_cache, self._weights, self.tokenizer.eos_token_id, self.context_length, threads
        )
        self._scoring = threading.Lock()
        self._token_names = {token: name for name, token in self.tokenizer.control_tokens.items()}
        self.close = weakref.finalize(self, _close, self._scheduler, self._grammars)
        """Ends all sequences and releases the model."""

    @property
    def takes_images(self) -> bool:
        """Whether the model sees the pictures whose marks are in its messages."""
        return not self.no_images

    def image_tokens(self, part: ImagePart) -> int:
        """The number of tokens that a picture takes in a prompt, of a model that takes images. The picture is
        prepared, which takes tenths of a second. Raises `ImageNotFoundError`."""
        reader = self.tokenizer.images
        assert reader is not None, "the model takes images"
        return self.tokenizer.count(reader.prepare(part).text)

    @property
    def kv_bytes(self) -> int:
        """The size of the KV cache now."""
        return self._kv_cache.bytes

    @property
    def weights_bytes(self) -> int:
        """The size of the weights, also while they are offloaded. Not to be read while they move."""
        return self._weights.bytes

    def share_kv_memory(self, engines: int) -> None:
        """Set the budget of the KV cache: what it has now, and an equal share of the free memory among so many
        engines on this device. No effect if `kv_bytes` was given."""
        if self._shares and isinstance(self._kv_cache, SlotKVCache):
            self._kv_cache.budget = self._kv_cache.bytes + _affordable(self._model.device) // engines

    def sleep(self) -> FreedMemory:
        """Free the KV cache and, on a GPU, offload the weights, after all sequences have ended.

        Calls raise ModelAsleepError until `wake`. Raises OutOfMemoryError if the host has too little memory for the
        weights, and ModelCannotSleepError; then the engine stays awake.
        """
        return self._scheduler.sleep()

    def wake(self) -> None:
        """Undo `sleep`; the KV cache is empty. Raises OutOfMemoryError if the device has too little memory; then the
        engine stays asleep."""
        self._scheduler.wake()

    def program(self) -> Model:
        """A fresh guidance model object: `lm = engine.program(); lm += gen(...)`."""
        return Program(self)

    def complete(
        self,
        messages: list[dict[str, str]],
        *,
        max_tokens: int,
        stop: Several[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> str:
        """The assistant's next message, at most `max_tokens` long: free text up to the first of the `stop` sequences,
        or JSON by `schema`, which may be cut off at the limit. Raises what calling the engine raises."""
        prompt = self.tokenizer.render_chat(messages)
        return self.tokenizer.reveal(self.write(prompt, max_tokens, stop or (), schema))

    def write(
        self, prompt: str, max_tokens: int, stop: Several[str] = (), schema: Mapping[str, Any] | None = None
    ) -> str:
        """The same as a continuation of `prompt`, in the form that guidance and the model read."""
        grammar = guidance.gen(max_tokens=max_tokens).ll_grammar() if schema is None else _json(schema, max_tokens)
        state = EngineState()
        state.prompt = prompt
        text = ""
        # guidance's own `stop` would ignore the model's end token.
        with closing(self(state, grammar)) as responses:
            for response in responses:
                text += response.new_bytes.decode()
                whole = stop_sequences.cut(text, stop)
                if whole != text:
                    return whole
        return text

    def score(
        self,
        prompt: str,
        bos: bool,
        prompt_tokens: int,
        tokens: Several[int],
        after: int,
        limit: int,
        best: int = BEST,
    ) -> list[ScoredToken]:
        """The log-probabilities of up to `limit` of `tokens`, after the first `after` ones: see `ModelCall`. For this
        the model reads the first `prompt_tokens` tokens of `prompt`, and these. `best`: the number of alternatives.

        Raises `InvalidRequestError` if the prompt has other tokens now, and what calling the engine raises.
        """
        read, _ = self._read(prompt, bos)
        if len(read.tokens) < prompt_tokens or read.images:
            raise InvalidRequestError("The prompt can't be read again as the model has read it then.")
        text = [*read.tokens[:prompt_tokens], *tokens[: after + limit]]
        return self.score_tokens(text, prompt_tokens + after, best)

    def score_tokens(self, tokens: Several[int], after: int, best: int = BEST) -> list[ScoredToken]:
        """The log-probabilities of `tokens` after the first `after` ones. One text at a time is scored. Raises what
        calling the engine raises."""
        text, first = list(tokens), max(after, 1)
        # Nothing comes before the first token of a text.
        unscored = [ScoredToken(token, None, []) for token in text[after:first]]
        if first >= len(text):
            return unscored
        scored = ScoredText(text, first, best, context.current().cancelled)
        with self._scoring:
            self._scheduler.submit(scored)
            return [*unscored, *scored.result()]

    def read_tokens(self, text: str) -> tuple[list[int], bool]:
        """The tokens of a prompt, and whether the first one was put before it: see `ModelCall`. Raises what
        `EngineTokenizer.read_prompt` raises, and for a prompt that leaves no room in the context."""
        prompt, bos = self._read(text, True)
        return self.checked_tokens(prompt.tokens), bos

    def count(self, text: str) -> int:
        """The number of tokens of a prompt; see `EngineTokenizer.count`."""
        try:
            return len(self._read(text, True)[0].tokens)
        except PromptTooLongError as error:
            tokens: int = error.details["tokens"]
            return tokens

    def checked_tokens(self, tokens: Several[int]) -> list[int]:
        """A prompt given as tokens. Raises `InvalidRequestError` for a token that the model has not, and
        `PromptTooLongError`."""
        self.check_tokens(tokens)
        if len(tokens) >= self.context_length:
            raise too_long(len(tokens), self.context_length)
        return list(tokens)

    def check_tokens(self, tokens: Iterable[int]) -> None:
        """Raises `InvalidRequestError` for a token that the model has not."""
        layers: list[Any] = [self._model.get_input_embeddings(), self._model.get_output_embeddings()]
        known = min(self._vocabulary, *(int(layer.weight.shape[0]) for layer in layers))
        for token in tokens:
            if token >= known:
                raise InvalidRequestError(f"The model has no token {token}: its vocabulary has {known}.")

    def prompt_end(self, prompt: str, bos: bool, prompt_tokens: int) -> str:
        """The end of a model call's prompt that its tokens begin with: see `ModelCall`."""
        read, _ = self._read(prompt, bos)
        return self.tokenizer.decode(read.tokens[prompt_tokens:]).decode(errors="replace")

    def beginning(self, prompt: str, bos: bool, prompt_tokens: int, tokens: Several[int]) -> str:
        """The text of the first ones of a model call's tokens: see `ModelCall`. Raises `InvalidRequestError` if they
        end within a character."""
        read, _ = self._read(prompt, bos)
        data = self.tokenizer.decode(list(tokens))
        try:
            return data.removeprefix(self.tokenizer.decode(read.tokens[prompt_tokens:])).decode()
        except UnicodeDecodeError:
            raise InvalidRequestError(
                "The token is in the middle of a character: its text can't be cut off there. Take one before it."
            ) from None

    def text_of(self, tokens: Several[int]) -> str:
        """Tokens as one text, control tokens by their names. What is no UTF-8 is replaced."""
        names = self._token_names
        parts = (names[one].encode() if one in names else self.tokenizer.decode([one]) for one in tokens)
        return b"".join(parts).decode(errors="replace")

    def token_text(self, token: int) -> tuple[str, bytes | None]:
        """A token as text; with its bytes if they are no UTF-8 by themselves."""
        name = self._token_names.get(token)
        if name is not None:
            return name, None
        data = self.tokenizer.decode([token])
        try:
            return data.decode(), None
        except UnicodeDecodeError:
            return data.decode(errors="replace"), data

    def get_chat_template(self) -> None:
        """None, so that guidance's role blocks fail: they know a few templates and use ChatML for all other models.
        `tokenizer.render_chat` uses the model's own template."""

    def get_logits(self, token_ids: list[int], include_all_uncached_tokens: bool = False) -> LogitsOutput:
        """guidance's own loop would call this; `__call__` drives llguidance itself instead."""
        raise TypeError("GuidedEngine runs whole grammars: call the engine, not get_logits.")

    def __call__(
        self,
        state: EngineState,
        grammar: str,
        ensure_bos_token: bool = True,
        sampling_params: Sampling | SamplingParams | None = None,
        step_config: StepConfig | None = None,
        prompt_tokens: Several[int] | None = None,
    ) -> Generator[EngineResponse, None, TokenUsage]:
        """Continues `state.prompt` by `grammar` (a serialised llguidance grammar); or `prompt_tokens`, as they are.

        Yields chunks of text with captures. Raises PromptTooLongError if the text exceeds the context length,
        RunCancelledError between two tokens, OutOfTokensError after the last chunk if the `max_tokens` of the whole
        grammar ended it, and ValueError for a grammar that llguidance refuses. Raises InvalidRequestError if the
        grammar does not allow the beginning that the context wants.
        """
        if step_config is not None:
            raise ValueError("GuidedEngine has no step callbacks; run a grammar a step instead.")
        began, now = time.monotonic(), context.current()
        first_seconds: float | None = None
        error: BaseException | None = None
        sampling, beginning = sampling_params, ""
        if now.tool is None:
            if now.sampling:
                sampling = Sampling(**{**(sampling_params or {}), **now.sampling})  # type: ignore[typeddict-item]
            beginning = now.beginning() if now.beginning is not None else ""
        if prompt_tokens is None:
            prompt, bos = self._read(state.prompt, ensure_bos_token)
        else:
            prompt, bos = Prompt(self.checked_tokens(prompt_tokens), 0, []), False
        parser = self._grammars.parser(grammar)
        # A model has to read something: the end of a text comes before a new one.
        tokens = self._started(parser, prompt) or [self.tokenizer.eos_token_id]
        unchanged = common_prefix(prompt.tokens, tokens)
        if self.tokenizer.images is not None:
            tokens = self.tokenizer.images.with_ids(tokens, prompt.images)
        counted = usage.Usage(prompt_tokens=max(len(prompt.tokens), 1))
        sequence = Sequence(
            tokens,
            parser,
            self._vocabulary,
            sampling,
            now.cancelled,
            counted,
            now.logprobs,
            prompt.images,
        )
        sequence.unchanged = unchanged
        written = list[bytes]()
        # A small model may write an incomplete character, which guidance could not decode.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        span = tracing.begin_model_call("text_completion", None if now.model is None else now.model.name)
        try:
            self._begin(sequence, lambda: self._follow(sequence, prompt, beginning))
            for progress, last in self._progress(sequence, grammar, prompt, beginning):
                response = _response(progress, decoder, last, self.tokenizer)
                if first_seconds is None and response.new_bytes:
                    first_seconds = time.monotonic() - began
                written.append(response.new_bytes)
                context.send_text(response.new_bytes, counted)
                yield response
        except Exception as raised:
            error = raised
            raise
        finally:
            sequence.abandoned = True
            if sequence.seconds > SLOW_SECONDS:
                self._grammars.drop(grammar)
            metrics.count_tokens(counted)
            usage.record(counted)
            # There is no text that is read as given tokens: they count among those of the call.
            tokens, first = sequence.tokens, sequence.unchanged if prompt_tokens is None else 0
            made = ModelCall(
                "text",
                state.prompt,
                b"".join(written).decode(),
                counted,
                time.monotonic() - began,
                {name: value for name, value in sequence.sampling.items() if value is not None},
                bos,
                bool(prompt.images),
                first,
                tuple(tokens[first:]),
                frozenset(place - first for place in sequence.chosen),
                first_seconds,
            )
            model_call.record(made)
            tracing.end_model_call(span, made, sequence.out_of_tokens, error)
        if sequence.out_of_tokens:
            raise OutOfTokensError("The text was not at its end when its max_tokens were used up.")
        reason = sequence.parser.stop_reason()
        if reason not in ENDS:
            raise ValueError(f"llguidance stopped the grammar with {reason}. Make the grammar simpler.")
        return TokenUsage(
            input_tokens=counted.prompt_tokens,
            cached_input_tokens=counted.cached_tokens,
            forward_passes=counted.forward_passes,
            ff_tokens=counted.forced_tokens,
            round_trips=1,
        )

    def _read(self, text: str, ensure_bos: bool) -> tuple[Prompt, bool]:
        """A prompt as the model reads it, and whether the beginning-of-sequence token was put before it."""
        prompt, bos = self.tokenizer.read_prompt(text), self.tokenizer.bos_token_id
        if not ensure_bos or bos is None or prompt.tokens[:1] == [bos]:
            return prompt, False
        prompt.tokens.insert(0, bos)
        return prompt, True

    def _take_images(self, probe: ImageProbe) -> str:
        """Take images if the test with one succeeds; else the reason in a sentence."""
        problem = probe.problem(self._kv_cache, tolerance(self._model))
        if problem or probe.reader is None:
            self._kv_cache.images = None
            log.warning("pictures are refused: %s", problem)
            return f"The model takes images, but not here: {problem}."
        self.tokenizer.take_images(probe.reader)
        return ""

    def _begin(self, sequence: Sequence, first: Callable[[], bool]) -> None:
        """Let the scheduler decode `sequence`, unless its `first` step ends it."""
        try:
            continues = first()
        except SharedLimitError as error:
            sequence.end(error)
            return
        if not continues:
            sequence.end()
        elif len(sequence.tokens) >= self.context_length:
            raise too_long(len(sequence.tokens), self.context_length, sequence.image_tokens)
        else:
            self._scheduler.submit(sequence)

    def _follow(self, sequence: Sequence, prompt: Prompt, beginning: str) -> bool:
        """Commit the tokens of a text with which the sequence has to begin, as far as this was not done. Returns
        whether the grammar continues after it. Raises `InvalidRequestError` if it does not allow the text."""
        if not beginning:
            return sequence.look_ahead()
        if prompt.images:
            raise InvalidRequestError("A text can't be continued from a token if its prompt has pictures.")
        continues, decode = True, self.tokenizer.decode
        while True:
            known = decode(prompt.tokens[sequence.unchanged :])
            wanted, written = known + beginning.encode(), decode(sequence.tokens[sequence.unchanged :])
            if written.startswith(wanted):
                break
            token = None
            if continues and wanted.startswith(written) and sequence.look_ahead():
                token = self._allowed(sequence, wanted[len(written) :])
            if token is None:
                place = len(wanted[len(known) : common_prefix(wanted, written)].decode(errors="ignore"))
                raise InvalidRequestError(
                    f"The agent's grammar does not allow the text from character {place} on: "
                    f"{beginning[place : place + 40]!r} after {beginning[max(place - 40, 0) : place]!r}."
                )
            continues = sequence.commit(token)
        # The model has chosen none of these.
        sequence.chosen.clear()
        sequence.usage.forced_tokens += sequence.usage.completion_tokens
        sequence.usage.completion_tokens = 0
        return continues and sequence.look_ahead()

    def _allowed(self, sequence: Sequence, text: bytes) -> int | None:
        """A token with which `text` begins and which the grammar allows next: the usual one, or else the longest."""
        tokenize = self.tokenizer._ll_tokenizer.tokenize_bytes
        usual = tokenize(text[:LONGEST_TOKEN])[0]
        shorter = (tokenize(text[:length]) for length in range(min(len(text), LONGEST_TOKEN), 0, -1))
        for token in chain([usual], (tokens[0] for tokens in shorter if len(tokens) == 1)):
            if sequence.allows(token) and text.startswith(self.tokenizer.decode([token])):
                return int(token)
        return None

    def _progress(
        self, sequence: Sequence, grammar: str, prompt: Prompt, beginning: str
    ) -> Iterator[tuple[Progress, bool]]:
        """The sequence's progress; see `Sequence.progress`."""
        try:
            yield from sequence.progress()
        except SharedLimitError:
            # Not in the scheduler's thread, because compiling takes long.
            self._grammars.drop(grammar)
            parser = self._grammars.own_parser(grammar)
            self._started(parser, prompt)
            self._begin(sequence, lambda: sequence.recover(parser) and self._follow(sequence, prompt, beginning))
            yield from sequence.progress()

    def _started(self, parser: llguidance.LLInterpreter, prompt: Prompt) -> list[int]:
        """The prompt's tokens as the grammar continues them."""
        fixed = len(prompt.tokens) - prompt.tail
        try:
            tail: list[int] = parser.process_prompt(prompt.tokens[fixed:])
        except BaseException as error:  # boundary: of llguidance, whose panics are no Exceptions
            if is_panic(error):
                raise too_costly_to_follow() from error
            raise
        return [*prompt.tokens[:fixed], *tail]


def _json(schema: Mapping[str, Any], max_tokens: int) -> str:
    """`guidance.json`, which would compile the schema in this process to check it."""
    options = {
        "whitespace_flexible": False,
        "item_separator": ", ",
        "key_separator": ": ",
        "coerce_one_of": True,
        "lenient": True,
    }
    wanted = json.dumps({**grammar_schema(schema), "x-guidance": options})
    return f"%llguidance {{}}\nstart: json\njson[max_tokens={max_tokens}]: %json {wanted}\n"


def _close(scheduler: Scheduler, grammars: CompiledGrammars) -> None:
    scheduler.close()
    grammars.close()


def _affordable(device: torch.device) -> int:
    """Bytes for the KV cache: most of the free GPU memory, or a quarter of the free main memory, which others need
    too."""
    if device.type == "cuda":
        return int(0.8 * torch.cuda.mem_get_info(device)[0])
    return int(0.25 * psutil.virtual_memory().available)


def _advised(config: Any) -> Sampling:
    if not getattr(config, "do_sample", False):
        return Sampling(top_p=None, top_k=None, min_p=None, repetition_penalty=None)
    return Sampling(
        top_p=config.top_p,
        top_k=config.top_k,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
        temperature=1.0 if config.temperature is None else config.temperature,
    )


def _response(
    progress: list[dict[str, Any]], decoder: codecs.IncrementalDecoder, last: bool, tokenizer: EngineTokenizer
) -> EngineResponse:
    """What llguidance reports after a step, in the form that guidance's interpreter expects."""
    text = b""
    captures: dict[str, Any] = {}
    log_probs: dict[str, Any] = {}
    for item in progress:
        if item["object"] == "text":
            text += bytes.fromhex(item["hex"])
        elif item["object"] == "capture":
            value = bytes.fromhex(item["hex"]).decode("utf-8", "replace").encode()
            name = item["name"]
            if name.startswith(LIST_PREFIX):
                name = name.removeprefix(LIST_PREFIX)
                captures.setdefault(name, []).append(value)
                log_probs.setdefault(name, []).append(item["log_prob"])
            else:
                captures[name], log_probs[name] = value, item["log_prob"]
    # llguidance writes the control tokens of a grammar as bytes that are not valid text.
    text = recode_special_tokens(tokenizer, text)
    return EngineResponse(
        new_bytes=decoder.decode(text, last).encode(),
        backtrack_bytes=b"",
        capture_groups=captures,
        capture_group_log_probs=log_probs,
    )
