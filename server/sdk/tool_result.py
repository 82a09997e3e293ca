"""A tool's result as the text that the model reads.

Text stays as it is. Any other value is JSON where it can be, made of plain values: a model or a dataclass becomes its
fields, a date its ISO form. A value whose plain form is one text, such as a date, is that text, without quotes. A
table or a large array is plain text with its shape. What no text can show, such as an image, is named with its type
and its size.

Everything is bounded. Libraries are looked up among the loaded modules: a value of a library that isn't loaded can't
be there.
"""

import dataclasses
import datetime
import enum
import math
import sys
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from itertools import islice
from json import dumps  # people's code may put something else in the place of `json.dumps`
from typing import Any

from pydantic import BaseModel

MOST_CHARACTERS = 1_000_000
"""Of a result's text; the rest is cut off."""
MOST_ROWS, MOST_COLUMNS, LONGEST_CELL = 50, 20, 200
"""Of a table that are shown."""
MOST_ARRAY_ITEMS = 200
"""Of an array that is shown whole."""
MOST_ITERATED = 1_000
"""Of an iterator, such as a generator."""

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG image",
    b"\xff\xd8\xff": "JPEG image",
    b"GIF8": "GIF image",
    b"%PDF-": "PDF document",
    b"PK\x03\x04": "ZIP archive",
    b"\x1f\x8b": "gzip archive",
    b"\x89HDF\r\n\x1a\n": "HDF5 file",
}
_MEDIA = ("audio", "file", "image", "image_url", "video", "resource", "resource_link")
_MEDIA_SOURCES = ("base64", "blob", "data", "file_id", "image_url", "resource", "source", "uri", "url")
_BLOCK_KEYS = {
    *_MEDIA_SOURCES,
    *"type source_type text annotations id index extras meta _meta mime_type mimeType name".split(),
}


def as_text(result: Any) -> str:
    """The text of `result`. Raises what the result's own methods raise, and `ValueError` or `RecursionError` for a
    value that holds itself."""
    shown = _top(result)
    text = shown if isinstance(shown, str) else dumps(shown, ensure_ascii=False, allow_nan=False)
    text = encodable(text)
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[:MOST_CHARACTERS]} ({len(text) - MOST_CHARACTERS:,} more characters are cut off)"


def encodable(text: str) -> str:
    """`text` without halves of surrogate pairs, which nothing can send."""
    return text.encode("utf-8", "replace").decode()


def _top(value: Any) -> Any:
    """Text, or plain values for JSON."""
    if (content := _content(value)) is not None:
        return content
    for show in (_table, _large_array):
        if (text := show(value)) is not None:
            return text
    return _plain(value)


def _plain(value: Any) -> Any:
    """`value` made of what `json.dumps` writes. Simple values stay the same."""
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # JSON has no numbers for the others.
        return value if math.isfinite(value) else dumps(float(value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: _plain(part) for name, part in zip(value._fields, value, strict=False)}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return _object(value)
    for convert in (_of_library, _of_fields):
        if (found := convert(value)) is not None:
            return found[0]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return _bytes(bytes(value))
    if isinstance(value, set | frozenset):
        return [_plain(one) for one in _ordered(value)]
    if isinstance(value, Iterator | KeysView | ValuesView | ItemsView | Sequence):
        return [_plain(one) for one in islice(value, MOST_ITERATED)]
    return str(value)


def _object(value: Mapping[Any, Any]) -> Any:
    shown = {_key(key): _plain(part) for key, part in value.items()}
    # Two keys may have one text.
    return shown if len(shown) == len(value) else [[_plain(key), _plain(part)] for key, part in value.items()]


def _key(key: Any) -> Any:
    """A key as `json.dumps` takes it."""
    if type(key) in (str, int, bool) or key is None:
        return key
    plain = _plain(key)
    if isinstance(plain, list):
        return ", ".join(map(str, plain))
    return plain if plain is None or isinstance(plain, str | int | float) else dumps(plain, ensure_ascii=False)


def _ordered(values: set[Any] | frozenset[Any]) -> Iterable[Any]:
    try:
        return sorted(values)
    except TypeError:
        return values


def _of_fields(value: Any) -> tuple[Any] | None:
    """What a value's class declares as its fields, in a tuple; None where it declares none."""
    if isinstance(value, type):
        return None
    if isinstance(value, BaseModel):
        return (_plain(value.model_dump()),)
    old = sys.modules.get("pydantic.v1")
    if old is not None and isinstance(value, old.BaseModel):
        return (_plain(value.dict()),)
    if dataclasses.is_dataclass(value):
        return ({field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)},)
    attributes = getattr(type(value), "__attrs_attrs__", None)
    if attributes is not None:
        return ({field.name: _plain(getattr(value, field.name)) for field in attributes},)
    return None


# Content blocks and messages, as LangChain and MCP have them


def _content(value: Any) -> str | None:
    """The text of a message, of a list of content blocks, or of a command with messages; None for anything else."""
    if is_of(value, "langchain_core.messages", "BaseMessage"):
        parts = value.content if isinstance(value.content, list) else [value.content]
        return as_text([{"type": "text", "text": one} if isinstance(one, str) else one for one in parts])
    if is_of(value, "langgraph.types", "Command"):
        update = value.update
        messages = update.get("messages", ()) if isinstance(update, Mapping) else ()
        return "\n".join(as_text(one) for one in messages) or "done"
    if is_of(value, "mcp.types", "CallToolResult") or is_of(value, "mcp_types", "CallToolResult"):
        if not value.content:
            # Content should say the same as the object beside it. Some servers send the object alone.
            structured = getattr(value, "structured_content", None)
            return "" if structured is None else as_text(structured)
        value = value.content
    blocks = [value] if _is_mcp(value) else value
    if not isinstance(blocks, list | tuple) or not blocks:
        return None
    shown = [_block(one) for one in blocks]
    return None if None in shown else "\n".join(one for one in shown if one)


def _block(block: Any) -> str | None:
    """The text of a content block; None where it is none."""
    if _is_mcp(block):
        fields = block.model_dump(mode="json").items()
        block = {key: part for key, part in fields if part is not None and key in _BLOCK_KEYS}
    if not isinstance(block, dict) or not block.keys() <= _BLOCK_KEYS:
        return None
    kind = block.get("type")
    if kind == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    source = next((block[key] for key in _MEDIA_SOURCES if block.get(key)), None)
    if kind not in _MEDIA or source is None:
        return None
    if isinstance(source, Mapping) and isinstance(source.get("text"), str):
        return str(source["text"])
    inner = source if isinstance(source, Mapping) else block
    data = next((inner[key] for key in ("base64", "blob", "data", "url", "uri") if inner.get(key)), source)
    mime = next((one[key] for one in (inner, block) for key in _MIME_KEYS if one.get(key)), kind.partition("_")[0])
    if isinstance(data, str) and "://" in data[:20]:
        return f"({mime} at {data[:LONGEST_CELL]}, not shown)"
    return f"({mime}, about {len(str(data)) * 3 // 4:,} bytes, not shown)"


def _is_mcp(value: Any) -> bool:
    return isinstance(value, BaseModel) and type(value).__module__.partition(".")[0] in _MCP


_MCP = ("mcp", "mcp_types")
"""Packages of MCP's types, in older versions of its SDK and in this one."""
_MIME_KEYS = ("mime_type", "mimeType", "media_type")


# Libraries


def is_of(value: Any, module: str, name: str) -> bool:
    """Whether a value is of that class. The module is not imported for it."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _of_library(value: Any) -> tuple[Any] | None:
    """The plain form of a library's value, in a tuple; None for other values."""
    if is_of(value, "numpy", "generic"):
        is_time = value.dtype.kind in "mMV"
        return (str(value) if is_time else _plain(value.item()),)
    if is_of(value, "numpy", "ndarray") or is_of(value, "torch", "Tensor"):
        shown = _large_array(value)
        return (_plain(_list_of(value)) if shown is None else shown,)
    if is_of(value, "pandas", "DataFrame"):
        return (_records(value),)
    if is_of(value, "pandas", "Series"):
        return (_object(value.head(MOST_ITERATED).to_dict()),)
    if is_of(value, "pandas", "Index"):
        return (_plain(list(value[:MOST_ITERATED])),)
    if _is_missing(value):
        return (None,)
    if is_of(value, "PIL.Image", "Image"):
        return (f"({value.format or 'PIL'} image of {value.width} x {value.height} pixels, not shown)",)
    if is_of(value, "matplotlib.axes", "Axes"):
        value = value.figure
    if is_of(value, "matplotlib.figure", "Figure"):
        width, height = (round(inches * value.dpi) for inches in value.get_size_inches())
        return (f"(matplotlib figure of {width} x {height} pixels, not shown)",)
    return None


def _is_missing(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is getattr(pandas, "NaT", pandas) or value is getattr(pandas, "NA", pandas))


def _records(frame: Any) -> dict[str, Any]:
    """A table inside another value."""
    part = frame.iloc[:MOST_ROWS, :MOST_COLUMNS]
    return {
        "shape": list(frame.shape),
        "columns": [_plain(name) for name in part.columns],
        "rows": [[_plain(cell) for cell in row] for row in part.itertuples(index=False, name=None)],
    }


def _table(value: Any) -> str | None:
    """A table of pandas or Polars as text, with its shape; None for anything else."""
    if is_of(value, "pandas", "DataFrame"):
        rows, columns = value.shape
        text = (
            value.to_string(max_rows=MOST_ROWS, max_cols=MOST_COLUMNS, **_CELLS) if rows and columns else str(value)
        )
        return f"{text}\n({rows:,} rows x {columns:,} columns)"
    if is_of(value, "pandas", "Series"):
        named = f"{value.name}, " if value.name is not None else ""
        text = value.to_frame().to_string(max_rows=MOST_ROWS, header=False, **_CELLS) if len(value) else "empty"
        return f"{text}\n({named}{len(value):,} values of type {value.dtype})"
    if is_of(value, "polars", "DataFrame") or is_of(value, "polars", "Series"):
        return str(value)  # bounded, with its shape
    return None


_CELLS: dict[str, Any] = {"max_colwidth": LONGEST_CELL}


def _list_of(array: Any) -> Any:
    """An array's items in lists."""
    return (array.detach().cpu() if hasattr(array, "detach") else array).tolist()


def _large_array(value: Any) -> str | None:
    """An array that is too large for a list, as text with its shape; None for anything else."""
    summary: Callable[[Any], str]
    if is_of(value, "numpy", "ndarray"):
        size, summary = value.size, lambda array: str(sys.modules["numpy"].array2string(array, threshold=20))
    elif is_of(value, "torch", "Tensor"):
        size, summary = value.numel(), lambda array: str(array.detach().cpu())
    else:
        return None
    if size <= MOST_ARRAY_ITEMS:
        return None
    shape = " x ".join(map(str, value.shape))
    return f"array of {shape} values of type {value.dtype}:\n{summary(value)}"


def _bytes(data: bytes) -> str:
    """Text where the bytes are text, as what a program has written; else their type and size."""
    try:
        text = data.decode()
        if text.isprintable() or all(one.isprintable() or one in "\t\r\n" for one in text):
            return text
    except UnicodeDecodeError:
        pass
    kind = next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), "binary data")
    return f"({kind}, {len(data):,} byte{'s' * (len(data) != 1)}, not shown)"
