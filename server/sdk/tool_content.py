"""A tool's result as content blocks, for a client that shows more than text:
https://modelcontextprotocol.io/specification/2026-07-28/server/tools#tool-result

Text and objects are as `server.sdk.tool_result` makes them. Pictures are there as pictures: a matplotlib figure, a
picture of PIL, the bytes of one, and blocks with one. What comes from an MCP server is passed on as it is.
"""

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from json import loads  # people's code may put something else in the place of `json.loads`
from typing import Any

from server.sdk.tool_result import MOST_CHARACTERS, as_text, is_of
from server.sdk.untrusted import FromOutside

MOST_DATA = 8 * 1024 * 1024
"""Characters of all pictures and other data of a result, in base64. What is beyond is named and left out."""

_PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


@dataclass
class ToolContent:
    """`blocks`: as MCP has them, with `type`. `structured`: the result as an object, if it is one."""

    blocks: list[dict[str, Any]]
    structured: dict[str, Any] | None = None
    room: int = field(default=MOST_DATA, repr=False)
    """How many characters of data may follow."""


def as_content(result: Any) -> ToolContent:
    """The content of `result`. Raises what `as_text` raises."""
    if isinstance(result, FromOutside):
        result = result.value
    content = ToolContent([])
    if is_of(result, "mcp_types", "CallToolResult"):
        content.structured = result.structured_content if isinstance(result.structured_content, dict) else None
        for block in result.content:
            _add(content, block.model_dump(mode="json", by_alias=True, exclude_none=True))
        if not content.blocks:
            _add_text(content, as_text(result))
        return content
    parts = list(result) if isinstance(result, list | tuple) else [result]
    pictures = [_picture(one) for one in parts]
    if any(pictures):
        for one, picture in zip(parts, pictures, strict=True):
            if picture is not None:
                _add(content, picture)
            else:
                _add_text(content, as_text([one]) if isinstance(one, Mapping) and "type" in one else as_text(one))
        return content
    text = as_text(result)
    _add_text(content, text)
    # A text may look like an object, and is none.
    if not isinstance(result, str | bytes) and text.startswith("{") and len(text) <= MOST_CHARACTERS:
        try:
            found = loads(text)
        except ValueError:  # the text of something with braces
            found = None
        content.structured = found if isinstance(found, dict) else None
    return content


def _add_text(content: ToolContent, text: str) -> None:
    content.blocks.append({"type": "text", "text": text})


def _add(content: ToolContent, block: dict[str, Any]) -> None:
    """Add a block, or a note where its data is too long."""
    resource = block.get("resource")
    holder = resource if isinstance(resource, dict) else block
    size = len(holder.get("data") or holder.get("blob") or "")
    if size > content.room:
        kind = holder.get("mimeType") or block["type"]
        _add_text(content, f"({kind}, about {size * 3 // 4:,} bytes, too long to be sent)")
        return
    content.room -= size
    content.blocks.append(block)


def _picture(value: Any) -> dict[str, Any] | None:
    """A picture as a block; None for anything else."""
    if isinstance(value, bytes | bytearray):
        found = next((kind for beginning, kind in _PICTURES.items() if value.startswith(beginning)), None)
        return None if found is None else _block(bytes(value), found)
    if is_of(value, "PIL.Image", "Image"):
        return _block(_written(lambda file: value.convert("RGBA").save(file, "PNG")), "image/png")
    if is_of(value, "matplotlib.axes", "Axes"):
        value = value.figure
    if is_of(value, "matplotlib.figure", "Figure"):
        return _block(_written(lambda file: value.savefig(file, format="png")), "image/png")
    if isinstance(value, Mapping) and value.get("type") == "image":
        # LangChain's block, in both of its forms.
        data = value.get("base64") or (value.get("data") if value.get("source_type", "base64") == "base64" else None)
        kind = value.get("mime_type") or value.get("mimeType")
        if isinstance(data, str) and isinstance(kind, str):
            return {"type": "image", "data": data, "mimeType": kind}
    return None


def _written(write: Any) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _block(data: bytes, kind: str) -> dict[str, Any]:
    return {"type": "image", "data": base64.b64encode(data).decode("ascii"), "mimeType": kind}


def in_pieces(blocks: Iterable[Mapping[str, Any]], longest: int) -> list[dict[str, Any]]:
    """The blocks, with data as a list of texts of `longest` characters at most. `joined` puts them together."""

    def cut(data: str) -> list[str]:
        return [data[at : at + longest] for at in range(0, len(data), longest)]

    return [_with_data(block, cut) for block in blocks]


def joined(blocks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The blocks that `in_pieces` took apart. Data of another form becomes a text."""

    def join(pieces: Any) -> str:
        return "".join(map(str, pieces)) if isinstance(pieces, list) else str(pieces)

    return [_with_data(block, join) for block in blocks]


def _with_data(block: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    changed = {key: change(part) if key in ("data", "blob") else part for key, part in block.items()}
    if isinstance(resource := changed.get("resource"), Mapping):
        changed["resource"] = _with_data(resource, change)
    return changed
