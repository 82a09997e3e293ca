"""The normal form of JSON schemas, and types in words."""

import math
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from server.agent import prompts
from server.agent.remote import act_schema
from server.sdk.json_schema import UnusableSchemaError, arguments_form, describe_type, normal_form

COLOR = {"enum": ["red", "blue"]}


@pytest.mark.parametrize(
    ("schema", "form"),
    [
        (True, {}),
        ({"type": ["object"], "properties": {"a": True, "b": False}}, {"a": {}, "b": {"not": {}}}),
        ({"items": [True], "additionalItems": False}, {"prefixItems": [{}], "items": {"not": {}}}),
        ({"type": "array", "items": True}, {"type": "array", "items": {}}),
        ({"minimum": 1, "exclusiveMinimum": True}, {"minimum": 1, "exclusiveMinimum": 1}),
        ({"default": math.inf, "maximum": math.inf, "enum": [1, math.nan]}, {"enum": [1]}),
        ({"required": ["b"], "properties": {"a": {}}}, {"a": {}, "b": {}}),
        ({"required": ["b"], "properties": {}, "additionalProperties": False}, {}),
        (
            {"dependencies": {"a": ["b"], "c": True}},
            {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {}}},
        ),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "http://x.y/z", "type": "null"},
            {"type": "null"},
        ),
    ],
)
def test_the_normal_form(schema: Any, form: Any) -> None:
    made = normal_form(schema)
    assert made.get("properties", made) == form
    Draft202012Validator.check_schema(made)


@pytest.mark.parametrize(
    "schema",
    [
        {"definitions": {"Color": COLOR}, "properties": {"x": {"$ref": "#/definitions/Color"}}},
        {"$defs": {"Color": COLOR, "Unused": {}}, "properties": {"x": {"$ref": "#/$defs/Color"}}},
        {"$defs": {"c": {"$anchor": "Color", **COLOR}}, "properties": {"x": {"$ref": "#Color"}}},
        {"$id": "http://x.y/", "$defs": {"c": {"$id": "Color", **COLOR}}, "properties": {"x": {"$ref": "/Color"}}},
    ],
)
def test_references(schema: Any) -> None:
    made = normal_form(schema)
    assert made == {"$defs": {"Color": COLOR}, "properties": {"x": {"$ref": "#/$defs/Color"}}}


def test_a_root_that_is_a_reference_is_what_it_refers_to() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    made = arguments_form({"$ref": "#/$defs/Node", "$defs": {"Node": node}})
    assert made == {"$defs": {"Node": node}, **node, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#"}, "refers to itself"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "#/properties/a: the reference '#/$defs/b' leads nowhere"),
        ({"$ref": "https://example.org/x.json"}, "leads nowhere"),
        ({"properties": {"a": {"type": "wat"}}}, "#/properties/a: type must be among"),
        ({"anyOf": [{"minLength": -1}]}, "#/anyOf/0: minLength must be a count"),
        ({"properties": {"a": 5}}, "#/properties/a must be a schema"),
        ({"default": {1, 2}}, "it is no JSON"),
        ({"default": "\ud800"}, "it is no JSON"),
        (7, "a schema is an object"),
        ({"properties": 3, "items": {"$ref": "#/x"}}, "properties must be an object"),
    ],
)
def test_what_is_no_schema(schema: Any, why: str) -> None:
    with pytest.raises(UnusableSchemaError) as refused:
        normal_form(schema)
    assert why in str(refused.value)


def test_arguments_are_an_object() -> None:
    for schema in ({"type": "string"}, {"type": ["array", "null"]}):
        with pytest.raises(UnusableSchemaError, match="must be an object"):
            arguments_form(schema)
    assert arguments_form({"type": ["object", "null"]}) == {"type": "object"}
    combined = {"type": "object", "properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}
    assert arguments_form(combined) == combined, "what allOf adds is not forbidden"


DEFS = {
    "Color": {**COLOR, "title": "Color", "type": "string"},
    "Point": {"type": "object", "properties": {"x": {"type": "number"}, "of": COLOR}, "required": ["x"]},
    "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}},
    "Self": {"anyOf": [{"$ref": "#/$defs/Self"}, {"type": "null"}]},
}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "#/$defs/Color"}, '"red" | "blue"'),
        ({"$ref": "#/$defs/Point"}, '{x: number, of?: "red" | "blue"}'),
        ({"type": "array", "items": {"$ref": "#/$defs/Color"}}, 'list of "red" | "blue"'),
        ({"$ref": "#/$defs/Node"}, "{next?: {next?: {next?: object}}}"),
        ({"$ref": "#/$defs/Self"}, "any | null"),
        ({"const": "é", "type": "string"}, '"é"'),
        ({"type": ["string", "null"]}, "string | null"),
        ({"type": "array", "prefixItems": [{"type": "number"}, {}]}, "[number, any]"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "object"),
        ({"allOf": [{"$ref": "#/$defs/Color"}], "default": "red"}, '"red" | "blue"'),
        ({"type": "object", "properties": {f"p{n}": {} for n in range(500)}}, "object"),
    ],
)
def test_types_in_words(schema: Any, words: str) -> None:
    assert describe_type(schema, DEFS) == words


def test_a_long_enumeration_is_cut() -> None:
    assert describe_type({"enum": list(range(5_000))}, {}).endswith("48 | 49 | ... (4950 more)")
    assert len(describe_type({"enum": ["x" * 1_500] * 9}, {})) < 2_000


# The embedded model is trained on these very words.
SIMPLE = {
    "type": "object",
    "properties": {
        "text": {"title": "Text", "type": "string"},
        "limit": {"default": 3, "type": "integer"},
        "kind": {"enum": ["words", "lines"], "type": "string"},
        "names": {"anyOf": [{"items": {"type": "string"}, "type": "array"}, {"type": "null"}], "default": None},
        "more": {"type": "object", "additionalProperties": True},
        "rest": {"title": "Rest"},
        "flags": {"items": {}, "type": "array"},
    },
    "required": ["text", "kind"],
}
SIMPLE_LINE = (
    '- Count: count(text: string, limit?: integer, kind: "words" | "lines", names?: list of string | null, '
    "more?: object, rest?: any, flags?: list of any)"
)


def test_simple_types_read_as_they_always_did() -> None:
    assert prompts.describe_tool("count", "Count.", SIMPLE) == SIMPLE_LINE
    assert prompts.describe_tool("count", "Count.", arguments_form(SIMPLE)) == SIMPLE_LINE


def test_definitions_of_two_tools_stay_apart() -> None:
    tools = {
        name: arguments_form(
            {"definitions": {"C": {"enum": [name]}}, "properties": {"x": {"$ref": "#/definitions/C"}}}
        )
        for name in ("one", "two")
    }
    held = Draft202012Validator(act_schema(tools, may_call=True))
    for name, fits in (("one", True), ("two", False)):
        step = {"action": "one", "action_input": {"x": name}}
        assert held.is_valid({"thought": "", "step": step}) is fits
