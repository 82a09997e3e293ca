"""The guidance engine over the resident model."""

import codecs
import weakref
from collections.abc import Generator, Mapping
from collections.abc import Sequence as Several
from contextlib import closing
from typing import Any

import guidance
import llguidance
import psutil
import torch
from guidance._schema import EngineResponse, SamplingParams, StepConfig, TokenUsage
from guidance.models import Model
from guidance.models._engine import Engine, EngineState
from guidance.models._engine._engine import LogitsOutput
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from server.engine import cancellation, likelihood, pieces, usage
from server.engine.caches import Caches
from server.engine.decoder import Decoder, too_long
from server.engine.program import Program
from server.engine.rows import KVRows, fits
from server.engine.sequence import Sequence
from server.engine.tokenizer import EngineTokenizer

#: How llguidance marks a capture that belongs to a list.
LIST_PREFIX = "__LIST_APPEND:"


class GuidedEngine(Engine):
    """Runs guidance grammars on a Transformers model. Any number of threads may call it at once; they share the
    forward passes, and each gets the text that it would get alone."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kv_bytes: int | None = None
    ) -> None:
        """`kv_bytes`: what KV memory may take; None: most of what the GPU has free, or a part of the main memory.

        The model belongs to the engine from now on. `close` gives it back, and so does dropping the engine.
        """
        width = model.get_output_embeddings().weight.shape[0]
        super().__init__(tokenizer=EngineTokenizer(tokenizer, width), enable_monitoring=False)
        self.tokenizer: EngineTokenizer
        self.context_length: int = model.config.get_text_config().max_position_embeddings
        self._width = width
        self._model = model
        self._memory = KVRows(model, kv_bytes or _affordable(model)) if fits(model) else Caches(model)
        self._decoder = Decoder(self._memory, self.tokenizer.eos_token_id, self.context_length)
        self.close = weakref.finalize(self, self._decoder.close)
        """Ends what is being written, and lets the model go."""

    @property
    def kv_bytes(self) -> int:
        """What KV memory takes now."""
        return self._memory.bytes

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
        sampling_params: SamplingParams | None = None,
        step_config: StepConfig | None = None,
    ) -> Generator[EngineResponse, None, TokenUsage]:
        """Continues `state.prompt` by `grammar` (a serialised llguidance grammar).

        Yields pieces of text with captures. Raises PromptTooLongError where the text outgrows the model's window,
        RunCancelledError between two tokens, ValueError for a grammar that llguidance refuses.
        """
        if step_config is not None:
            raise ValueError("GuidedEngine has no step callbacks; run a grammar a step instead.")
        prompt = self.tokenizer.encode_prompt(state.prompt)
        bos = self.tokenizer.bos_token_id
        if ensure_bos_token and bos is not None and prompt[:1] != [bos]:
            prompt = [bos, *prompt]
        parser = llguidance.LLInterpreter(self.tokenizer._ll_tokenizer, grammar, log_level=0)
        counted = usage.Usage(prompt_tokens=len(prompt))
        sequence = Sequence(
            parser.process_prompt(prompt),
            parser,
            self._width,
            sampling_params,
            cancellation.current(),
            counted,
            likelihood.current(),
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
                response = _response(progress, decoder, last)
                pieces.tell(response.new_bytes, counted)
                yield response
        finally:
            sequence.abandoned = True
            usage.record(counted)
        reason = parser.stop_reason()
        if reason not in ("NoExtension", "EndOfSentence", "NoExtensionBias"):
            raise ValueError(f"llguidance stopped the grammar with {reason}. Make the grammar simpler.")
        return TokenUsage(
            input_tokens=counted.prompt_tokens,
            cached_input_tokens=counted.cached_tokens,
            forward_passes=counted.forward_passes,
            ff_tokens=counted.forced_tokens,
            round_trips=1,
        )


def _affordable(model: PreTrainedModel) -> int:
    """Bytes for KV memory: of a GPU most of what is free, of the main memory, which is others' too, a quarter."""
    if model.device.type == "cuda":
        return int(0.8 * torch.cuda.mem_get_info(model.device)[0])
    return int(0.25 * psutil.virtual_memory().available)


def _response(progress: list[dict[str, Any]], decoder: codecs.IncrementalDecoder, last: bool) -> EngineResponse:
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
    return EngineResponse(
        new_bytes=decoder.decode(text, last).encode(),
        backtrack_bytes=b"",
        capture_groups=captures,
        capture_group_log_probs=chances,
    )
