"""The guidance engine over the resident model."""

import codecs
import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llguidance
import torch
from guidance._schema import EngineResponse, SamplingParams, StepConfig, TokenUsage
from guidance.models import Model
from guidance.models._engine import Engine, EngineState
from guidance.models._engine._engine import LogitsOutput
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from server.engine import cancellation, pieces, usage
from server.engine.kv_cache import KVMemory, KVPool, common_prefix
from server.engine.program import Program
from server.engine.tokenizer import EngineTokenizer
from server.errors import OutOfMemoryError, PromptTooLongError

#: KV memories kept for prompts to come.
POOL_SIZE = 16
GREEDY_BELOW = 1e-5
#: How llguidance marks a capture that belongs to a list.
LIST_PREFIX = "__LIST_APPEND:"


class GuidedEngine(Engine):
    """Runs guidance grammars on a Transformers model. Any number of threads may call it at once; each gets the text
    that it would get alone. Forward passes take turns on one thread, token by token; the rest runs beside them."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        width = model.get_output_embeddings().weight.shape[0]
        super().__init__(tokenizer=EngineTokenizer(tokenizer, width), enable_monitoring=False)
        self.tokenizer: EngineTokenizer
        self.context_length: int = model.config.get_text_config().max_position_embeddings
        self._model = model
        self._pool = KVPool(model, POOL_SIZE)
        # One thread for all passes: they can't share the device anyway, each is served in the order of its arrival,
        # and torch keeps a pool of CPU threads for every thread that calls it.
        self._passes = ThreadPoolExecutor(1, thread_name_prefix="model")

    def program(self) -> Model:
        """A fresh guidance model object: `lm = engine.program(); lm += gen(...)`."""
        return Program(self)

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
        tokens = parser.process_prompt(prompt)
        counted = usage.Usage(prompt_tokens=len(prompt))
        memory: KVMemory | None = None
        # A small model may write half a character, which guidance could not decode.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while True:
                self._check_length(tokens)
                mask, report = parser.compute_mask()
                status = json.loads(report)
                response = _response(status["progress"], decoder, bool(status["stop"]))
                pieces.tell(response.new_bytes, counted)
                yield response
                if status["stop"]:
                    break
                assert mask is not None, "there is one as long as the grammar goes on"
                cancellation.check()
                if memory is None:
                    memory = self._pool.take(tokens)
                    counted.cached_tokens = min(common_prefix(memory.held, prompt), len(prompt) - 1)
                try:
                    logits = self._passes.submit(memory.logits, tokens).result()
                except (torch.OutOfMemoryError, MemoryError) as error:
                    raise self._out_of_memory(len(tokens)) from error
                counted.forward_passes += 1
                token = self._choose(
                    logits, mask, parser.is_accepting(), status["temperature"], tokens, sampling_params
                )
                backtrack, forced = parser.commit_token(token)
                counted.completion_tokens += 1
                counted.forced_tokens += len(forced) - (forced[:1] == [token])
                if backtrack:
                    tokens = tokens[:-backtrack]
                tokens = tokens + forced
        finally:
            if memory is not None:
                self._pool.give_back(memory)
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

    def _check_length(self, tokens: list[int]) -> None:
        if len(tokens) >= self.context_length:
            raise PromptTooLongError(
                f"The text is {len(tokens)} tokens long, and the model reads at most {self.context_length}. "
                "Ask a shorter question, or load a model with a longer window.",
                tokens=len(tokens),
                limit=self.context_length,
            )

    def _out_of_memory(self, length: int) -> OutOfMemoryError:
        """The error of a run that found no memory, with what idle prompts hold given back for the runs to come."""
        self._pool.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return OutOfMemoryError(
            f"There was not enough memory for a text of {length} tokens. Ask again when fewer questions are under "
            "way, ask a shorter one, or load a smaller model."
        )

    def _choose(
        self,
        logits: torch.Tensor,
        mask: bytes,
        may_end: bool,
        temperature: float,
        tokens: list[int],
        sampling_params: SamplingParams | None,
    ) -> int:
        """The next token. Where the grammar may end, what it forbids counts as the wish to end, as in guidance."""
        allowed = torch.frombuffer(bytearray(mask), dtype=torch.uint8).to(logits.device) != 0
        plain = sampling_params is None or not any(sampling_params.values())
        if temperature < GREEDY_BELOW and plain:
            token = int((logits if may_end else logits.masked_fill(~allowed, -torch.inf)).argmax())
        else:
            token = int(
                self.get_next_token_with_top_k(
                    logits=logits.cpu().numpy(),
                    logits_lat_ms=0.0,
                    token_ids=tokens,
                    mask=None if may_end else mask,
                    temperature=temperature,
                    k=0,
                    compute_unmasked_probs=False,
                    sampling_params=sampling_params,
                ).token_id
            )
        return token if mask[token] else self.tokenizer.eos_token_id


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
