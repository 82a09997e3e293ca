"""A conversation with a remote model: constrained to a JSON schema if its provider supports schemas, otherwise parsed
leniently."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from server.sdk import ApiModel, SchemaRefusedError

from . import prompts
from .conversation import Act, Bounds, Choice, Quote, Statement, UnreadableReplyError
from .reply_parser import ParseError, parse_act, parse_code, parse_option, parse_value

log = logging.getLogger(__name__)

T = TypeVar("T")

REPAIRS = 2
"""Maximum number of repairs of a reply that can't be parsed."""
AGAIN = 3
"""Maximum number of retries without the repairs, for an empty reply or after failed repairs."""
MARKS_TOKENS = 64
"""Tokens for the fixed words of a message and the marks around it."""


class RemoteConversation:
    """See `Conversation`. Each step of the model is an assistant message; each text that it reads, a user message."""

    def __init__(self, model: ApiModel, messages: list[dict[str, str]]) -> None:
        self._model = model
        self._messages = list(messages)
        self._constrained = model.takes_schema
        """Whether its replies are constrained to a schema."""

    @property
    def window(self) -> int:
        return self._model.context_length

    @property
    def length(self) -> int:
        return sum(self._model.count(message["content"]) + MARKS_TOKENS for message in self._messages)

    def add(self, text: str) -> None:
        self._messages.append({"role": "user", "content": text.strip()})

    def repeat(self, lead: str, act: Act, written: str, tools: Mapping[str, Mapping[str, Any]]) -> None:
        if written:
            try:
                act = parse_act(written, tools, may_call=True)
            except ParseError as error:
                raise UnreadableReplyError(f"A step of the earlier run can't be repeated. {error}") from None
        self._did(_as_json(act) if self._constrained else _as_text(act))

    def cut(self, text: str, tokens: int) -> str:
        return self._model.cut(text, tokens)

    def write(self, lead: str, max_tokens: int) -> str:
        if lead.strip():
            # The API can't begin the assistant's message.
            self.add(lead)
        # The model may repeat the end of the lead.
        begun = lead.strip().rpartition("\n")[2]
        text = self._ask(max_tokens, lambda text: text.strip().removeprefix(begun).strip())
        self._did(text)
        return text

    def write_code(self, max_tokens: int) -> str:
        code = self._ask(max_tokens, parse_code)
        self._did(prompts.FENCE + code + prompts.FENCE_END)
        return code

    def write_json(self, schema: Mapping[str, Any], max_tokens: int) -> Any:
        value = self._ask(max_tokens, lambda text: parse_value(text, schema), schema, prompts.write_json(schema))
        self._did(json.dumps(value, ensure_ascii=False))
        return value

    def choose(self, options: Sequence[str]) -> Choice:
        schema = _object(choice={"type": "string", "enum": list(options)})
        option = self._ask(MARKS_TOKENS, lambda text: parse_option(text, options), schema)
        self._did(option)
        return Choice(option, None)

    def write_statements(self, passages: Mapping[int, str], most: int, max_tokens: int) -> list[Statement]:
        schema = statements_schema(list(passages))
        words = prompts.CITE_JSON.format(schema=json.dumps(schema))
        said = self._ask(max_tokens, lambda text: parse_value(text, schema), schema, words)
        self._did(json.dumps(said, ensure_ascii=False))
        if not said["found"]:
            return []
        return [
            Statement(one["sentence"], tuple(Quote(quote["passage"], quote["quote"]) for quote in one["quotes"]))
            for one in said["sentences"][:most]
        ]

    def act(self, lead: str, tools: Mapping[str, Mapping[str, Any]], may_call: bool, bounds: Bounds) -> Act:
        act = self._ask(
            bounds.thought + max(bounds.input, bounds.answer) + MARKS_TOKENS,
            lambda text: parse_act(text, tools, may_call),
            act_schema(tools, may_call),
            stop=[prompts.OBSERVATION],
        )
        self._did(_as_json(act) if self._constrained else _as_text(act))
        return act

    def _did(self, text: str) -> None:
        """Add the model's final reply, in the requested form."""
        self._messages.append({"role": "assistant", "content": text})

    def _ask(
        self,
        max_tokens: int,
        read: Callable[[str], T],
        schema: Mapping[str, Any] | None = None,
        words: str = "",
        stop: Sequence[str] = (),
    ) -> T:
        """The model's next message, parsed by `read`. It is constrained to `schema` or, if the provider does not
        support schemas, the prompt has `words` about the form. It ends before the first of the `stop` sequences.

        Raises `UnreadableReplyError` if the reply can't be parsed after the maximum number of repairs and retries.
        """
        repairs, again, problem = 0, 0, ""
        repair: list[dict[str, str]] = []
        while True:
            sent = schema if self._constrained else None
            asked = [*(self._messages if sent is not None else self._with(words)), *repair]
            cuts: list[None] = []
            try:
                text = self._model.complete(
                    asked, max_tokens=max_tokens, stop=stop, schema=sent, when_cut=partial(cuts.append, None)
                )
            except SchemaRefusedError as refused:
                log.warning("%s From now on its replies are parsed without a schema.", refused.message)
                self._constrained = False
                continue
            problem = ""
            if text.strip():
                try:
                    value = read(text)
                    if cuts and not (isinstance(value, str) or (isinstance(value, Act) and value.tool is None)):
                        # A repaired reply would look complete: a tool would get half a text.
                        raise ParseError("It was cut off at its limit. Make it shorter.")
                    return value
                except ParseError as error:
                    problem = str(error)
            if problem and repairs < REPAIRS:
                repairs += 1
                repair = [
                    {"role": "assistant", "content": text.strip()},
                    {"role": "user", "content": prompts.REPAIR.format(problem=problem)},
                ]
            elif again < AGAIN:
                again += 1
                repair = []
            else:
                raise UnreadableReplyError(
                    f"{self._model.name} was asked {1 + again} times, and its reply could not be read. "
                    f"{problem or 'It wrote nothing.'} Ask again, or load another model."
                )
            log.info("the reply of %s can't be read: %s", self._model.name, problem or "it is empty")

    def _with(self, words: str) -> list[dict[str, str]]:
        """The conversation, with `words` at the end of its system message."""
        if not words:
            return self._messages
        first, *others = self._messages
        return [{**first, "content": f"{first['content']}\n\n{words}"}, *others]


def act_schema(tools: Mapping[str, Mapping[str, Any]], may_call: bool) -> dict[str, Any]:
    """The JSON schema of a message: a thought, and a step, which is a call or the answer."""
    steps: list[dict[str, Any]] = []
    defs: dict[str, Any] = {}
    if may_call:
        for number, (name, schema) in enumerate(tools.items()):
            given = _renamed({part: value for part, value in schema.items() if part != "$defs"}, number)
            defs |= {f"tool{number}_{one}": _renamed(part, number) for one, part in schema.get("$defs", {}).items()}
            steps.append(_object(action={"type": "string", "enum": [name]}, action_input=given))
    elif tools:
        steps.append(_object(action={"type": "string", "enum": list(tools)}))
    schema = _object(thought={"type": "string"}, step={"anyOf": [*steps, _object(answer={"type": "string"})]})
    return {**schema, "$defs": defs} if defs else schema


def statements_schema(passages: Sequence[int]) -> dict[str, Any]:
    """The JSON schema of an answer whose sentences have quotes of `passages`."""
    quote = _object(passage={"type": "integer", "enum": list(passages)}, quote={"type": "string"})
    sentence = _object(sentence={"type": "string"}, quotes={"type": "array", "items": quote})
    return _object(found={"type": "boolean"}, sentences={"type": "array", "items": sentence})


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _renamed(part: Any, number: int) -> Any:
    """A part of a tool's schema, with the tool's number in the names of definitions: two tools may have different
    definitions with the same name."""
    if isinstance(part, dict):
        return {
            name: value.replace("#/$defs/", f"#/$defs/tool{number}_")
            if name == "$ref" and isinstance(value, str)
            else _renamed(value, number)
            for name, value in part.items()
        }
    return [_renamed(one, number) for one in part] if isinstance(part, list) else part


def _as_text(act: Act) -> str:
    said = prompts.THOUGHT + act.thought
    if act.tool is None:
        return said + prompts.ANSWER + (act.answer or "")
    return said + prompts.ACTION + act.tool + (prompts.ACTION_INPUT + act.input if act.input is not None else "")


def _as_json(act: Act) -> str:
    step: dict[str, Any] = {"answer": act.answer} if act.tool is None else {"action": act.tool}
    if act.input is not None:
        step["action_input"] = json.loads(act.input)
    return json.dumps({"thought": act.thought, "step": step}, ensure_ascii=False)
