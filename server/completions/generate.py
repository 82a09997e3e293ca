"""Writing what is asked for, within a run."""

import json
import secrets
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from guidance.models._engine import EngineState

from server.completions import stop_sequences
from server.completions.prompt_format import Continuation, Layout, Reply
from server.completions.react import ReactLayout
from server.completions.template import TemplateLayout, call_marks
from server.completions.types import Completion, Conversation
from server.engine import GuidedEngine, text_stream
from server.engine.sequence import Sampling
from server.engine.tokenizer import EngineTokenizer
from server.errors import InvalidRequestError, OutOfTokensError, PromptTooLongError
from server.runs import Run
from server.sdk import usage
from server.sdk.usage import Usage


@dataclass
class Completed:
    """What a run gives back; see `AgentResult`. `details` has the `choices`, as the event of each has it."""

    answer: str
    usage: dict[str, int]
    details: dict[str, Any]
    function: str | None = None
    steps: list[Any] = field(default_factory=list)


def complete(run: Run, completion: Completion, engine: GuidedEngine) -> Completed:
    """The texts that are asked for, one after the other. `run` hears their content as it comes, and of each text when
    it is done: a `choice` with its `index`, `content`, `tool_calls`, `finish_reason` and `usage`.

    Raises `InvalidRequestError` where the model's chat template does not take the conversation, or no grammar can be
    made of what is asked for, and what the engine raises.
    """
    choices: list[dict[str, Any]] = []
    with usage.measured() as used:
        for layout in layouts(completion.source, engine.tokenizer):
            for number in range(completion.count):
                choices.append({"index": len(choices), **_choice(run, completion, engine, layout, number)})
                run.events.tell("choice", choices[-1])
    return Completed(choices[0]["content"], asdict(used), {"choices": choices})


def layouts(source: Conversation | tuple[str, ...], tokenizer: EngineTokenizer) -> list[Layout]:
    """How the model is asked: for calls of tools in the way of its own chat template, if that has one."""
    if isinstance(source, tuple):
        return [Continuation(text) for text in source]
    marks = call_marks(tokenizer)
    with_tools = source.tools or any(message.calls or message.role == "tool" for message in source.messages)
    return [ReactLayout(source) if with_tools and marks is None else TemplateLayout(source, marks)]


def _choice(run: Run, completion: Completion, engine: GuidedEngine, layout: Layout, number: int) -> dict[str, Any]:
    """One text, the one with that number of those with the same prompt."""
    sampling = {**engine.sampling, **completion.sampling}
    if sampling.get("seed") is not None:
        sampling["seed"] += number
    text = _Text(run, layout, completion.stop)
    with usage.measured() as used:
        finish = _write(engine, layout, completion.max_tokens, Sampling(**sampling), text)  # type: ignore[typeddict-item]
    reply = text.end()
    calls = [{"id": f"call_{secrets.token_hex(12)}", "name": name, "arguments": given} for name, given in reply.calls]
    return {
        "content": reply.content,
        "tool_calls": calls,
        "finish_reason": "tool_calls" if calls and finish == "stop" else finish,
        "usage": asdict(used),
    }


def _write(engine: GuidedEngine, layout: Layout, max_tokens: int, sampling: Sampling, text: "_Text") -> str:
    """Let the model write `text`. Gives why it ended: `stop`, or `length` where there was no room for more."""
    state = EngineState()
    state.prompt = layout.prompt(engine.tokenizer)
    grammar = json.dumps({"grammars": [{"lark_grammar": layout.grammar(engine.tokenizer)}], "max_tokens": max_tokens})
    with text_stream.scope(text.hear), closing(engine(state, grammar, sampling_params=sampling)) as responses:
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
    """What is written of a text, and what its run was told of it."""

    def __init__(self, run: Run, layout: Layout, stop: tuple[str, ...]) -> None:
        self.written = ""
        self.stopped = False
        """Whether one of `stop` has come."""
        self._run = run
        self._layout = layout
        self._stop = stop
        self._told = ""

    def hear(self, piece: str, counted: Usage) -> None:
        """The model wrote a piece more; see `text_stream.Listener`."""
        self.written += piece
        self._tell(self._read(ended=False).content, counted)

    def end(self) -> Reply:
        """All that it says; the run is told what it has not been told before."""
        reply = self._read(ended=True)
        self._tell(reply.content, Usage())
        return reply

    def _read(self, ended: bool) -> Reply:
        reply = self._layout.read(self.written, ended)
        content = stop_sequences.cut(reply.content, self._stop)
        self.stopped = content != reply.content
        if reply.calls and not self.stopped:
            return reply
        return Reply(content if self.stopped or ended else stop_sequences.settled(content, self._stop))

    def _tell(self, content: str, counted: Usage) -> None:
        self._run.hear(content[len(self._told) :], counted)
        self._told = content
