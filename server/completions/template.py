"""Messages in the model's own chat template, with tool calls if the template has them."""

import json
import re
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from pydantic_core import from_json

from server.completions import grammar
from server.completions.prompt_format import Reply
from server.completions.types import Conversation, Json, Message, Tool
from server.engine.engine import GuidedEngine
from server.engine.stop_sequences import settled
from server.engine.tokenizer import EngineTokenizer

MOST_CALLS = 16
"""Maximum number of parallel calls in a message."""

# Placeholders that no template writes by itself. The text around them shows how the template writes calls.
NAME, DESCRIPTION, ARGUMENT, VALUE, CONTENT = (
    f"~hearth-{part}~" for part in ("name", "description", "argument", "value", "content")
)
WRITTEN_ARGUMENTS = re.compile(rf'\{{\s*"{ARGUMENT}":\s*"{VALUE}"\s*\}}')


@dataclass(frozen=True)
class CallMarks:
    """What a template writes around the names and the arguments of calls: `before` the first name, `between` a name
    and its arguments, `again` between arguments and the next name (None: one call a message), `after` the last.

    `marker` distinguishes a call from text: the control token or the line that `before` begins with.
    """

    before: str
    between: str
    again: str | None
    after: str
    marker: str


def call_marks(tokenizer: EngineTokenizer) -> CallMarks | None:
    """How the tokenizer's chat template writes calls; None if it lists no tools or writes no calls."""
    tool = _listed(Tool(NAME, DESCRIPTION, {"type": "object"}))
    # Some templates want ids of nine letters and digits.
    calls = [_called(call_id, NAME, {ARGUMENT: VALUE}) for call_id in ("call00000", "call00001")]

    def rendered(**message: Any) -> str:
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", **message}]
        return str(tokenizer.transformers.apply_chat_template(messages, tools=[tool], tokenize=False))

    try:
        plain, called = rendered(content=CONTENT), rendered(tool_calls=calls[:1])
    except (TemplateError, TypeError):
        return None
    opening, _, closing = plain.partition(CONTENT)
    # Templates differ in what they write before an empty content.
    start = next((place for place, (a, b) in enumerate(zip(opening, called, strict=False)) if a != b), len(opening))
    parts = _around_calls(called[start:], 1)
    if DESCRIPTION not in opening or parts is None or not parts[0].strip() or not parts[-1].endswith(closing):
        return None
    before, between, after = parts
    try:
        twice = _around_calls(rendered(tool_calls=calls)[start:], 2)
    except TemplateError:
        twice = None
    first = _split(before.lstrip(), tokenizer)[0]
    marker = first if first in tokenizer.control_tokens else first.partition("\n")[0]
    return CallMarks(before, between, twice[2] if twice else None, after.removesuffix(closing), marker)


def _around_calls(written: str, calls: int) -> list[str] | None:
    """The text around the names and the arguments of so many calls; None if some are missing."""
    parts = [part for outside in WRITTEN_ARGUMENTS.split(written) for part in outside.split(NAME)]
    return parts if len(parts) == 2 * calls + 1 else None


class TemplateFormat:
    """See `PromptFormat`. Without `marks` the conversation must have no tools and no calls."""

    def __init__(self, conversation: Conversation, marks: CallMarks | None) -> None:
        self._conversation = conversation
        self._marks = marks if conversation.callable else None

    def given(self, engine: GuidedEngine) -> None:
        return None

    def prompt(self, tokenizer: EngineTokenizer) -> str:
        names = {call.id: call.name for message in self._conversation.messages for call in message.calls}
        messages = [_for_template(message, names) for message in self._conversation.messages]
        tools = [_listed(tool) for tool in self._conversation.tools] or None
        return tokenizer.render_chat(messages, tools, self._conversation.template_arguments)

    def grammar(self, tokenizer: EngineTokenizer) -> str:
        conversation, marks = self._conversation, self._marks
        if marks is None:
            return "start: answer\n" + grammar.answer_rule(conversation.answer)

        def exactly(text: str) -> str:
            return " ".join(
                f"<[{tokenizer.control_tokens[part]}]>" if part in tokenizer.control_tokens else grammar.literal(part)
                for part in _split(text, tokenizer)
            )

        call = " | ".join(
            f"{exactly(tool.name + marks.between)} {grammar.json_by(Json(tool.parameters, tool.strict))}"
            for tool in conversation.callable
        )
        more = ""
        if marks.again is not None and conversation.several_calls:
            more = f"({exactly(marks.again)} call){{0,{MOST_CALLS - 1}}}"
        rules = f"calls: call {more} {exactly(marks.after)}\ncall: {call}\n"
        called = f"{exactly(marks.before)} calls"
        if conversation.must_call:
            return f"start: {called}\n{rules}"
        rules += grammar.answer_rule(conversation.answer, without=marks.marker)
        if conversation.answer is not None:
            return f"start: answer | {called}\n{rules}"
        if marks.marker in tokenizer.control_tokens:
            return f"start: answer | {called} | answer {called}\n{rules}"
        rest = exactly(marks.before.partition(marks.marker)[2])
        return f"start: answer | text {rest} calls\ntext[suffix={grammar.literal(marks.marker)}]: ANY\n{rules}"

    def read(self, written: str, ended: bool) -> Reply:
        conversation, marks = self._conversation, self._marks
        if marks is None:
            return Reply(written)
        if conversation.answer is not None:
            # JSON may begin like a call.
            calls = self._calls(written) if ended else ()
            return Reply(written if ended and not calls else "", calls)
        content, marker, rest = written.partition(marks.marker)
        if conversation.must_call:
            content = ""
        elif not marker and not ended:
            content = settled(content, [marks.marker])
        return Reply(content, self._calls(marker + rest))

    def _calls(self, text: str) -> tuple[tuple[str, str], ...]:
        """The calls at the beginning of `text`. A call that is cut off has incomplete arguments."""
        assert self._marks is not None
        calls: list[tuple[str, str]] = []
        opening: str | None = self._marks.before.lstrip()
        text = text.lstrip()
        while opening is not None and text.startswith(opening):
            text = text.removeprefix(opening)
            heads = {tool.name: tool.name + self._marks.between for tool in self._conversation.callable}
            name = next((name for name, head in heads.items() if text.startswith(head)), None)
            if name is None:
                break
            text = text.removeprefix(heads[name])
            try:
                _, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                end = len(text)
            calls.append((name, text[:end]))
            text, opening = text[end:], self._marks.again
        return tuple(calls)


def _split(text: str, tokenizer: EngineTokenizer) -> list[str]:
    """`text` split into control tokens and the text between them."""
    names = sorted(tokenizer.control_tokens, key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, names)) + ")", text) if names else [text]
    return [part for part in parts if part]


def _for_template(message: Message, names: dict[str, str]) -> dict[str, Any]:
    """A message in the form that templates expect. `names`: the tools' names by the ids of their calls."""
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thought:
        shown["reasoning_content"] = message.thought
    if message.calls:
        shown["tool_calls"] = [_called(call.id, call.name, as_object(call.arguments)) for call in message.calls]
    if message.role == "tool":
        shown |= {"tool_call_id": message.call_id or "", "name": names.get(message.call_id or "", "")}
    return shown


def as_object(arguments: str) -> dict[str, Any]:
    """The arguments of a call, as templates want them. A text that was cut off has what came before; one
    that is no object, itself."""
    try:
        found = from_json(arguments or "{}", allow_inf_nan=False, allow_partial="trailing-strings")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"arguments": arguments}


def _called(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _listed(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}
