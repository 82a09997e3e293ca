"""Reading what a model wrote that was held to no form: forms that models use, and whatever else may come."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from server.agent.conversation import Act, Bounds, UnreadableReplyError
from server.agent.remote import RemoteConversation, act_schema
from server.agent.reply_parser import ParseError, parse_act, parse_option, parse_value
from server.providers.schemas import NotStrictError, strict, without_nulls

ONE = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
TWO = {
    "type": "object",
    "properties": {"start": {"type": "string"}, "end": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["start", "end"],
}
NONE = {"type": "object", "properties": {}}
TOOLS = {"calculator": ONE, "days_between": TWO, "now": NONE}

CALL = Act("so", "calculator", '{"expression": "1 + 1"}')


@pytest.mark.parametrize(
    "text",
    [
        'Thought: so\nAction: calculator\nAction Input: {"expression": "1 + 1"}',
        'Thought: so\nAction: calculator\nAction Input: {"expression": "1 + 1"}\nObservation: 3\nAnswer: 3',
        "thought:so\n\n  ACTION :  calculator\n action_input: {'expression': '1 + 1'}",
        '**Thought:** so\n**Action:** `calculator`\n**Action Input:**\n```json\n{"expression": "1 + 1",}\n```',
        "- Thought: so\n- Action: Calculator\n- Action-Input: {expression: '1 + 1'} // that's it",
        'so\nAction: calculator\nAction Input: "1 + 1"',
        "so\nAction: calculator\nAction Input: 1 + 1",
        'Thought: so\nAction: calculator({"expression": "1 + 1"})',
        'Thought: so\nAction: calculator\n{"expression": "1 + 1"}',
        'Thought: so\nAction: ```json\n{"action": "calculator", "action_input": {"expression": "1 + 1"}}\n```',
        'Thought: so\n```json\n{"action": "calculator", "action_input": {"expression": "1 + 1"}}\n```',
        '{"thought": "so", "step": {"action": "calculator", "action_input": {"expression": "1 + 1"}}}',
        '{"thought": "so", "tool": "calculator", "input": {"expression": "1 + 1"}}',
        '{"Thought": "so", "Action": "calculator", "Action Input": "{\\"expression\\": \\"1 + 1\\"}"}',
        '{"reasoning": "so", "function": {"name": "calculator", "arguments": {"expression": "1 + 1"}}}',
        "Here it is:\n{'thought': 'so', 'tool': 'calculator', 'args': {'expression': '1 + 1',},} # done",
        '{"thought": "so", "tool": "calculator", "input": {"expression": "1 + 1"}}\n{"thought": "then", "answer": 2}',
    ],
)
def test_a_call_in_any_form(text: str) -> None:
    act = parse_act(text, TOOLS, may_call=True)
    assert (act.tool, act.input) == (CALL.tool, CALL.input)
    assert act.thought == "so"
    assert parse_act(text, TOOLS, may_call=False) == Act(act.thought, "calculator")


@pytest.mark.parametrize(
    "text",
    [
        "Thought: so\nAnswer: 42",
        "THOUGHT : so\nFinal Answer:\n42\n",
        "so\n\n**Final answer:** 42",
        '{"thought": "so", "step": {"answer": "42"}}',
        '```\n{"thought": "so", "final_answer": 42}\n```',
        "Thought: so\nAction: Final Answer\nAction Input: 42",
        '{"thought": "so", "action": "Final Answer", "action_input": "42"}',
        "Thought: so\nAnswer: 42\nObservation: and so on",
    ],
)
def test_an_answer_in_any_form(text: str) -> None:
    assert parse_act(text, TOOLS, may_call=True) == Act("so", answer="42")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello there", "neither an action nor an answer"),
        ("Thought: so", "neither an action nor an answer"),
        ("Thought: so\nAnswer:", "empty"),
        ("Action: telephone\nAction Input: {}", "calculator, days_between, now"),
        ("Action: days_between\nAction Input: today", '"start"'),
        ("Action: ?!", "name of a tool"),
        ('{"thought": "so"}', "neither a tool nor an answer"),
        ('{"tool": "calculator", "input": ' + '{"a": ' * 5000, "JSON"),
    ],
)
def test_what_is_wrong_is_reported(text: str, said: str) -> None:
    with pytest.raises(ParseError, match=said):
        parse_act(text, TOOLS, may_call=True)


def test_a_tool_without_arguments() -> None:
    assert parse_act("Action: now", TOOLS, may_call=True) == Act("", "now", "{}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"n": 1}', {"n": 1}),
        ("Sure!\n```json\n{'n': 1, /* one */}\n```", {"n": 1}),
        ('{"n": "x"}\n{"n": 2}', {"n": 2}),
    ],
)
def test_json_in_any_form(text: str, value: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert parse_value(text, schema) == value
    with pytest.raises(ParseError, match="n: 'x' is not of type 'integer'"):
        parse_value('{"n": "x"}', schema)


@pytest.mark.parametrize("text", ["react", " 'React'.", '{"choice": "react"}', "I choose react\n"])
def test_an_option_in_any_form(text: str) -> None:
    assert parse_option(text, ["chat", "react", "plan_execute"]) == "react"


@pytest.mark.parametrize("text", ["", "chat or react", "reaction"])
def test_no_option(text: str) -> None:
    with pytest.raises(ParseError):
        parse_option(text, ["chat", "react"])


# Whatever comes, it ends with a result or with the error that says that it can't be read

WORDS = [
    *"{}[]\"':,\n `*\\", "Thought", "Action", "Action Input", "Observation", "Answer", "Final Answer", "calculator",
    "days_between", '"thought"', '"step"', '"tool"', '"input"', "```json\n", "1e999", "NaN", "null", "\ud83d", "\0",
    "//", "/*", "\\ud83d", "é", "9" * 30,
]  # fmt: skip
TEXTS = st.text(max_size=200) | st.lists(st.sampled_from(WORDS), max_size=40).map("".join)
SCHEMAS = st.sampled_from([ONE, TWO, {"type": "array", "items": {"type": "integer"}}, {"enum": [1, "a"]}, {}])


@given(text=TEXTS, may_call=st.booleans())
@example(text="Action:" * 3000, may_call=True)
@example(text="[" * 5000, may_call=True)
@example(text='{"answer": ' * 3000, may_call=True)
@example(text='{"answer": ' + "9" * 5000 + "}", may_call=True)
@example(text='{"tool": "calculator", "input": {"expression": NaN}}', may_call=True)
def test_any_text_is_an_act_or_can_not_be_read(text: str, may_call: bool) -> None:
    try:
        act = parse_act(text, TOOLS, may_call)
    except ParseError:
        return
    assert (act.tool is None) != (act.answer is None)
    assert act.tool in (None, *TOOLS)
    assert (act.input is not None) == (act.tool is not None and may_call)
    if act.input is not None:
        assert isinstance(json.loads(act.input), dict)
    for part in (act.thought, act.input, act.answer):
        (part or "").encode()


@given(text=TEXTS, schema=SCHEMAS)
def test_any_text_fits_a_schema_or_can_not_be_read(text: str, schema: dict[str, Any]) -> None:
    try:
        value = parse_value(text, schema)
    except ParseError:
        return
    assert Draft202012Validator(schema).is_valid(value)
    json.dumps(value, ensure_ascii=False).encode()


class Scripted:
    """A model that writes the texts that the test gives, also such as no real model would write."""

    name, context_length, takes_schema = "scripted", 8192, False

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.asked = 0

    def count(self, text: str) -> int:
        return len(text)

    def complete(self, messages: list[dict[str, str]], **_: Any) -> str:
        assert all(message["content"] for message in messages)
        self.asked += 1
        return self.texts[(self.asked - 1) % len(self.texts)]


class CutOff(Scripted):
    """Its first reply comes to its limit."""

    def complete(self, messages: list[dict[str, str]], **options: Any) -> str:
        if self.asked == 0:
            options["when_cut"]()
        return super().complete(messages)


def test_half_an_input_is_not_taken_for_a_whole_one() -> None:
    call = 'Thought: so\nAction: calculator\nAction Input: {"expression": '
    model = CutOff([call + '"1 +', call + '"1 + 1"}'])
    conversation = RemoteConversation(model, [{"role": "user", "content": "?"}])  # type: ignore[arg-type]
    assert conversation.act("", TOOLS, True, Bounds(10, 10, 10)) == CALL
    assert model.asked == 2


def test_half_an_answer_is_better_than_none() -> None:
    model = CutOff(["Thought: so\nAnswer: it is"])
    conversation = RemoteConversation(model, [{"role": "user", "content": "?"}])  # type: ignore[arg-type]
    assert conversation.act("", TOOLS, True, Bounds(10, 10, 10)).answer == "it is"


@given(texts=st.lists(TEXTS, min_size=1, max_size=6))
def test_any_replies_end_in_an_act_or_in_the_error(texts: list[str]) -> None:
    model = Scripted(texts)
    conversation = RemoteConversation(model, [{"role": "user", "content": "?"}])  # type: ignore[arg-type]
    try:
        conversation.act("", TOOLS, True, Bounds(10, 10, 10))
    except UnreadableReplyError as error:
        assert "can't be read" in error.message or "could not be read" in error.message
    assert model.asked <= 6


# JSON schemas that providers are given

OPTIONAL = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9, "default": "x"},
        "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
        "either": {"anyOf": [{"$ref": "#/$defs/Item"}, {"type": "integer"}]},
    },
    "required": ["items"],
    "$defs": {
        "Item": {
            "type": "object",
            "properties": {"n": {"type": "integer"}, "note": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            "required": ["n"],
        }
    },
}


def values_of(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that fit a strict schema."""
    if "$ref" in schema:
        return values_of(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in schema:
        return st.one_of([values_of(part, defs) for part in schema["anyOf"]])
    match schema["type"]:
        case "object":
            return st.fixed_dictionaries({name: values_of(part, defs) for name, part in schema["properties"].items()})
        case "array":
            return st.lists(values_of(schema["items"], defs), max_size=3)
        case "integer":
            return st.integers(-9, 9)
        case "null":
            return st.none()
    return st.text(max_size=3)


@given(st.data())
def test_a_strict_schema_admits_what_the_schema_does(data: st.DataObject) -> None:
    made = strict(OPTIONAL)
    Draft202012Validator.check_schema(made)
    value = data.draw(values_of(made, made["$defs"]))
    assert Draft202012Validator(made).is_valid(value)
    assert Draft202012Validator(OPTIONAL).is_valid(without_nulls(value, OPTIONAL))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
        {"type": "array"},
        {"allOf": [ONE, TWO]},
    ],
)
def test_what_no_strict_schema_can_say(schema: dict[str, Any]) -> None:
    with pytest.raises(NotStrictError):
        strict(schema)


def test_the_schema_of_a_turn_keeps_the_definitions_of_tools_apart() -> None:
    other = {**OPTIONAL, "$defs": {"Item": {"type": "string"}}}
    schema = act_schema({"one": OPTIONAL, "other": other}, may_call=True)
    fits = Draft202012Validator(schema).is_valid
    assert fits({"thought": "", "step": {"action": "one", "action_input": {"items": [{"n": 1}]}}})
    assert fits({"thought": "", "step": {"action": "other", "action_input": {"items": ["a"]}}})
    assert not fits({"thought": "", "step": {"action": "other", "action_input": {"items": [{"n": 1}]}}})
    assert fits({"thought": "", "step": {"answer": "42"}})
    assert not fits({"thought": "", "step": {"action": "third", "action_input": {}}})
    assert strict(schema)["$defs"].keys() == {"tool0_Item", "tool1_Item"}
