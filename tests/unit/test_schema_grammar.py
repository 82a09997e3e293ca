"""A grammar allows every value that its schema allows, and is made soon."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer

from server.agent.remote import act_schema
from server.completions.grammar import why_no_grammar
from server.completions.types import Json
from server.providers.schemas import NotStrictError, as_object, strict
from server.sdk import describe_type
from server.sdk.json_schema import UnusableSchemaError, arguments_form, normal_form
from server.sdk.pattern_grammar import pattern_of_grammar
from server.sdk.schema_grammar import DEEPEST, MOST_CHOICES, MOST_ITEMS, grammar_schema

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

COMPILE_SECONDS = 1.0
TOKENIZER = LLTokenizer("byte")
OPTIONS: "JsonCompileOptions" = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


def matcher(schema: Any) -> LLMatcher:
    """The grammar of a schema. Its own time on the processor counts: others may use the machine."""
    said, before = grammar_schema(schema), time.thread_time()
    made = LLMatcher(TOKENIZER, LLMatcher.grammar_from_json_schema(json.dumps(said), overrides=OPTIONS), log_level=0)
    assert time.thread_time() - before < COMPILE_SECONDS, said
    assert not made.is_error(), (said, made.get_error())
    return made


def allows(schema: Any, text: str) -> bool:
    made, tokens = matcher(schema), list(text.encode())
    return made.try_consume_tokens(tokens) == len(tokens) and made.is_accepting()


def spelled(value: Any, schema: Any, defs: Any) -> str:
    """`value` as the model can write it: in the schema's order, numbers without exponents, DEL escaped."""
    schema = schema if isinstance(schema, dict) else {}
    if "$ref" in schema:
        return spelled(value, defs[schema["$ref"].rpartition("/")[2]], defs)
    for choice in ("anyOf", "oneOf"):
        for part in schema.get(choice, ()):
            if Draft202012Validator({**part, "$defs": defs}).is_valid(value):
                return spelled(value, part, defs)
    match value:
        case bool() | None:
            return json.dumps(value)
        case float() if value.is_integer():
            return str(int(value))
        case float() | int():
            return format(Decimal(repr(value)), "f")
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
        case list():
            first, rest = schema.get("prefixItems", []), schema.get("items", {})
            parts = [*first, *[rest] * len(value)]
            return "[" + ", ".join(spelled(one, part, defs) for one, part in zip(value, parts, strict=False)) + "]"
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    names = [name for name in properties if name in value] + [name for name in value if name not in properties]
    return (
        "{"
        + ", ".join(
            f"{spelled(name, {}, {})}: {spelled(value[name], properties.get(name, others), defs)}" for name in names
        )
        + "}"
    )


def _numbers(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.integers(-(10**20), 10**20) | st.integers(-30, 30) | st.floats(-1e6, 1e6)
    multiples = st.sampled_from([1, 2, 7, 100, 101, 999_983])
    return st.fixed_dictionaries(
        {"type": st.just(kind)},
        optional={"minimum": bounds, "maximum": bounds, "multipleOf": multiples}
        if kind == "integer"
        else {"exclusiveMinimum": bounds, "maximum": bounds},
    )


COUNTS = st.integers(0, 4) | st.sampled_from([1_000, 10**9])
TEXTS = st.fixed_dictionaries({"type": st.just("string")}, optional={"maxLength": st.integers(3, 9) | st.just(10**9)})
PATTERNS = st.sampled_from(
    ["^[a-z]{2,4}$", r"\d+-\w", "^(ab|c)+$", r"\bab", "(?=a)a", r"^[^\s,]+$", "x{1,300}", "^a|b$"]
)
LEAVES = (
    st.just({})
    | st.sampled_from([{"type": "null"}, {"type": "boolean"}, True, {"type": ["integer", "null"], "maximum": 10**30}])
    | _numbers("integer")
    | _numbers("number")
    | TEXTS
    | PATTERNS.map(lambda pattern: {"type": "string", "pattern": pattern})
    | st.lists(st.none() | st.integers(-9, 9) | st.sampled_from([1e-9, 2.5, "a", "é"]), min_size=1, max_size=4).map(
        lambda members: {"enum": members}
    )
)
NAMES = st.sampled_from(["a", "b", "c", "d"])


def _composed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.fixed_dictionaries(
        {"type": st.just("array"), "items": inner},
        optional={"maxItems": COUNTS, "minItems": st.integers(0, 2), "uniqueItems": st.booleans()},
    )
    tuples = st.lists(inner, min_size=1, max_size=3).map(
        lambda parts: {"type": "array", "items": parts, "additionalItems": False}
    )
    objects = st.fixed_dictionaries(
        {
            "type": st.just("object"),
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "additionalProperties": st.booleans() | inner,
        },
        optional={"required": st.lists(NAMES, max_size=2, unique=True)},
    )
    maps = st.fixed_dictionaries(
        {"type": st.just("object"), "additionalProperties": inner}, optional={"minProperties": st.integers(0, 2)}
    )
    return (
        lists | tuples | objects | maps | st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts})
    )


SCHEMAS = st.recursive(LEAVES, _composed, max_leaves=8)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Values of which many fit a schema in normal form."""
    if schema == {"not": {}}:
        return st.nothing()
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([values(part) for part in schema["anyOf"]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return st.one_of([values({**schema, "type": one}) for one in kind])
    match kind:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer" | "number":
            ends = [schema[end] for end in ("minimum", "exclusiveMinimum", "maximum") if end in schema]
            near = st.integers(-3, 3).flatmap(lambda step: st.sampled_from(ends or [0]).map(lambda end: end + step))
            if kind == "number":
                return (
                    near | st.sampled_from([1e-9, 6.02e23, -0.5]) | st.floats(allow_nan=False, allow_infinity=False)
                )
            step = schema.get("multipleOf", 1)
            return (near.map(int) | st.integers()).map(lambda number: number // step * step)
        case "string" if "pattern" in schema:
            return st.from_regex(re.compile(schema["pattern"], re.ASCII)).filter(lambda text: text[-1:] != "\n")
        case "string":
            return st.text(max_size=int(min(schema.get("maxLength", 12), 12)))
        case "array":
            first, rest = schema.get("prefixItems", []), values(schema.get("items", {}))
            more = st.nothing() if rest.is_empty else rest
            return st.builds(
                lambda start, end, cut: [*start, *end][: cut if cut <= len(start) else None],
                st.tuples(*map(values, first)),
                st.just([]) if rest.is_empty else st.lists(more, max_size=3),
                st.integers(0, 9),
            )
        case "object":
            parts = {name: values(part) for name, part in schema.get("properties", {}).items()}
            needed = {name: part for name, part in parts.items() if name in schema.get("required", ())}
            others = schema.get("additionalProperties", {})
            others = {} if others is True else {"not": {}} if others is False else others
            more = st.dictionaries(st.text("wxyz", min_size=1, max_size=2), values(others), max_size=2)
            named = st.fixed_dictionaries(
                needed, optional={name: part for name, part in parts.items() if name not in needed}
            )
            return named if values(others).is_empty else st.builds(lambda one, two: {**two, **one}, named, more)
    return ANYTHING


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), schema=SCHEMAS)
def test_every_value_that_fits_is_allowed(data: st.DataObject, schema: Any) -> None:
    normal = normal_form(schema)
    try:
        matcher(schema)
    except UnusableSchemaError as error:
        assert "no value fits" in str(error)
        return
    value = data.draw(values(normal))
    assume(Draft202012Validator(normal).is_valid(value))
    text = spelled(value, normal, normal.get("$defs", {}))
    assert json.loads(text) == value
    assert allows(schema, text), (grammar_schema(schema), text)


@settings(max_examples=100, deadline=None)
@given(schema=SCHEMAS)
def test_every_reader_reads_it(schema: Any) -> None:
    try:
        arguments = arguments_form({"type": "object", "properties": {"x": schema}, "required": ["x", "y"]})
        matcher(arguments)
    except UnusableSchemaError as error:
        assert "no value fits" in str(error)
        return
    assert all(describe_type(part, {}) for part in arguments["properties"].values())
    sent = act_schema({"one": arguments, "other": arguments}, may_call=True)
    Draft202012Validator.check_schema(sent)
    with suppress(NotStrictError):
        strict(as_object(sent))
    assert json.dumps(arguments, allow_nan=False)


NUMBERS = ["1e-9", "6.02e23", "-0.5E+3", "0", "12345678901234567890"]


@pytest.mark.parametrize(
    "bounds", [{"exclusiveMinimum": 0}, {"minimum": 0, "maximum": 1}, {"maximum": 1e20}, {"multipleOf": 0.1}]
)
def test_bounds_of_numbers_lose_none(bounds: dict[str, Any]) -> None:
    assert all(allows({"type": "number", **bounds}, number) for number in NUMBERS)


@pytest.mark.parametrize(
    ("schema", "allowed", "refused"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 12}, ["1", "12"], ["0", "13"]),
        ({"type": "integer", "exclusiveMinimum": 0.5, "multipleOf": 5}, ["5", "100"], ["0", "7"]),
        ({"type": "integer", "multipleOf": 5}, ["-5", "0", "5"], ["1.5"]),
        ({"type": "integer", "exclusiveMaximum": 2**64}, [str(2**64 - 1)], ["1.5"]),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, [str(-(2**63))], ["x"]),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, ["4"], ["3"]),
        ({"enum": [2**60 + 1, 2**60 + 3]}, [str(2**60 + 3)], ['"a"']),
        ({"enum": [True, 1, "1", None, 0.5]}, ["true", "1", '"1"', "null", "0.5"], ["false", "2"]),
        ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
        ({"type": ["object"], "properties": {"a": True}, "required": ["a"]}, ['{"a": [1]}'], ["{}"]),
        ({"items": [{"type": "null"}], "additionalItems": False, "type": "array"}, ["[]", "[null]"], ["[null, 1]"]),
        ({"type": "object", "required": ["b"], "properties": {}}, ['{"b": 1}'], ["{}"]),
        ({"type": "string", "pattern": r"^\w+$"}, ['"Müller"', '"x1"'], ['"a b"']),
        ({"type": "string", "format": "date-time"}, ['"2026-08-19T14:00:00"'], ["1"]),
        ({"type": "string", "format": "date"}, ['"2026-08-19"'], ['"today"']),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ["1.5"], ['"a"']),
        (
            {"type": "object", "patternProperties": {"^x": {"type": "null"}}},
            ['{"x": null}', '{"a": 1}'],
            ['{"x": 1}'],
        ),
        ({"properties": {"a": False}, "type": "object", "additionalProperties": False}, ["{}"], ['{"a": 1}']),
        ({"anyOf": [False, {"type": "null"}]}, ["null"], ["1"]),
    ],
)
def test_what_a_grammar_says(schema: Any, allowed: list[str], refused: list[str]) -> None:
    assert [text for text in allowed if not allows(schema, text)] == []
    assert [text for text in refused if allows(schema, text)] == []


def _tree(**more: Any) -> dict[str, Any]:
    child = {"type": "array", "items": {"$ref": "#"}}
    return {"type": "object", "properties": {"v": {"type": "integer"}, "children": child}, "required": ["v"], **more}


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"allOf": [{"$ref": "#"}]}, {"type": "integer"}]},
        {"allOf": [{"$ref": "#/$defs/a0"}, {"type": "integer"}]}
        | {"$defs": {f"a{n}": {"allOf": 2 * [{"$ref": f"#/$defs/a{n + 1}"}]} for n in range(40)} | {"a40": {}}},
        {"allOf": [{"$ref": "#/$defs/a0"}, {"type": "integer"}]}
        | {"$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}]} for n in range(900)} | {"a900": {}}},
    ],
    ids=["itself", "exponentially many", "long chain"],
)
def test_schemas_that_lead_to_each_other_are_counted_once(schema: dict[str, Any]) -> None:
    began = time.process_time()
    with suppress(UnusableSchemaError):  # no value may fit
        grammar_schema(schema)
    assert time.process_time() - began < 5


def test_a_schema_that_contains_itself() -> None:
    assert allows(_tree(), '{"v": 1, "children": [{"v": 2, "children": []}]}')
    assert not allows(_tree(), '{"v": 1, "children": [2]}')
    # Where there is another way, one without an end is left out.
    endless = {"type": "object", "properties": {"a": {"$ref": "#/$defs/endless"}}, "required": ["a"]}
    schema = {"anyOf": [{"$ref": "#/$defs/endless"}, {"type": "null"}], "$defs": {"endless": endless}}
    assert allows(schema, "null") and not allows(schema, '{"a": null}')
    for alone in ({"$ref": "#"}, {"$ref": "#/$defs/endless", "$defs": {"endless": endless}}):
        with pytest.raises(UnusableSchemaError, match=r"refers to itself|no value fits"):
            grammar_schema(alone)


def _hostile() -> Iterator[Any]:
    yield {"type": "array", "items": {"type": "integer"}, "minItems": 10**9}
    yield {"type": "array", "items": {"type": "integer"}, "maxItems": 10**9}
    yield {"type": "string", "minLength": 10**9}
    yield {"type": "integer", "multipleOf": 999_983}
    yield {"enum": [f"value {number}" for number in range(100_000)]}
    yield {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(5_000)}}
    many = {f"p{number}": {"type": "array", "maxItems": MOST_ITEMS} for number in range(MOST_ITEMS)}
    yield {"type": "object", "properties": many, "required": list(many)}
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(DEEPEST * 4):
        deep = {"type": "array", "items": deep}
    yield deep
    options = [{"properties": {f"p{number}": {}}, "required": [f"p{number}"]} for number in range(50)]
    yield {"type": "object", "allOf": [{"anyOf": options}] * 4}
    yield {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {"a": _tree(), "b": _tree()}}


@pytest.mark.parametrize("schema", list(_hostile()), ids=range(10))
def test_large_schemas_become_small_ones(schema: Any) -> None:
    matcher(schema)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "number", "minimum": 0}, "minimum at #: "),
        (
            {"type": "object", "properties": {"a": {"type": "integer", "maximum": 2**60}}},
            "maximum at #/properties/a: ",
        ),
        ({"type": "array", "items": {"type": "array", "minItems": 10**9}}, "minItems at #/items: "),
        ({"type": "string", "pattern": "(?=a)"}, "pattern at #: "),
        ({"$ref": "#/definitions/a", "definitions": {"a": {"uniqueItems": True}}}, "uniqueItems at #: "),
        ({"enum": list(range(MOST_CHOICES + 1))}, "enum at #: "),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf at #: "),
        ({"anyOf": [{"type": "string", "format": "color"}]}, "format at #/anyOf/0: "),
    ],
)
def test_strict_names_what_it_can_not_say(schema: Any, named: str) -> None:
    assert str(why_no_grammar(Json(schema, strict=True))).startswith(named)
    assert why_no_grammar(Json(schema)) is None


def test_strict_takes_what_a_grammar_says_in_full() -> None:
    kinds = [{"type": "object", "properties": {"k": {"const": k}}, "required": ["k"]} for k in ("a", "b")]
    for schema in (
        _tree(),
        {"oneOf": kinds},
        {"type": "string", "format": "date-time"},
        {"type": "integer", "minimum": 1},
    ):
        assert why_no_grammar(Json(schema, strict=True)) is None


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"^[A-Z]{3}-[0-9]$", r"^[A-Z]{3}-[0-9]$"),
        (r"(?P<year>\d+)", r"(?:\p{Nd}+)"),
        (r"[^\d]", r"[^\d]"),
        (r"^a|b$", r"^a|b$"),
        *((no, None) for no in (r"[^\D]", r"\bx", r"x(?!y)", r"(a)\1", "x^y", "a{300}", "[a&&b]", "(a", "a**")),
    ],
)
def test_patterns(pattern: str, said: str | None) -> None:
    assert pattern_of_grammar(pattern) == said
