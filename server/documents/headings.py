"""Headings of a text: what a chunk is about often stands above it alone."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

LONGEST_TITLE = 90
"""Characters. A longer line is a sentence."""
LONGEST_CONTEXT = 300
"""Characters of the headings of one chunk."""

_MARKDOWN = re.compile(r"(?P<level>#{1,6}) +(?P<title>[^\W_a-z].*?)[ #]*$")
_CHAPTER = re.compile(r"(?:chapter|appendix|part|kapitel|anhang|teil) +[\dA-Z]+\b[.:]? *(?P<title>\D*?)[ \d]*$", re.I)
_NUMBERED = re.compile(r"(?P<level>\d{1,2}(?:\.\d{1,2}){0,4})\.? +(?P<title>[^\W\d_a-z].*)$")
_LEADERS = re.compile(r"(?:[.\u2026\u00b7] ?){4,}")
_LINE = re.compile(r"[^\r\n]+")


@dataclass(frozen=True)
class Heading:
    """`start`: its offset in the text. `level`: 1 is the highest."""

    start: int
    level: int
    title: str


def headings(text: str) -> list[Heading]:
    """The headings of `text`, in their order: Markdown's, numbered ones, and chapters."""
    found = []
    for match in _LINE.finditer(text):
        line = match.group().strip()
        if 2 < len(line) <= LONGEST_TITLE and (heading := _heading(line, match.start())) is not None:
            found.append(heading)
    return found


def contexts(text: str, spans: Iterable[tuple[int, int]]) -> list[str]:
    """For each chunk, given by its start and end in `text`, the titles that it is below and those within it."""
    found = headings(text)
    starts = [one.start for one in found]
    above: list[tuple[Heading, ...]] = [()]
    for one in found:
        above.append((*(other for other in above[-1] if other.level < one.level), one))
    given = []
    for start, end in spans:
        first, last = bisect_right(starts, start), bisect_right(starts, max(end - 1, start))
        titles = dict.fromkeys(one.title for one in (*above[first], *found[first:last]))
        given.append(" \u203a ".join(titles)[:LONGEST_CONTEXT])
    return given


def is_listing(text: str) -> bool:
    """Whether a text is a table of contents or an index: most of its lines end in leaders and a number. It points to
    pages and says nothing itself."""
    lines = [line for line in text.splitlines() if line.strip()]
    return len(lines) > 2 and sum(_LEADERS.search(line) is not None for line in lines) > len(lines) / 2


def _heading(line: str, start: int) -> Heading | None:
    if line[-1] in ".,;:" or _LEADERS.search(line):
        return None
    if (match := _MARKDOWN.match(line)) is not None:
        return Heading(start, len(match["level"]), match["title"])
    if (match := _CHAPTER.match(line)) is not None:
        return Heading(start, 1, match["title"].strip()) if match["title"].strip() else None
    if (match := _NUMBERED.match(line)) is not None:
        return Heading(start, match["level"].count(".") + 1, match["title"])
    return None
