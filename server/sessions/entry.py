"""The notepad's entry of an exchange, copied from the record of its run."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST_TEXT = 300
"""Maximum length of a question or an answer, in characters."""
_LONGEST_CALL = 160
_MOST = 20
_QUOTED = re.compile(r"""(["'])([^"'\n]+)\1""")
_FILE = re.compile(r"[\w./~-]*\w\.[a-zA-Z][a-zA-Z0-9]{0,7}")
_VARIABLE = re.compile(r"^[ \t]*([^\W\d]\w*)[ \t]*=(?!=)", re.MULTILINE)


def entry_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a finished run: its question, calls and answer, and the names of files and variables in its tool
    calls. A model writes the `title` later."""
    inputs = [text for step in record["steps"] for text in _texts(step["input"])]
    return {
        "title": None,
        "asked": shortened(record["question"], LONGEST_TEXT),
        "done": [shortened(_call(step), _LONGEST_CALL) for step in record["steps"][:_MOST]],
        "found": shortened(record["answer"], LONGEST_TEXT),
        "files": _distinct(name for text in inputs for name in _quoted(text) if _FILE.fullmatch(name)),
        "variables": _distinct(name for text in inputs for name in _VARIABLE.findall(text)),
    }


def shortened(text: str, characters: int) -> str:
    """`text` in one line, truncated to so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"


def _call(step: Mapping[str, Any]) -> str:
    # A custom agent may report anything as input.
    given = step["input"] if isinstance(step["input"], Mapping) else {"input": step["input"]}
    shown = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items())
    return f"{step['tool']}({shown})"


def _quoted(text: str) -> list[str]:
    """`text`, and everything in it that is in quotation marks, like file names in code."""
    return [text, *(found[1] for found in _QUOTED.findall(text))]


def _texts(value: Any) -> list[str]:
    """Every string within a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else []


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))[:_MOST]
