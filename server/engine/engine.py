"""The guidance engine over the resident model."""

import codecs
import weakref
from collections.abc import Generator, Mapping
from collections.abc import Sequence as Several
from contextlib import closing
from functools import lru_cache, partial
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

from server.engine import text_stream
from server.engine.offload import GivenBack, Weights
from server.engine.per_sequence_cache import Caches
from server.engine.scheduler import Decoder, too_long
from server.engine.sequence import ENDS, Sampling, Sequence
from server.engine.slot_kv_cache import KVRows, fits
from server.engine.tokenizer import EngineTokenizer
from server.errors import OutOfTokensError
from server.observability import metrics
from server.sdk import cancellation, logprobs, usage
from server.sdk.program import Program

#: Weights. Models with fewer are run by one thread of the CPU: to hand the short pieces of a pass to several takes
#: longer than they save.
SMALL = 20_000_000
#: Those that torch takes by itself: the cores, or OMP_NUM_THREADS. Read before any engine sets it.
THREADS = torch.get_num_threads()
#: Grammars that are kept compiled.
COMPILED = 64
#: How llguidance marks a capture that belongs to a list.
LIST_PREFIX = "__LIST_APPEND:"


class GuidedEngine(Engine):
    """Runs guidance grammars on a Transformers model. Any number of threads may call it at once; they share the
    forward passes, and each gets the text that it would get alone."""

    guided: ClassVar[Literal[True]] = True
    """It follows grammars; see `server.sdk.GuidedModel`."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kv_bytes: int | None = None
    ) -> None:
        """`kv_bytes`: what KV memory may take; None: most of what the GPU has free, or a part of the main memory (see
        `share_kv_memory`).

        The model belongs to the engine from now on. `close` gives it back, and so does dropping the engine.
        """
        # Some have tokens that their model has no logit for, which are then never chosen; most the other way round.
        self._vocabulary = max(model.get_output_embeddings().weight.shape[0], len(tokenizer))
        super().__init__(tokenizer=EngineTokenizer(tokenizer, self._vocabulary), enable_monitoring=False)
        self.tokenizer: EngineTokenizer
        self.context_length: int = model.config.get_text_config().max_position_embeddings
        self.sampling = _advised(model.generation_config)
        """How the model's makers have it sampled; greedily where they say nothing. For whoever has no wish."""
        self._compiled = lru_cache(maxsize=COMPILED)(partial(_compile, self.tokenizer._ll_tokenizer))
        """Parsers to be copied, by their grammars: to compile one takes a thousand times as long."""
        self._model = model
        self._shares = kv_bytes is None
        self._memory = KVRows(model, kv_bytes or _affordable(model.device)) if fits(model) else Caches(model)
        self._weights = Weights(model)
        threads = 1 if model.num_parameters() < SMALL else THREADS
        self._decoder = Decoder(
            self._memory, self._weights, self.tokenizer.eos_token_id, self.context_length, threads
        )
        self.close = weakref.finalize(self, self._decoder.close)
        """Ends what is being written, and lets the model go."""

    @property
    def kv_bytes(self) -> int:
        """What KV memory takes now."""
        return self._memory.bytes

    @property
    def weights_bytes(self) -> int:
        """What the weights take, also while they are away from their device. Not while they move."""
        return self._weights.bytes

    def share_kv_memory(self, engines: int) -> None:
        """Let KV memory have what it has taken, and of what is free now as much as any of so many engines on this
        device may take. Changes nothing for an engine that was told how much it may take."""
        if self._shares and isinstance(self._memory, KVRows):
            self._memory.budget = self._memory.bytes + _affordable(self._model.device) // engines

    def sleep(self) -> GivenBack:
        """Give KV memory up and, on a GPU, the weights' place, once what is being written has ended.

        From now until `wake` calls raise ModelAsleepError. Raises OutOfMemoryError where the weights find no place in
        the host's memory, and ModelCannotSleepError; then the engine is awake.
        """
        return self._decoder.sleep()

    def wake(self) -> None:
        """Be as before `sleep`, but for what KV memory held. Raises OutOfMemoryError where the weights' place is
        taken; then the engine sleeps on."""
        self._decoder.wake()

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
        """The assistant's next message, `max_tokens` long at most: free text that ends before any of `stop`, or JSON
        that fits `schema`, which may be cut off at the limit. Raises what calling the engine raises."""
        prompt = self.tokenizer.render_chat(messages)
        return self.tokenizer.reveal(self.write(prompt, max_tokens, stop or (), schema))

    def write(
        self, prompt: str, max_tokens: int, stop: Several[str] = (), schema: Mapping[str, Any] | None = None
    ) -> str:
        """The same behind `prompt`, as guidance and the model read it."""
        if schema is None:
            grammar = guidance.gen(max_tokens=max_tokens)
        else:
            grammar = guidance.json(schema=dict(schema), max_tokens=max_tokens, lenient=True)
        state = EngineState()
        state.prompt = prompt
        text = ""
        # guidance's own `stop` would take the model's end for no end.
        with closing(self(state, grammar.ll_grammar())) as responses:
            for response in responses:
                text += response.new_bytes.decode()
                found = [at for at in map(text.find, stop) if at >= 0]
                if found:
                    return text[: min(found)]
        return text

    def get_chat_template(self) -> None:
        """None, so that guidance's role blocks fail: they know a handful of templates by heart and write every other
        model's turns in ChatML. `tokenizer.render_chat` writes them as the model itself has it."""

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
    ) -> Generator[EngineResponse, None, TokenUsage]:
        """Continues `state.prompt` by `grammar` (a serialised llguidance grammar).

        Yields pieces of text with captures. Raises PromptTooLongError where the text outgrows the model's window,
        RunCancelledError between two tokens, OutOfTokensError behind the last piece where the `max_tokens` of the
        whole grammar ended it, ValueError for a grammar that llguidance refuses.
        """
        if step_config is not None:
            raise ValueError("GuidedEngine has no step callbacks; run a grammar a step instead.")
        prompt = self.tokenizer.encode_prompt(state.prompt)
        bos = self.tokenizer.bos_token_id
        if ensure_bos_token and bos is not None and prompt[:1] != [bos]:
            prompt = [bos, *prompt]
        parser = self._compiled(grammar).deep_copy()

        def compile_anew() -> llguidance.LLInterpreter:
            self._compiled.cache_clear()
            own = _compile(self.tokenizer._ll_tokenizer, grammar)
            own.process_prompt(prompt)
            return own

        # A model has to read something: what ends a text stands before a new one.
        tokens = parser.process_prompt(prompt) or [self.tokenizer.eos_token_id]
        counted = usage.Usage(prompt_tokens=max(len(prompt), 1))
        sequence = Sequence(
            tokens,
            parser,
            compile_anew,
            self._vocabulary,
            sampling_params,
            cancellation.current(),
            counted,
            logprobs.current(),
        )
        # A small model may write half a character, which guidance could not decode.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            if sequence.look_ahead():
                if len(sequence.tokens) >= self.context_length:
                    raise too_long(len(sequence.tokens), self.context_length)
                self._decoder.submit(sequence)
            else:
                sequence.end()
            for progress, last in sequence.progress():
                response = _response(progress, decoder, last, self.tokenizer)
                text_stream.tell(response.new_bytes, counted)
                yield response
        finally:
            sequence.abandoned = True
            metrics.count_tokens(counted)
            usage.record(counted)
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


def _compile(vocabulary: llguidance.LLTokenizer, grammar: str) -> llguidance.LLInterpreter:
    return llguidance.LLInterpreter(vocabulary, grammar, log_level=0)


def _affordable(device: torch.device) -> int:
    """Bytes for KV memory: of a GPU most of what is free, of the main memory, which is others' too, a quarter."""
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
    """What llguidance reports after a step, as guidance's interpreter wants it."""
    text = b""
    captures: dict[str, Any] = {}
    chances: dict[str, Any] = {}
    for item in progress:
        if item["object"] == "text":
            text += bytes.fromhex(item["hex"])
        elif item["object"] == "capture":
            value = bytes.fromhex(item["hex"]).decode("utf-8", "replace").encode()
            name = item["name"]
            if name.startswith(LIST_PREFIX):
                name = name.removeprefix(LIST_PREFIX)
                captures.setdefault(name, []).append(value)
                chances.setdefault(name, []).append(item["log_prob"])
            else:
                captures[name], chances[name] = value, item["log_prob"]
    # llguidance writes the control tokens of a grammar as bytes that are no text.
    text = recode_special_tokens(tokenizer, text)
    return EngineResponse(
        new_bytes=decoder.decode(text, last).encode(),
        backtrack_bytes=b"",
        capture_groups=captures,
        capture_group_log_probs=chances,
    )
