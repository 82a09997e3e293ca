"""Tools with types of every kind, over a real server: they load, questions are answered, and the tool gets what the
question says. The same schemas over `/v1`."""

import json
import textwrap
from typing import Any

import pytest

from tests.support.server_process import Server

ODD_TOOLS = '''
import datetime
import decimal
import enum
from typing import Annotated, Literal

from langchain_core.tools import StructuredTool, tool
from pydantic import BaseModel, Field


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    x: float = 0.0
    color: Color = Color.RED


class Node(BaseModel):
    value: int = 0
    children: list["Node"] = []


@tool
def paint(color: Color, at: Point | None = None) -> str:
    """Paint a wall."""
    return color.value


@tool
def grow(tree: Node, limit: float = float("inf")) -> str:
    """Grow a tree."""
    return "grown"


@tool
def pick(number: Literal[tuple(range(5_000))]) -> str:
    """Pick a number."""
    return str(number)


@tool
def store(
    code: Annotated[str, Field(pattern=r"^[A-Z]")],
    price: decimal.Decimal = decimal.Decimal(1),
    when: datetime.datetime | None = None,
    small: Annotated[float, Field(lt=2**64)] = 1.0,
    exact: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] = 0,
    large: Annotated[float, Field(le=1e20)] = 1.0,
    many: Annotated[list[int], Field(min_length=0, max_length=10**9)] = [],
    step: Annotated[int, Field(multiple_of=999_983)] = 0,
) -> str:
    """Store a value."""
    return code


def look_up(**given) -> str:
    return str(given)


OLD = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": ["object"],
    "definitions": {"kind": {"enum": ["a", "b"]}},
    "properties": {
        "kind": {"$ref": "#/definitions/kind"},
        "any": True,
        "list": {"type": "array", "items": True},
        "pair": {"type": "array", "items": [{"type": "integer"}, True], "additionalItems": False},
        "word": {"type": "string", "pattern": "\\\\bx(?!y)"},
        "number": {"type": "integer", "multipleOf": 999_983},
    },
    "required": ["kind", "extra"],
}
old = StructuredTool.from_function(look_up, name="old", description="Look it up.", args_schema=OLD)
'''

DILUTE = '''
from typing import Annotated

from langchain_core.tools import tool
from pydantic import Field


@tool
def dilute(molar: Annotated[float, Field(gt=0, le=1)]) -> str:
    """Dilute a solution to a concentration."""
    return repr(molar)
'''


def put(server: Server, workspace: str, name: str, text: str) -> None:
    path = f"/workspaces/{workspace}/files/tools/{name}.py"
    answer = server.session.put(path, data=textwrap.dedent(text).encode())
    assert answer.status_code in (200, 201), answer.text


def reload(server: Server, workspace: str) -> Any:
    return server.session.post("/reload_modules", json={"workspace": workspace})


def ask(server: Server, workspace: str, question: str) -> dict[str, Any]:
    answer = server.session.post("/run_script", json={"question": question, "workspace": workspace})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_tools_with_types_of_every_kind(server: Server) -> None:
    put(server, "odd", "odd", ODD_TOOLS)
    answer = reload(server, "odd")
    assert answer.status_code == 200, answer.text
    assert {"paint", "grow", "pick", "store", "old"} <= set(answer.json()["tools"]["added"])
    assert ask(server, "odd", "What is 37 * 52?")["answer"] == "1924"
    listed = server.session.get("/tools", params={"workspace": "odd"})
    assert "Infinity" not in listed.text
    schemas = {tool["name"]: tool["args_schema"] for tool in listed.json()["tools"]}
    assert schemas["old"]["properties"]["kind"] == {"$ref": "#/$defs/kind"}
    assert schemas["old"]["$defs"] == {"kind": {"enum": ["a", "b"]}}
    assert "default" not in schemas["grow"]["properties"]["limit"]
    assert schemas["store"]["properties"]["large"]["maximum"] == 1e20


@pytest.mark.parametrize("number", ["1e-9", "0.25"])
def test_a_number_arrives_as_it_is(server: Server, number: str) -> None:
    put(server, "dilution", "dilute", DILUTE)
    assert reload(server, "dilution").status_code == 200
    steps = [step for step in ask(server, "dilution", f"Use dilute on {number}")["steps"] if step["tool"] == "dilute"]
    assert steps and steps[0]["input"] == {"molar": float(number)}
    assert steps[0]["observation"] == repr(float(number))


def test_a_bound_is_checked_when_the_tool_is_called(server: Server) -> None:
    put(server, "dilution", "dilute", DILUTE)
    assert reload(server, "dilution").status_code == 200
    steps = [step for step in ask(server, "dilution", "Use dilute on 6.02e23")["steps"] if step["tool"] == "dilute"]
    assert steps and steps[0]["input"] == {"molar": 6.02e23}
    assert "less than or equal to 1" in steps[0]["error"]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "string"}, "must be an object"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "the reference '#/$defs/b' leads nowhere"),
        ({"properties": {"a": {"type": "wat"}}}, "#/properties/a: type must be among"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no value fits"),
    ],
)
def test_a_schema_that_can_not_be_used(server: Server, schema: dict[str, Any], why: str) -> None:
    text = f"""
        from langchain_core.tools import StructuredTool

        def look_up(**given) -> str:
            return ""

        odd = StructuredTool.from_function(look_up, name="odd", description="Look.", args_schema={schema!r})
    """
    put(server, "unusable", "unusable", text)
    answer = reload(server, "unusable")
    assert answer.status_code == 422
    [error] = answer.json()["error"]["errors"]
    assert error["file"] == "server/tools/unusable.py"
    assert "'odd'" in error["message"] and why in error["message"]


COSTLY = [
    {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
    {"type": "integer", "multipleOf": 999_983},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "string", "pattern": "(?=x)", "maxLength": 9},
    {"$ref": "#/definitions/a", "definitions": {"a": {"enum": ["x"], "default": "x"}}},
    {"type": "object", "properties": {"a": True}, "required": ["b"]},
    {"type": ["integer"], "maximum": 2**64},
]


def post(server: Server, **body: Any) -> Any:
    messages = [{"role": "user", "content": "What is 37 * 52?"}]
    return server.session.post("/v1/chat/completions", json={"model": "hearth", "messages": messages, **body})


@pytest.mark.parametrize("schema", COSTLY)
def test_the_same_over_v1(server: Server, schema: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = post(server, response_format=form, max_tokens=60)
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] in ("stop", "length")
    assert choice["finish_reason"] == "length" or json.loads(choice["message"]["content"]) is not None
    function = {
        "name": "look",
        "parameters": {"type": "object", "properties": {"x": schema.get("definitions", schema)}},
    }
    if "$ref" not in schema:
        answer = post(
            server, tools=[{"type": "function", "function": function}], tool_choice="required", max_tokens=60
        )
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (COSTLY[0], "minItems at #"),
        (COSTLY[1], "multipleOf at #"),
        (COSTLY[2], "exclusiveMinimum at #"),
        (COSTLY[3], "pattern at #"),
        ({"type": "object", "properties": {"a": {"uniqueItems": True}}}, "uniqueItems at #/properties/a"),
        ({"$ref": "#"}, "refers to itself"),
    ],
)
def test_strict_names_what_it_can_not_enforce(server: Server, schema: dict[str, Any], named: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    answer = post(server, response_format=form)
    assert answer.status_code == 400 and named in answer.json()["error"]["message"], answer.text
    function = {"name": "look", "strict": True, "parameters": {"type": "object", "properties": {"x": schema}}}
    if "$ref" not in schema:
        answer = post(server, tools=[{"type": "function", "function": function}])
        assert answer.status_code == 400
        assert named.replace("#", "#/properties/x", 1) in answer.json()["error"]["message"]
