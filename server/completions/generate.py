"""Generating completions, within a run."""

import json
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from guidance.models._engine import EngineState

from server.completions import logprobs
from server.completions.grammar import reason_of
from server.completions.prompt_format import Continuation, GivenTokens, PromptFormat, Reply
from server.completions.react_format import ReactFormat
from server.completions.template import TemplateFormat, call_marks
from server.completions.truncation import truncated
from server.completions.types import Answer, Completion, Conversation, Prompts
from server.engine import GuidedEngine, stop_sequences
from server.engine.sequence import Sampling
from server.engine.tokenizer import EngineTokenizer
from server.errors import InvalidRequestError, OutOfTokensError, PromptTooLongError
from server.observability import metrics
from server.runs import Run
from server.sdk import context, usage
from server.sdk.json_schema import UnusableSchemaError
from server.sdk.model_call import ModelCall
from server.sdk.usage import Usage


@dataclass
class CompletionResult:
    """The result of a run; see `AgentResult`. `details` has the `choices`, as in their events."""

    answer: str
    usage: dict[str, int]
    details: dict[str, Any]
    function: str | None = None
    steps: list[Any] = field(default_factory=list)
    citations: tuple[()] = ()


def complete(run: Run, completion: Completion, engine: GuidedEngine) -> CompletionResult:
    """Generate the texts one after the other. `run` gets their content as it is written, and the event `choice` at
    the end of each text, with `index`, `content`, `thought`, `tool_calls`, `finish_reason`, `stop_sequence` and
    `usage`.

    Raises `InvalidRequestError` if the model's chat template does not accept the conversation or the request can't
    become a grammar, and what the engine raises.
    """
    choices: list[dict[str, Any]] = []
    if completion.logprobs is not None:
        logprobs.check(engine, bool(completion.images))
    engine.check_tokens(completion.sampling.get("logit_bias", ()))
    with usage.measured() as used:
        for prompt_format in prompt_formats(
            _fitting(completion, engine),
            engine.tokenizer,
            completion.max_tokens,
            echo=completion.echo,
            answer=completion.answer,
        ):
            for number in range(completion.count):
                choices.append({"index": len(choices), **choice(run, completion, engine, prompt_format, number)})
                run.events.publish("choice", choices[-1])
    return CompletionResult(choices[0]["content"], asdict(used), {"choices": choices})


def _fitting(completion: Completion, engine: GuidedEngine) -> Conversation | Prompts:
    """What the model has to continue, within its window if that is wanted."""
    source, tokenizer = completion.source, engine.tokenizer
    if isinstance(source, tuple) or not source.truncates:
        return source

    def count(conversation: Conversation) -> int:
        [prompt_format] = prompt_formats(conversation, tokenizer, completion.max_tokens)
        return tokenizer.count(prompt_format.prompt(tokenizer))

    return truncated(source, count, engine.context_length, completion.max_tokens)


def prompt_formats(
    source: Conversation | Prompts,
    tokenizer: EngineTokenizer,
    max_tokens: int | None = None,
    *,
    echo: bool = False,
    answer: Answer | None = None,
) -> list[PromptFormat]:
    """The format of each prompt. Tool calls use the model's chat template if it has them, else ReAct. `max_tokens`:
    of the completion; None: enough. `echo`: whether the tokens of texts are shown. `answer`: the required form of
    what continues a text."""
    if isinstance(source, tuple):
        return [Continuation(text, is_whole=echo, answer=answer) for text in source]
    marks = call_marks(tokenizer)
    with_tools = source.tools or any(message.calls or message.role == "tool" for message in source.messages)
    return [ReactFormat(source, max_tokens) if with_tools and marks is None else TemplateFormat(source, marks)]


def count_prompt(completion: Completion, engine: GuidedEngine) -> int:
    """The number of tokens that the model would read for a message. Raises `InvalidRequestError` if its chat template
    does not accept the conversation."""
    [prompt_format] = prompt_formats(completion.source, engine.tokenizer)
    return engine.count(prompt_format.prompt(engine.tokenizer))


class TextSink(Protocol):
    """Gets a text's content while it is written; a run does."""

    def on_text(self, text: str, call: Usage) -> None:
        """A chunk, perhaps empty, and the usage so far."""


def choice(
    sink: TextSink, completion: Completion, engine: GuidedEngine, prompt_format: PromptFormat, number: int
) -> dict[str, Any]:
    """Generate one text, the one with that `number` among those with the same prompt. Its log-probabilities are added
    to `completion.logprobs`."""
    sampling = {**engine.sampling, **completion.sampling}
    if sampling.get("seed") is not None:
        sampling["seed"] += number
    text = _Text(sink, prompt_format, completion.stop)
    calls_made = list[ModelCall]()
    with usage.measured() as used:
        given = prompt_format.given(engine)
        echoed = given.text if given is not None and completion.echo else ""
        if completion.max_tokens:
            sink.on_text(echoed, Usage())
            with _collecting(calls_made if completion.logprobs is not None else None):
                finish = _write(
                    engine,
                    prompt_format,
                    given,
                    completion.max_tokens,
                    Sampling(**sampling),  # type: ignore[typeddict-item]
                    text,
                )
        else:
            finish = "length"
            _read_only(engine, prompt_format, given, sink, echoed)
    reply = text.end()
    if completion.logprobs is not None:
        completion.logprobs.texts.append(
            _scored(engine, completion, given, calls_made, reply, None if text.stopped else finish)
        )
    calls = [{"id": f"call_{secrets.token_hex(12)}", "name": name, "arguments": given} for name, given in reply.calls]
    return {
        "content": echoed + reply.content,
        "thought": reply.thought,
        "tool_calls": calls,
        "finish_reason": "tool_calls" if calls and finish == "stop" else finish,
        "stop_sequence": text.stop_sequence,
        "usage": {**asdict(used), "reasoning_tokens": engine.tokenizer.count(reply.thought)},
    }


@contextmanager
def _collecting(calls: list[ModelCall] | None) -> Iterator[None]:
    """Within this block the engine's calls are added to `calls`, too."""
    if calls is None:
        yield
        return
    outer = context.current().on_model_call

    def on_model_call(call: ModelCall) -> None:
        calls.append(call)
        if outer is not None:
            outer(call)

    with context.scope(on_model_call=on_model_call):
        yield


def _read_only(
    engine: GuidedEngine, prompt_format: PromptFormat, given: GivenTokens | None, sink: TextSink, echoed: str
) -> None:
    """Count the tokens of a prompt after which nothing is written."""
    tokens = engine.read_tokens(prompt_format.prompt(engine.tokenizer))[0] if given is None else given.tokens
    counted = Usage(prompt_tokens=len(tokens))
    sink.on_text(echoed, counted)
    metrics.count_tokens(counted)
    usage.record(counted)


def _scored(
    engine: GuidedEngine,
    completion: Completion,
    given: GivenTokens | None,
    calls: list[ModelCall],
    reply: Reply,
    finish: str | None,
) -> list[logprobs.TokenLogprob]:
    """The log-probabilities of one text. `finish`: the finish reason; None: at a stop sequence."""
    wanted = completion.logprobs
    assert wanted is not None, "somebody wants them"
    length = None if wanted.with_end and finish is not None else len(reply.content)
    if given is None:
        if not calls:
            return []
        return logprobs.of_call(
            engine, calls[-1], wanted, reply.start, None if length is None else reply.start + length
        )
    tokens = calls[-1].tokens if calls else given.tokens
    if completion.echo:
        return logprobs.of_tokens(
            engine, tokens, given.bos, wanted, None if length is None else len(given.text) + length
        )
    return logprobs.of_tokens(engine, tokens, len(given.tokens), wanted, length)


def _write(
    engine: GuidedEngine,
    prompt_format: PromptFormat,
    given: GivenTokens | None,
    max_tokens: int,
    sampling: Sampling,
    text: "_Text",
) -> str:
    """Let the model write `text`. Returns the finish reason: `stop`, or `length` at a limit."""
    state = EngineState()
    state.prompt = prompt_format.prompt(engine.tokenizer)
    prompt_tokens = None if given is None else given.tokens
    try:
        rules = prompt_format.grammar(engine.tokenizer)
    except UnusableSchemaError as error:
        raise InvalidRequestError(f"The model can't be held to this: {error}.") from error
    grammar = json.dumps({"grammars": [{"lark_grammar": rules}], "max_tokens": max_tokens})
    with (
        context.scope(on_text=text.on_text),
        closing(engine(state, grammar, sampling_params=sampling, prompt_tokens=prompt_tokens)) as responses,
    ):
        try:
            for _ in responses:
                if text.stopped:
                    break
        except OutOfTokensError:
            return "length"
        except PromptTooLongError:
            if not text.written:
                raise
            return "length"
        except ValueError as error:
            raise InvalidRequestError(
                f"The model can't be held to this: {reason_of(error)}. "
                "Ask with a simpler schema, or with fewer tools."
            ) from error
    return "stop"


class _Text:
    """A text while it is written, and the part of it that was sent to its sink."""

    def __init__(self, sink: TextSink, prompt_format: PromptFormat, stop: tuple[str, ...]) -> None:
        self.written = ""
        self.stop_sequence: str | None = None
        """The one that has come."""
        self._sink = sink
        self._format = prompt_format
        self._stop = stop
        self._sent = ""

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence has come."""
        return self.stop_sequence is not None

    def on_text(self, chunk: str, counted: Usage) -> None:
        """The model wrote a chunk; see `Context.on_text`."""
        self.written += chunk
        self._send(self._read(ended=False).content, counted)

    def end(self) -> Reply:
        """Parse the whole text, and send the rest of it."""
        reply = self._read(ended=True)
        self._send(reply.content, Usage())
        return reply

    def _read(self, ended: bool) -> Reply:
        reply = self._format.read(self.written, ended)
        content, self.stop_sequence = stop_sequences.split(reply.content, self._stop)
        if (reply.calls or reply.thought) and not self.stopped:
            return reply
        shown = content if self.stopped or ended else stop_sequences.settled(content, self._stop)
        return Reply(shown, start=reply.start)

    def _send(self, content: str, counted: Usage) -> None:
        self._sink.on_text(content[len(self._sent) :], counted)
        self._sent = content
