"""Questions from a file: CSV with a line of headings, or JSON Lines. Columns: `question`, and perhaps `expected`;
others are ignored."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from server.errors import FileRefusedError, TooLargeError

DELIMITERS = ",;\t"
"""Spreadsheets write one of these, by the country."""
COLUMNS = ("question", "expected", "history")


def read_questions(path: Path, name: str, longest_bytes: int) -> list[dict[str, Any]]:
    """The questions of a file, as a request has them; their fields are not checked. `name`: as it was uploaded.

    Raises `FileRefusedError`, which names the line, and `TooLargeError` for more than `longest_bytes`.
    """
    with path.open("rb") as file:
        data = file.read(longest_bytes + 1)
    if len(data) > longest_bytes:
        raise TooLargeError(f"{name!r} has more than {longest_bytes} bytes, the limit of HEARTH_MAX_BODY_BYTES.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileRefusedError(f"{name!r} is not UTF-8: {error}. Save it as UTF-8.") from None
    if name.lower().endswith((".jsonl", ".ndjson")):
        return _of_json_lines(text, name)
    return _of_csv(text, name)


def _of_json_lines(text: str, name: str) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or "question" not in value:
            raise FileRefusedError(
                f'{name!r}, line {number}: it is not a JSON object with "question", like '
                '{"question": "What is 6 * 7?", "expected": "42"}.'
            )
        found.append({column: value[column] for column in COLUMNS if column in value})
    return found


def _of_csv(text: str, name: str) -> list[dict[str, Any]]:
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found = []
    try:
        headings = [heading.strip().lower() for heading in next(reader, [])]
        if headings.count("question") != 1:
            raise FileRefusedError(
                f"{name!r} has no column called question, or several: its first line has to be headings, like "
                "question,expected."
            )
        for cells in reader:
            row = dict(zip(headings, cells, strict=False))
            if not any(cell.strip() for cell in cells):
                continue
            question, expected = row.get("question", ""), row.get("expected", "")
            if not question.strip():
                raise FileRefusedError(f"{name!r}, line {reader.line_num}: it has no question.")
            found.append({"question": question, **({"expected": expected} if expected.strip() else {})})
    except csv.Error as error:
        raise FileRefusedError(f"{name!r}, line {reader.line_num}: {error}.") from None
    return found
