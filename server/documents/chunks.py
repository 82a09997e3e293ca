"""A text in passages of some sentences, cut where its structure allows, with their places."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from server.documents.text import Text
from server.errors import IngestFailedError

VERSION = "1"
"""Rises with each change of what this module makes of a text: documents with another one are cut again."""
TOKENS = 200
"""Of a passage, at most. The packaged model reads 256, and what stands above a passage is embedded with it."""
MOST_CHARACTERS = 8
"""Of a passage, for each of its tokens. A word of any length may be one token."""
BLOCK = 50_000
"""Characters that are cut at once, so that time is looked at in between."""
SECONDS = 30.0
"""After which the rest of a text is cut by its length alone."""


@dataclass(frozen=True)
class Chunk:
    """A passage. `start`, `end`: its place in the document's text, of which it is an exact copy. `first_page`,
    `last_page`: indices."""

    number: int
    start: int
    end: int
    first_page: int
    last_page: int
    text: str


def chunks_of(text: Text, count_tokens: Callable[[str], int], tokens: int = TOKENS) -> list[Chunk]:
    """The passages of a text, in order, each of at most `tokens`. White space between them is in none. Raises
    `IngestFailedError` if something of the text is in none of them, or in two."""
    found = []
    for number, (start, end) in enumerate(_spans(text.whole, count_tokens, tokens)):
        found.append(Chunk(number, start, end, text.page_at(start), text.page_at(end - 1), text.whole[start:end]))
    _check(text, found)
    return found


def _check(text: Text, chunks: list[Chunk]) -> None:
    place = 0
    for chunk in chunks:
        if chunk.start < place or chunk.end <= chunk.start or text.whole[place : chunk.start].strip():
            raise IngestFailedError(f"A part of the text before character {chunk.end:,} is in no passage, or in two.")
        place = chunk.end
    if text.whole[place:].strip():
        raise IngestFailedError(f"The text after character {place:,} is in no passage.")


def _spans(whole: str, count_tokens: Callable[[str], int], tokens: int) -> Iterator[tuple[int, int]]:
    """Start and end of the passages."""
    import semchunk

    # Of this text only: semchunk's own cache is never emptied. Tokenizers split at white space first, so words can be
    # counted one by one, and most of them come again and again.
    counted = lru_cache(65_536)(count_tokens)

    def count(part: str) -> int:
        return tokens + 1 if len(part) > MOST_CHARACTERS * tokens else sum(map(counted, part.split()))

    deadline = time.monotonic() + SECONDS
    for start, end in _blocks(whole):
        spans: Iterable[tuple[int, int]] | None = None
        if time.monotonic() < deadline:
            try:
                cut = semchunk.chunk(whole[start:end], tokens, count, memoize=False, offsets=True)
                spans = cast(list[tuple[int, int]], cut[1])
            except RecursionError:  # a text whose only structure is its nesting
                spans = None
        for first, last in _by_length(whole[start:end], 4 * tokens) if spans is None else spans:
            # White space at its ends belongs to no passage: what begins with the end of a page would be on it.
            inner = whole[start + first : start + last]
            if inner.strip():
                yield start + last - len(inner.lstrip()), start + first + len(inner.rstrip())


def _blocks(whole: str) -> Iterator[tuple[int, int]]:
    """Parts of about `BLOCK` characters, that end where a paragraph, a line or a word does."""
    start = 0
    while len(whole) - start > BLOCK:
        tries = (whole.rfind(mark, start + BLOCK // 2, start + BLOCK) for mark in ("\n\n", "\n", " "))
        end = next((found for found in tries if found > 0), start + BLOCK)
        yield start, end
        start = end
    yield start, len(whole)


def _by_length(part: str, size: int) -> Iterator[tuple[int, int]]:
    """Spans of at most `size` characters, cut at white space where there is some."""
    cuts = [0]
    while len(part) - cuts[-1] > size:
        space = part.rfind(" ", cuts[-1] + size // 2, cuts[-1] + size)
        cuts.append(space if space > 0 else cuts[-1] + size)
    yield from itertools.pairwise([*cuts, len(part)])
