"""Generating completions, within a run."""

import json
import secrets
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from guidance.models._engine import EngineState

from server.completions.prompt_format import Continuation, PromptFormat, Reply
from server.completions.react import ReactFormat
from server.completions.template import TemplateFormat, call_marks
from server.completions.types import Completion, Conversation
from server.engine import GuidedEngine, stop_sequences
from server.engine.sequence import Sampling
from server.engine.tokenizer import EngineTokenizer
from server.errors import InvalidRequestError, OutOfTokensError, PromptTooLongError
from server.runs import Run
from server.sdk import context, usage
from server.sdk.json_schema import UnusableSchemaError
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
    the end of each text, with `index`, `content`, `thought`, `tool_calls`, `finish_reason` and `usage`.

    Raises `InvalidRequestError` if the model's chat template does not accept the conversation or the request can't
    become a grammar, and what the engine raises.
    """
    choices: list[dict[str, Any]] = []
    with usage.measured() as used:
        for prompt_format in prompt_formats(completion.source, engine.tokenizer, completion.max_tokens):
            for number in range(completion.count):
                choices.append({"index": len(choices), **choice(run, completion, engine, prompt_format, number)})
                run.events.publish("choice", choices[-1])
    return CompletionResult(choices[0]["content"], asdict(used), {"choices": choices})


def prompt_formats(
    source: Conversation | tuple[str, ...], tokenizer: EngineTokenizer, max_tokens: int | None = None
) -> list[PromptFormat]:
    """The format of each prompt. Tool calls use the model's chat template if it has them, else ReAct. `max_tokens`:
    of the completion; None: enough."""
    if isinstance(source, tuple):
        return [Continuation(text) for text in source]
    marks = call_marks(tokenizer)
    with_tools = source.tools or any(message.calls or message.role == "tool" for message in source.messages)
    return [ReactFormat(source, max_tokens) if with_tools and marks is None else TemplateFormat(source, marks)]


class TextSink(Protocol):
    """Gets a text's content while it is written; a run does."""

    def on_text(self, text: str, call: Usage) -> None:
        """A chunk, perhaps empty, and the usage so far."""


def choice(
    sink: TextSink, completion: Completion, engine: GuidedEngine, prompt_format: PromptFormat, number: int
) -> dict[str, Any]:
    """Generate one text, the one with that `number` among those with the same prompt."""
    sampling = {**engine.sampling, **completion.sampling}
    if sampling.get("seed") is not None:
        sampling["seed"] += number
    text = _Text(sink, prompt_format, completion.stop)
    with usage.measured() as used:
        finish = _write(engine, prompt_format, completion.max_tokens, Sampling(**sampling), text)  # type: ignore[typeddict-item]
    reply = text.end()
    calls = [{"id": f"call_{secrets.token_hex(12)}", "name": name, "arguments": given} for name, given in reply.calls]
    return {
        "content": reply.content,
        "thought": reply.thought,
        "tool_calls": calls,
        "finish_reason": "tool_calls" if calls and finish == "stop" else finish,
        "usage": {**asdict(used), "reasoning_tokens": engine.tokenizer.count(reply.thought)},
    }


def _write(
    engine: GuidedEngine, prompt_format: PromptFormat, max_tokens: int, sampling: Sampling, text: "_Text"
) -> str:
    """Let the model write `text`. Returns the finish reason: `stop`, or `length` at a limit."""
    state = EngineState()
    state.prompt = prompt_format.prompt(engine.tokenizer)
    try:
        rules = prompt_format.grammar(engine.tokenizer)
    except UnusableSchemaError as error:
        raise InvalidRequestError(f"The model can't be held to this: {error}.") from error
    grammar = json.dumps({"grammars": [{"lark_grammar": rules}], "max_tokens": max_tokens})
    with context.scope(on_text=text.on_text), closing(engine(state, grammar, sampling_params=sampling)) as responses:
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
            reason = str(error).partition("\n")[0]
            raise InvalidRequestError(
                f"The model can't be held to this: {reason}. Ask with a simpler schema, or with fewer tools."
            ) from error
    return "stop"


class _Text:
    """A text while it is written, and the part of it that was sent to its sink."""

    def __init__(self, sink: TextSink, prompt_format: PromptFormat, stop: tuple[str, ...]) -> None:
        self.written = ""
        self.stopped = False
        """Whether a stop sequence has come."""
        self._sink = sink
        self._format = prompt_format
        self._stop = stop
        self._sent = ""

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
        content = stop_sequences.cut(reply.content, self._stop)
        self.stopped = content != reply.content
        if (reply.calls or reply.thought) and not self.stopped:
            return reply
        return Reply(content if self.stopped or ended else stop_sequences.settled(content, self._stop))

    def _send(self, content: str, counted: Usage) -> None:
        self._sink.on_text(content[len(self._sent) :], counted)
        self._sent = content
