"""The schema of a tool's arguments: LangChain's own, also where it is remembered from an earlier load."""

import enum
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from langchain_core.tools import BaseTool, InjectedToolArg, tool
from pydantic import BaseModel, Field

from server.sdk import tool_schema
from server.sdk.tool_schema import arguments_schema

SOURCES = {
    "plain": "x: str, y: int = 3, z: float = 0.5, w: bool = False, v: None = None",
    "another default": "x: str, y: int = 4, z: float = 0.5, w: bool = False, v: None = None",
    "a default that is equal": "x: str, y: int = 3, z: float = 0.5, w: bool = 0, v: None = None",
    "a union": "x: int | str",
    "the other way round": "x: str | int",
    "choices": "x: Literal['a', 'b']",
    "choices that are equal": "x: Literal[1, 0]",
    "to choices": "x: Literal[True, False]",
    "inside": "x: list[dict[str, Optional[int]]], y: Union[list[str], None] = None",
    "anything": "x: Any = None",
    "annotated": "x: Annotated[int, Field(ge=3)]",
    "described": "x: Annotated[int, 'how many']",
    "an enumeration": "x: Color",
    "an enumeration in a list": "x: list[Color]",
    "a value of one": "x: Literal[Color.RED]",
    "injected": "x: int, y: Annotated[str, InjectedToolArg]",
    "nothing": "",
}


class Color(enum.StrEnum):
    RED = "red"


def make(arguments: str, description: str = "Do it.") -> BaseTool:
    names: dict[str, Any] = {one.__name__: one for one in (Color, Field, InjectedToolArg, tool)}
    names |= {"Annotated": Annotated, "Any": Any, "Literal": Literal, "Optional": Optional, "Union": Union}
    exec(f"@tool\ndef do({arguments}) -> str:\n    '''{description}'''\n    return ''", names)
    made = names["do"]
    assert isinstance(made, BaseTool)
    return made


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_schema, "_known", {})


def langchains(made: BaseTool) -> dict[str, Any]:
    model: Any = made.tool_call_schema
    return {**model.model_json_schema(), "additionalProperties": False}


def test_it_is_langchains() -> None:
    for _ in range(2):
        for arguments in SOURCES.values():
            for description in ("Do it.", "Do that."):
                made = make(arguments, description)
                schema, wanted = arguments_schema(made), langchains(make(arguments, description))
                assert repr(schema) == repr(wanted), "by text: True and 1 are equal"


@pytest.mark.parametrize(("kind", "remembered"), [("plain", True), ("inside", True), ("an enumeration", False)])
def test_plain_ones_are_remembered(monkeypatch: pytest.MonkeyPatch, kind: str, remembered: bool) -> None:
    first = arguments_schema(make(SOURCES[kind]))
    asked: list[BaseTool] = []
    made: Callable[[BaseTool], dict[str, Any]] = tool_schema._made

    def counted(one: BaseTool) -> dict[str, Any]:
        asked.append(one)
        return made(one)

    monkeypatch.setattr(tool_schema, "_made", counted)
    assert arguments_schema(make(SOURCES[kind])) == first
    assert len(asked) == (0 if remembered else 1)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_schema, "_MOST", 5)
    for number in range(12):
        arguments_schema(make(f"x: int = {number}"))
        assert len(tool_schema._known) <= 5


def test_a_schema_of_ones_own() -> None:
    class Input(BaseModel):
        x: str = Field(alias="y", json_schema_extra={"examples": ["a"]})

    @tool(args_schema=Input)
    def of_a_model(x: str) -> str:
        "Do it."
        return x

    @tool(args_schema={"type": "object", "properties": {"x": {"type": "string"}}})
    def of_a_dict(x: str) -> str:
        "Do it."
        return x

    for _ in range(2):
        assert arguments_schema(of_a_model) == langchains(of_a_model)
        assert list(arguments_schema(of_a_dict)["properties"]) == ["x"]
