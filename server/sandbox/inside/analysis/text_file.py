"""Plain text."""

import re
from collections.abc import Iterator
from typing import Any

from .encoding import Encoding
from .result import Analysis, Deadline, File, counted, cut, long_text

_LINE = 1024 * 1024
_MOST = 10_000_000
"""Characters, as in `page_texts`."""


def texts(
    file: File, kind: str, encoding: Encoding, skipped: list[str]
) -> Iterator[tuple[str | None, str, str | None]]:
    """See `page_texts`: one page; of any kind of text, as it is."""
    with encoding.open(file) as text:
        # A character more than a document may have, so that the cut is noticed.
        yield None, text.read(_MOST + 1).removeprefix("\ufeff"), None


def analyse(file: File, encoding: Encoding) -> Analysis:
    """Lines, words, line ends and the first 4,000 characters."""
    lines = words = characters = longest = 0
    ends = {"\r\n": 0, "\n": 0, "\r": 0}
    deadline, skipped = Deadline(1.0), []
    with encoding.open(file) as text:
        current = 0
        while part := text.readline(_LINE):
            characters += len(part)
            current += len(part)
            words += len(part.split()) if len(part) < _LINE else 0
            if end := re.search(r"\r?\n$|\r$", part[-2:]):
                ends[end[0]] += 1
                lines, longest, current = lines + 1, max(longest, current - len(end[0])), 0
            if deadline.passed():
                skipped.append(f"Lines and words are counted in the first {counted(characters, 'character')} only.")
                break
        if current:
            lines, longest = lines + 1, max(longest, current)
    details: dict[str, Any] = {
        "encoding": encoding.name,
        "lines": lines,
        "words": words,
        "characters": characters,
        "longest_line": longest,
        "line_ends": {"\r\n": "CRLF", "\n": "LF", "\r": "CR"}[max(ends, key=lambda end: ends[end])]
        if any(ends.values())
        else None,
        "text": long_text(encoding.read(file, 4_000), 4_000),
    }
    if longest > _LINE:
        skipped.append("Words in lines of more than a mebibyte are not counted.")
    about = f"{counted(lines, 'line')} and {counted(words, 'word')}"
    summary = f"Text of {about}, {encoding.name}: {cut(_first_line(details['text']), 80)}"
    return Analysis("text", summary, details, how_to_read(file, encoding), skipped)


def how_to_read(file: File, encoding: Encoding) -> str:
    errors = "" if encoding.checked else ", errors='replace'"
    return f"from pathlib import Path\n\ntext = Path({file.name!r}).read_text(encoding={encoding.name!r}{errors})"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
