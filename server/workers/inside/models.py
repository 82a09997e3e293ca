"""Stand-ins in a worker for the models in the server's process."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, ClassVar, Literal

from guidance._schema import EngineResponse, SamplingParams, StepConfig, TokenUsage
from guidance.models import Model
from guidance.models._engine import Engine, EngineState
from guidance.models._engine._engine import LogitsOutput

from server.sdk import context, usage
from server.sdk.control_tokens import ControlTokens
from server.sdk.program import Program
from server.workers.inside.server_end import ServerEnd, revived
from server.workers.messages import UnknownGrammarError

REMEMBERED = 64
"""Maximum number of texts whose token counts are cached."""


class TokenizerStandIn:
    """See `server.sdk.models.TextTools`. Token counts that came with another reply are cached, because an agent
    counts a prompt's tokens just before the model continues it, and just after."""

    def __init__(self, server: ServerEnd, control: ControlTokens) -> None:
        self._server = server
        self._control = control
        self._lengths: OrderedDict[str, int] = OrderedDict()
        self._changing = threading.Lock()

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        reply = self._server.ask("render", messages=messages, tools=tools)
        return self.remember(reply["text"], reply["tokens"])

    def count(self, text: str) -> int:
        with self._changing:
            known = self._lengths.get(text)
        if known is None:
            known = int(self._server.ask("count", text=text)["tokens"])
            self.remember(text, known)
        return known

    def cut(self, text: str, tokens: int) -> str:
        # No token is shorter than a byte.
        if len(text.encode("utf-8", "replace")) <= tokens:
            return text
        return str(self._server.ask("cut", text=text, tokens=tokens)["text"])

    def protect(self, text: str) -> str:
        return self._control.protect(text)

    def reveal(self, text: str) -> str:
        return self._control.reveal(text)

    def remember(self, text: str, tokens: int) -> str:
        """Cache that `text` has `tokens` tokens. Returns `text`."""
        with self._changing:
            self._lengths[text] = tokens
            while len(self._lengths) > REMEMBERED:
                self._lengths.popitem(last=False)
        return text


class ResidentStandIn(Engine):
    """A guidance engine whose grammars are followed by the resident model. See `server.sdk.GuidedModel`."""

    guided: ClassVar[Literal[True]] = True

    def __init__(self, server: ServerEnd, context_length: int, control_tokens: Sequence[str]) -> None:
        tokenizer: Any = TokenizerStandIn(server, ControlTokens(control_tokens))
        super().__init__(tokenizer=tokenizer, enable_monitoring=False)
        self.tokenizer: TokenizerStandIn  # type: ignore[assignment]
        self.context_length = context_length
        self._server = server

    def program(self) -> Model:
        return Program(self)

    def complete(
        self,
        messages: list[dict[str, str]],
        *,
        max_tokens: int,
        stop: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> str:
        return _complete(self._server, messages, max_tokens, stop, schema)

    def get_chat_template(self) -> None:
        """None, so that guidance's role blocks fail: see `GuidedEngine.get_chat_template`."""

    def get_logits(self, token_ids: list[int], include_all_uncached_tokens: bool = False) -> LogitsOutput:
        """guidance's own loop would call this."""
        raise TypeError("The resident model runs whole grammars and gives no logits.")

    def __call__(
        self,
        state: EngineState,
        grammar: str,
        ensure_bos_token: bool = True,
        sampling_params: SamplingParams | None = None,
        step_config: StepConfig | None = None,
    ) -> Generator[EngineResponse, None, TokenUsage]:
        """See `GuidedEngine.__call__`."""
        if step_config is not None:
            raise ValueError("The resident model has no step callbacks; run a grammar a step instead.")
        counted = context.current().logprobs
        given = {
            "prompt": state.prompt,
            "grammar": hashlib.sha256(grammar.encode()).hexdigest(),
            "bos": ensure_bos_token,
            "sampling": dict(sampling_params or {}),
            "log_probability": counted is not None,
        }
        try:
            end = yield from self._responses(given)
        except UnknownGrammarError:
            end = yield from self._responses({**given, "grammar_text": grammar})
        self.tokenizer.remember(state.prompt, end["tokens"])
        if counted is not None:
            counted.log_probability += end["log_probability"]
        used = usage.Usage(**end["usage"])
        return TokenUsage(
            input_tokens=used.prompt_tokens,
            cached_input_tokens=used.cached_tokens,
            forward_passes=used.forward_passes,
            ff_tokens=used.forced_tokens,
            round_trips=1,
        )

    def _responses(self, given: dict[str, Any]) -> Generator[EngineResponse, None, dict[str, Any]]:
        """The responses, and the last part of the reply. Raises `UnknownGrammarError` before the first response."""
        with closing(self._server.stream("continue", **given)) as parts:
            while True:
                try:
                    part = next(parts)
                except StopIteration as end:
                    last: dict[str, Any] = end.value
                    break
                yield _response(part)
        usage.record(usage.Usage(**last["usage"]))
        yield _response(last)
        if last["error"] is not None:
            raise revived(last["error"])
        return last


class ApiStandIn:
    """A model behind an API, which the server asks. See `server.sdk.ApiModel`."""

    guided: ClassVar[Literal[False]] = False

    def __init__(self, server: ServerEnd, name: str, context_length: int, takes_schema: bool) -> None:
        self.name = name
        self.context_length = context_length
        self.takes_schema = takes_schema
        self._server = server

    def count(self, text: str) -> int:
        return int(self._server.ask("count", text=text)["tokens"])

    def cut(self, text: str, tokens: int) -> str:
        return str(self._server.ask("cut", text=text, tokens=tokens)["text"])

    def complete(
        self,
        messages: list[dict[str, str]],
        *,
        max_tokens: int,
        stop: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        when_cut: Callable[[], None] = lambda: None,
    ) -> str:
        return _complete(self._server, messages, max_tokens, stop, schema, when_cut)


class ModelOfTheContext:
    """The model of this context's run, for the `llm` of tools."""

    def __init__(self, server: ServerEnd) -> None:
        self._server = server

    def chat(self, request: Mapping[str, Any]) -> Generator[str, None, dict[str, Any]]:
        """See `server.sdk.chat_model.AnswersChats`."""
        with closing(self._server.stream("chat", **request)) as parts:
            while True:
                try:
                    part = next(parts)
                except StopIteration as end:
                    reply: dict[str, Any] = end.value
                    break
                yield part["text"]
        usage.record(usage.Usage(**reply["usage"]))
        if reply["error"] is not None:
            raise revived(reply["error"])
        return reply

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        return int(self._server.ask("count", text=text)["tokens"])


def _complete(
    server: ServerEnd,
    messages: list[dict[str, str]],
    max_tokens: int,
    stop: Sequence[str] | None,
    schema: Mapping[str, Any] | None,
    when_cut: Callable[[], None] = lambda: None,
) -> str:
    reply = server.ask("complete", messages=messages, max_tokens=max_tokens, stop=stop, schema=schema)
    usage.record(usage.Usage(**reply["usage"]))
    if reply["error"] is not None:
        raise revived(reply["error"])
    if reply["was_cut"]:
        when_cut()
    return str(reply["text"])


def _response(part: dict[str, Any]) -> EngineResponse:
    captures: dict[str, Any] = {}
    log_probs: dict[str, Any] = {}
    for name, value, log_prob in part["captures"]:
        if isinstance(value, list):
            captures[name], log_probs[name] = [one.encode() for one in value], log_prob
        else:
            captures[name], log_probs[name] = value.encode(), log_prob
    return EngineResponse(
        new_bytes=part["text"].encode(),
        backtrack_bytes=b"",
        capture_groups=captures,
        capture_group_log_probs=log_probs,
    )
