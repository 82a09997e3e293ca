"""JSON, and JSON Lines."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import text_file
from .encoding import Encoding
from .frame import describe_frame, left_out_columns
from .result import Analysis, Deadline, File, Refused, counted, cut

_READ_WHOLE = 16 * 1024 * 1024
"""Bytes. Python's objects take up to ten times as much memory."""
_BEGINNING = 4 * 1024 * 1024
"""Characters that are read of a larger file."""
_MAX_DEPTH = 200
_MAX_PATHS = 150
_MAX_ROWS = 20_000
_DIGITS = 1_000
"""Of an integer: longer ones are slow to convert, and Python refuses those above 4,300."""


def analyse(file: File, encoding: Encoding) -> Analysis:
    """The paths to all parts, with their types; and a table where there is a list of objects.

    A file that looks like JSON only at its beginning is a plain text, if its name does not say JSON.
    """
    text = encoding.read(file, _READ_WHOLE if file.size <= _READ_WHOLE else _BEGINNING)
    _refuse_depth(text)
    whole = file.size <= _READ_WHOLE
    try:
        if whole:
            return _of_value(file, encoding, _loads(text.lstrip("\ufeff")), [])
    except json.JSONDecodeError as error:
        lines = _json_lines(text, whole=True)
        if lines is None:
            if file.suffix not in (".json", ".jsonl", ".ndjson", ".geojson", ".ipynb"):
                return text_file.analyse(file, encoding)
            raise Refused(f"The JSON is broken at line {error.lineno}, column {error.colno}: {error.msg}.") from error
        return _of_lines(file, encoding, lines, [])
    skipped = [f"Only the first {counted(_BEGINNING, 'character')} were read."]
    lines = _json_lines(text, whole=False)
    if lines is not None:
        return _of_lines(file, encoding, lines, skipped)
    items = list(_first_items(text.lstrip("\ufeff \t\r\n")))
    if not items:
        raise Refused(
            f"One JSON value of {file.size:,} bytes, not a list; the maximum is {_READ_WHOLE:,}. "
            "Save it as JSON Lines."
        )
    return _of_value(file, encoding, items, skipped)


def _refuse_depth(text: str) -> None:
    """Brackets outside of strings, without building anything."""
    depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', text[: 2 * 1024 * 1024]):
        if token[0] in "[{":
            depth += 1
            if depth > _MAX_DEPTH:
                raise Refused(f"The JSON is nested more than {_MAX_DEPTH} levels deep.")
        elif token[0] in "]}":
            depth -= 1


def _loads(text: str) -> Any:
    return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _DIGITS else f"an integer of {len(digits):,} digits"


def _json_lines(text: str, whole: bool) -> list[Any] | None:
    """The values of JSON Lines, at most 20,000; None if the text is something else."""
    values: list[Any] = []
    lines = text.splitlines()
    for number, line in enumerate(lines if whole else lines[:-1]):
        if not line.strip():
            continue
        if len(values) == _MAX_ROWS:
            break
        try:
            values.append(_loads(line))
        except json.JSONDecodeError as error:
            if len(values) < 2:
                return None
            raise Refused(f"Line {number + 1} is broken JSON: {error.msg} at column {error.colno}.") from error
    return values if len(values) > 1 else None


def _first_items(text: str) -> Iterator[Any]:
    """The items at the beginning of a list that is cut off."""
    if not text.startswith("["):
        return
    decoder, position, deadline = json.JSONDecoder(parse_int=_integer), 1, Deadline(0.8)
    space = re.compile(r"[\s,]*")
    while not deadline.passed():
        position = space.match(text, position).end()  # type: ignore[union-attr]  # it matches the empty text too
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError:  # cut off here
            return
        yield value


@dataclass
class _Path:
    types: Counter[str] = field(default_factory=Counter)
    example: Any = None
    longest: int = 0
    """Of lists."""


def _paths(value: Any, skipped: list[str]) -> list[dict[str, Any]]:
    """Each path (`$.results[*].name`) with types, number and an example. Breadth first, at most 150."""
    found: dict[str, _Path] = {}
    waiting, deadline = [("$", value)], Deadline(0.5)
    truncated = False
    for where, part in waiting:  # the list grows while it is walked
        path = found.get(where)
        if path is None:
            if len(found) == _MAX_PATHS:
                truncated = True
                continue
            path = found[where] = _Path()
        path.types[_type(part)] += 1
        if isinstance(part, dict):
            waiting.extend(
                (f"{where}.{key}" if _is_name(key) else f"{where}[{cut(key, 60)!r}]", inner)
                for key, inner in list(part.items())[:500]
            )
        elif isinstance(part, list):
            path.longest = max(path.longest, len(part))
            waiting.extend((f"{where}[*]", inner) for inner in part[:1_000])
        elif path.example is None:
            path.example = cut(part, 80) if isinstance(part, str) else part
        if len(waiting) > 300_000 or deadline.passed():
            truncated = True
            break
    if truncated:
        skipped.append("Not all paths are listed: the value has many.")
    return [_described(where, path) for where, path in found.items()]


def _is_name(key: str) -> bool:
    return key.isidentifier() and len(key) <= 60


def _described(where: str, path: _Path) -> dict[str, Any]:
    described: dict[str, Any] = {"path": where, "type": " or ".join(path.types), "count": path.types.total()}
    if path.longest:
        described["longest"] = path.longest
    if path.example is not None:
        described["example"] = path.example
    return described


def _type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")


def _of_value(file: File, encoding: Encoding, value: Any, skipped: list[str]) -> Analysis:
    where = _table_in(value)
    load = [f"with open({file.name!r}, encoding={encoding.name!r}) as file:", "    value = json.load(file)"]
    code = ["import json", "", *load]
    details: dict[str, Any] = {"encoding": encoding.name, "paths": _paths(value, skipped)}
    if where is not None:
        rows = value
        for key in where:
            rows = rows[key]
        path = "".join(f"[{key!r}]" for key in where)
        code = ["import json", "", "import pandas as pd", "", *load, f"df = pd.json_normalize(value{path})"]
        details |= _table(rows, skipped) | {"table_at": "$" + "".join(f".{key}" for key in where)}
    shape = (
        f"{counted(len(value), 'item')}"
        if isinstance(value, list)
        else counted(len(value), "key")
        if isinstance(value, dict)
        else ""
    )
    return Analysis(
        "json", f"JSON: {_type(value)}{' of ' + shape if shape else ''}", details, "\n".join(code), skipped
    )


def _of_lines(file: File, encoding: Encoding, values: list[Any], skipped: list[str]) -> Analysis:
    if len(values) == _MAX_ROWS:
        skipped.append(f"Only the first {counted(_MAX_ROWS, 'line')} were read.")
    code = [
        "import json", "", "import pandas as pd", "",
        f"with open({file.name!r}, encoding={encoding.name!r}) as file:",
        "    df = pd.json_normalize([json.loads(line) for line in file if line.strip()])",
    ]  # fmt: skip
    details: dict[str, Any] = {"encoding": encoding.name, "lines": len(values), "lines_are_exact": not skipped}
    details["paths"] = _paths(values, skipped)
    if all(isinstance(value, dict) for value in values):
        details |= _table(values, skipped)
    else:
        code[2:] = [*code[4:5], "    values = [json.loads(line) for line in file if line.strip()]"]
    about = "" if details["lines_are_exact"] else "at least "
    return Analysis("jsonl", f"JSON Lines: {about}{counted(len(values), 'value')}", details, "\n".join(code), skipped)


def _table_in(value: Any) -> list[str] | None:
    """The keys to the longest list of objects, at most three levels down; an empty list if it is the value itself."""
    best: tuple[int, list[str]] | None = None
    waiting: list[tuple[list[str], Any]] = [([], value)]
    for where, part in waiting:
        if isinstance(part, list) and part and all(isinstance(item, dict) for item in part):
            if best is None or len(part) > best[0]:
                best = len(part), where
        elif isinstance(part, dict) and len(where) < 3:
            waiting.extend(([*where, key], inner) for key, inner in list(part.items())[:200])
    return best[1] if best else None


def _table(rows: list[dict[str, Any]], skipped: list[str]) -> dict[str, Any]:
    """The list as `pandas.json_normalize` makes a table of it: inner objects become columns `a.b`."""
    import pandas

    frame = pandas.json_normalize(rows[:2_000])
    if len(rows) > 2_000:
        skipped.append("Missing values and ranges are those of the first 2,000 rows.")
    skipped += left_out_columns(frame.shape[1])
    return {"rows": len(rows), **describe_frame(frame.map(_as_text) if _has_lists(frame) else frame)}


def _has_lists(frame: Any) -> bool:
    return any(frame[name].dtype == object for name in frame.columns)


def _as_text(value: Any) -> Any:
    """Lists and objects can't be counted as values of a column."""
    return cut(json.dumps(value), 200) if isinstance(value, list | dict) else value
