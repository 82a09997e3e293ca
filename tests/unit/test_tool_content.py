"""What a client gets that shows more than text: content blocks of what a tool returns."""

import base64
import dataclasses
import io
from typing import Any

import matplotlib.figure
import pytest
from mcp_types import CallToolResult, EmbeddedResource, ImageContent, TextContent, TextResourceContents
from PIL import Image
from pydantic import BaseModel

from server.sdk import tool_content
from server.sdk.tool_content import as_content, in_pieces, joined
from server.sdk.tool_result import as_text
from server.sdk.untrusted import FromOutside

PIXEL = Image.new("RGB", (3, 2), "red")


def png() -> bytes:
    file = io.BytesIO()
    PIXEL.save(file, "PNG")
    return file.getvalue()


class Point(BaseModel):
    x: int
    label: str | None = None


@dataclasses.dataclass
class Reading:
    well: str
    value: float


@pytest.mark.parametrize("value", ["text", 5, None, 2.5, [1, 2], ["a"], "{}", '{"a": 1}', b"text", (1, "x")])
def test_what_is_no_object_is_text(value: Any) -> None:
    content = as_content(value)
    assert content.blocks == [{"type": "text", "text": as_text(value)}] and content.structured is None


@pytest.mark.parametrize(
    ("value", "structured"),
    [
        ({"a": [1, None]}, {"a": [1, None]}),
        ({}, {}),
        (Point(x=1), {"x": 1, "label": None}),
        (Reading("B4", 0.42), {"well": "B4", "value": 0.42}),
        ({"a": float("nan")}, {"a": "NaN"}),
    ],
)
def test_an_object_is_there_as_an_object_too(value: Any, structured: dict[str, Any]) -> None:
    content = as_content(value)
    assert content.structured == structured
    assert content.blocks == [{"type": "text", "text": as_text(value)}]


def pictures() -> list[Any]:
    figure = matplotlib.figure.Figure((1, 1))
    figure.subplots().plot([1, 2])
    langchain = {"type": "image", "base64": base64.b64encode(png()).decode(), "mime_type": "image/png"}
    older = {"type": "image", "source_type": "base64", "data": langchain["base64"], "mime_type": "image/png"}
    return [PIXEL, png(), figure, figure.axes[0], langchain, older]


@pytest.mark.parametrize("value", pictures(), ids=lambda value: type(value).__name__)
def test_a_picture_is_a_picture(value: Any) -> None:
    for content in (as_content(value), as_content([value])):
        [block] = content.blocks
        assert (block["type"], block["mimeType"]) == ("image", "image/png")
        assert Image.open(io.BytesIO(base64.b64decode(block["data"]))).format == "PNG"
        assert content.structured is None


def test_texts_and_pictures_keep_their_order() -> None:
    content = as_content([{"type": "text", "text": "before"}, PIXEL, "after", 5])
    assert [block["type"] for block in content.blocks] == ["text", "image", "text", "text"]
    assert [block.get("text") for block in content.blocks] == ["before", None, "after", "5"]


def test_what_a_server_sends_is_passed_on() -> None:
    resource = EmbeddedResource(resource=TextResourceContents(uri="file:///a", text="b"))
    blocks = [TextContent(text="a"), ImageContent(data="AAAA", mime_type="image/png"), resource]
    result = CallToolResult(content=blocks, structured_content={"a": 1})
    content = as_content(FromOutside(result, "a server"))
    assert [block["type"] for block in content.blocks] == ["text", "image", "resource"]
    assert content.blocks[1]["mimeType"] == "image/png" and content.structured == {"a": 1}
    # An agent reads texts alone, marked.
    shown = str(FromOutside(result, "the server"))
    assert "Text from the server" in shown and "a\n(image/png" in shown and "\nb\n" in shown
    assert as_text(CallToolResult(content=[], structured_content={"a": 1})) == '{"a": 1}'
    assert as_content(CallToolResult(content=[], structured_content={"a": 1})).blocks[0]["text"] == '{"a": 1}'


def test_too_many_pictures_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_content, "MOST_DATA", 150)
    content = tool_content.ToolContent([], room=150)
    for _ in range(2):
        tool_content._add(content, {"type": "image", "data": "A" * 100, "mimeType": "image/png"})
    assert [block["type"] for block in content.blocks] == ["image", "text"]
    assert content.blocks[1]["text"] == "(image/png, about 75 bytes, too long to be sent)"


def test_data_travels_in_pieces() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "image", "data": "A" * 25},
        {"type": "resource", "resource": {"blob": "B" * 7}},
        {"type": "text"},
    ]
    cut = in_pieces(blocks, 10)
    assert cut[0]["data"] == ["A" * 10, "A" * 10, "A" * 5] and cut[1]["resource"]["blob"] == ["B" * 7]
    assert joined(cut) == blocks
