"""An analysis as the text that a language model reads."""

from collections.abc import Iterator, Mapping
from typing import Any

from .result import cut

MAX_CHARACTERS = 4_000
_CODE = 1_200
_COLUMNS = 40
_TABLE_KEYS = ("columns", "first_rows")
_OUTLINE_KEYS = ("sheets", "tables", "pages", "slides", "headings", "outline", "members", "paths", "row_groups")


def profile(analysis: Mapping[str, Any]) -> str:
    """At most 4,000 characters: the summary, columns with types, missing values and ranges, five rows, what was left
    out, and the code that reads the file. The code is left out rather than cut off if it is very long.
    """
    code = analysis["how_to_read"]
    end = ""
    if code and len(code) <= _CODE:
        end = f"\nRead it like this:\n```python\n{code}\n```"
    elif code:
        end = f"\nThe code that reads it has {len(code):,} characters: see how_to_read of the analysis."
    if analysis["skipped"]:
        end = "\nLeft out: " + cut(" ".join(analysis["skipped"]), 500) + end
    lines = [analysis["summary"]]
    for line in _detail_lines(analysis["details"]):
        if sum(map(len, lines)) + len(lines) + len(line) + len(end) > MAX_CHARACTERS - 20:
            lines.append("…")
            break
        lines.append(line)
    return ("\n".join(lines) + end)[:MAX_CHARACTERS]


def _detail_lines(details: Mapping[str, Any]) -> Iterator[str]:
    """What matters the most comes first: the text is cut at the end."""
    for key, value in details.items():
        if isinstance(value, str | int | float | bool) and key not in ("text", "bytes", "column_count"):
            yield f"{key.replace('_', ' ')}: {_value(value)}"
    yield from (f"note: {note}" for note in details.get("notes") or [])
    if "columns" in details:
        yield from _table_lines(details)
    for key in _OUTLINE_KEYS:
        if value := details.get(key):
            yield f"{key.replace('_', ' ')}:"
            for entry in value if isinstance(value, list) else [value]:
                yield from _entry_lines(entry)
    for key, value in details.items():
        if isinstance(value, dict | list) and value and key not in (*_TABLE_KEYS, *_OUTLINE_KEYS, "notes"):
            yield f"{key.replace('_', ' ')}: {cut(_value(value), 300)}"
    if text := details.get("text"):
        for line in text.splitlines():
            yield cut(line, 300)


def _entry_lines(entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"- {cut(_value(entry), 200)}"
        return
    simple = {
        key: value
        for key, value in entry.items()
        if key not in (*_TABLE_KEYS, "how_to_read") and value not in (None, [], {})
    }
    yield "- " + cut(", ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in simple.items()), 400)
    if entry.get("columns"):
        yield from ("  " + line for line in _table_lines(entry))


def _table_lines(table: Mapping[str, Any]) -> Iterator[str]:
    columns = table["columns"]
    yield f"{table.get('column_count', len(columns)):,} columns:"
    for column in columns[:_COLUMNS]:
        yield "- " + cut(_column(column), 220)
    if len(columns) > _COLUMNS:
        yield f"- … {table.get('column_count', len(columns)) - _COLUMNS:,} more columns"
    if rows := table.get("first_rows"):
        yield "first rows:"
        for row in rows[:5]:
            more = " | …" if len(row) > 20 else ""
            yield "| " + " | ".join(cut(_value(value), 40) for value in row[:20]) + more


def _column(column: Mapping[str, Any]) -> str:
    parts = [f"{column['name']}: {column['type']}"]
    if column.get("missing"):
        parts.append(f"{column['missing']:,} missing")
    if column.get("min") is not None:
        parts.append(f"{_value(column['min'])} to {_value(column['max'])}")
    if "values" in column:
        parts.append("values " + ", ".join(f"{name} ({number:,})" for name, number in column["values"].items()))
    elif "distinct" in column:
        parts.append(f"{column['distinct']:,} different, such as " + "; ".join(column.get("examples", [])))
    if "note" in column:
        parts.append(column["note"])
    return ", ".join(parts)


def _value(value: Any) -> str:
    """One line. A missing value is empty."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "; ".join(f"{key} {_value(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(_value(entry) for entry in value)
    return " ".join(str(value).split())
