"""Turns as the model's own chat template has them, calls of tools included where it knows any."""

import json
import re
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from server.completions import grammar
from server.completions.prompt_format import Reply
from server.completions.stop_sequences import settled
from server.completions.types import Conversation, Json, Message, Tool
from server.engine.tokenizer import EngineTokenizer

MOST_CALLS = 16
"""In a turn, where it may have several."""

# What no template writes by itself. How a template writes calls is seen from what stands around these.
NAME, DESCRIPTION, ARGUMENT, VALUE, CONTENT = (
    f"~hearth-{part}~" for part in ("name", "description", "argument", "value", "content")
)
WRITTEN_ARGUMENTS = re.compile(rf'\{{\s*"{ARGUMENT}":\s*"{VALUE}"\s*\}}')


@dataclass(frozen=True)
class CallMarks:
    """What a template writes around the names and the arguments of calls: `before` the first name, `between` a name
    and its arguments, `again` between arguments and the next name (None: a turn has one call), `after` the last.

    `marker` tells a call from text: the control token or the line that `before` begins with.
    """

    before: str
    between: str
    again: str | None
    after: str
    marker: str


def call_marks(tokenizer: EngineTokenizer) -> CallMarks | None:
    """How calls are written in the tokenizer's chat template; None where it lists no tools or writes no calls."""
    tool = _listed(Tool(NAME, DESCRIPTION, {"type": "object"}))
    # Some templates want ids of nine letters and digits.
    calls = [_called(call_id, NAME, {ARGUMENT: VALUE}) for call_id in ("call00000", "call00001")]

    def rendered(**turn: Any) -> str:
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", **turn}]
        return str(tokenizer.transformers.apply_chat_template(messages, tools=[tool], tokenize=False))

    try:
        said, called = rendered(content=CONTENT), rendered(tool_calls=calls[:1])
    except (TemplateError, TypeError):
        return None
    opening, _, closing = said.partition(CONTENT)
    # Templates differ in what they write before a content that is empty.
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
    """What stands around the names and the arguments of so many calls; None where they aren't all there."""
    parts = [part for piece in WRITTEN_ARGUMENTS.split(written) for part in piece.split(NAME)]
    return parts if len(parts) == 2 * calls + 1 else None


class TemplateLayout:
    """See `Layout`. Without `marks` the conversation may have no tools and no calls."""

    def __init__(self, conversation: Conversation, marks: CallMarks | None) -> None:
        self._conversation = conversation
        self._marks = marks if conversation.callable else None

    def prompt(self, tokenizer: EngineTokenizer) -> str:
        names = {call.id: call.name for message in self._conversation.messages for call in message.calls}
        messages = [_as_template_has_it(message, names) for message in self._conversation.messages]
        return tokenizer.render_chat(messages, [_listed(tool) for tool in self._conversation.tools] or None)

    def grammar(self, tokenizer: EngineTokenizer) -> str:
        asked, marks = self._conversation, self._marks
        if marks is None:
            return "start: answer\n" + grammar.answer_rule(asked.answer)

        def exactly(text: str) -> str:
            return " ".join(
                f"<[{tokenizer.control_tokens[part]}]>" if part in tokenizer.control_tokens else grammar.literal(part)
                for part in _split(text, tokenizer)
            )

        call = " | ".join(
            f"{exactly(tool.name + marks.between)} {grammar.json_by(Json(tool.parameters, tool.strict))}"
            for tool in asked.callable
        )
        more = ""
        if marks.again is not None and asked.several_calls:
            more = f"({exactly(marks.again)} call){{0,{MOST_CALLS - 1}}}"
        rules = f"calls: call {more} {exactly(marks.after)}\ncall: {call}\n"
        called = f"{exactly(marks.before)} calls"
        if asked.must_call:
            return f"start: {called}\n{rules}"
        rules += grammar.answer_rule(asked.answer, without=marks.marker)
        if asked.answer is not None:
            return f"start: answer | {called}\n{rules}"
        if marks.marker in tokenizer.control_tokens:
            return f"start: answer | {called} | answer {called}\n{rules}"
        behind = exactly(marks.before.partition(marks.marker)[2])
        return f"start: answer | text {behind} calls\ntext[suffix={grammar.literal(marks.marker)}]: ANY\n{rules}"

    def read(self, written: str, ended: bool) -> Reply:
        asked, marks = self._conversation, self._marks
        if marks is None:
            return Reply(written)
        if asked.answer is not None:
            # JSON may begin as a call does.
            calls = self._calls(written) if ended else ()
            return Reply(written if ended and not calls else "", calls)
        content, marker, rest = written.partition(marks.marker)
        if asked.must_call:
            content = ""
        elif not marker and not ended:
            content = settled(content, [marks.marker])
        return Reply(content, self._calls(marker + rest))

    def _calls(self, text: str) -> tuple[tuple[str, str], ...]:
        """The calls that `text` begins with. One that ends too early has what there is of its arguments."""
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
    """`text` in its parts: control tokens, and what is between them."""
    names = sorted(tokenizer.control_tokens, key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, names)) + ")", text) if names else [text]
    return [part for part in parts if part]


def _as_template_has_it(message: Message, names: dict[str, str]) -> dict[str, Any]:
    """A message as templates take it; `names` are those of the tools by the ids of their calls."""
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        shown["tool_calls"] = [_called(call.id, call.name, json.loads(call.arguments)) for call in message.calls]
    if message.role == "tool":
        shown |= {"tool_call_id": message.call_id or "", "name": names.get(message.call_id or "", "")}
    return shown


def _called(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _listed(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}
