"""The passages of documents that an answer rests on: found, and as the model is shown them."""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from server.sdk import DocumentNotFoundError, DocumentPage, Passage, list_documents, read_pages, search_documents

from . import prompts
from .quotes import Line, one_line
from .subject import common_share, subject_words

NEARLY_ALL, ENOUGH_SIMILARITY = 0.9, 0.42
"""A passage has to do with a question if it has this share of the words that say what the question is about, or if
the cosine of their vectors is at least this, …"""
MANY, SOME_SIMILARITY = 0.6, 0.3
"""… or if it has both of these."""
ENOUGH_WORDS = 0.5
"""The share that is enough where the similarity is not known, such as before a document has vectors."""
MOST_PASSAGES, PASSAGE_TOKENS = 24, 300
"""The maximum that a search finds; and how many tokens of room each of them should have."""
LEAST_PASSAGES = 4
JUDGED = 6
"""Number of the first passages of which one has to do with the question, however many fit the window: among many, one
looks like it by chance."""
WHOLE_CHARACTERS = 800
"""About the length of the passages of documents that are shown whole."""
CHARACTERS_PER_TOKEN = 6
"""Documents with more characters to a token of the room can't fit: they are not read."""
MOST_PAGES = 50
"""Number of pages that are read at once."""
NAME_CHARACTERS = 80
_ENDS = re.compile(r"\n\s*\n|(?<=[.!?])\s+|\n|\s+")


@dataclass(frozen=True)
class Shown:
    """A passage as the model is shown it, with a number. It is on one page, and `text` is what stands in the document
    from `start` on. `document`: the name of its document; of two with one name, with a part of the id."""

    number: int
    document: str
    document_id: str
    page: int
    page_label: str | None
    start: int
    text: str
    line: Line
    score: float

    @property
    def place(self) -> str:
        """Document and printed page, for people and models."""
        if self.page_label is None:
            return prompts.PLACE.format(document=self.document)
        return prompts.PLACE_ON_PAGE.format(document=self.document, page=one_line(self.page_label).text)


class Pages:
    """Pages of documents, each read once for a question."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], DocumentPage] = {}

    def get(self, document_id: str, first: int, last: int) -> list[DocumentPage]:
        """The pages with these indices that there are."""
        wanted = [(document_id, index) for index in range(first, last + 1)]
        if not all(one in self._known for one in wanted):
            try:
                while first <= last and (read := read_pages(document_id, first, last)):
                    self._known.update(((document_id, page.page), page) for page in read)
                    first = read[-1].page + 1
            except DocumentNotFoundError:  # it was deleted a moment ago, so its pages are not there
                pass
        return [self._known[one] for one in wanted if one in self._known]


def whole_documents(room: int, count: Callable[[str], int], pages: Pages) -> list[Shown]:
    """All documents in passages, if they fit `room` tokens as the model is shown them; else none."""
    documents = list_documents()
    if sum(one.characters for one in documents) > room * CHARACTERS_PER_TOKEN:
        return []
    parts: list[Shown] = []
    for document in documents:
        for first in range(0, document.pages, MOST_PAGES):
            for page in pages.get(document.document_id, first, min(first + MOST_PAGES, document.pages) - 1):
                parts += [
                    _shown(document.document, document.document_id, page, start, end, 1.0)
                    for start, end in _spans(page.text)
                ]
    shown = numbered(parts)
    return shown if _fits(shown, room, count) else []


def found_passages(query: str, room: int, pages: Pages) -> tuple[list[Shown], float, bool]:
    """The passages that a search finds, divided where a page ends; the share of the query's words that the best of
    them has; and whether one of the first has to do with the query."""
    found = search_documents(query, limit=max(min(MOST_PASSAGES, room // PASSAGE_TOKENS), LEAST_PASSAGES))
    wanted = subject_words(query)
    shares = [common_share(wanted, one.text) for one in found]
    # A query that names no subject, such as "what is this about?", is about all of them.
    is_evidence = not wanted or any(
        _has_to_do(share, one.similarity) for share, one in zip(shares[:JUDGED], found[:JUDGED], strict=True)
    )
    shown = numbered(itertools.chain.from_iterable(_on_pages(one, pages) for one in found))
    return shown, max(shares, default=0.0), is_evidence


def _has_to_do(share: float, similarity: float | None) -> bool:
    if similarity is None:
        return share >= ENOUGH_WORDS
    if share >= NEARLY_ALL or similarity >= ENOUGH_SIMILARITY:
        return True
    return share >= MANY and similarity >= SOME_SIMILARITY


def merged(first: Sequence[Shown], second: Sequence[Shown]) -> list[Shown]:
    """The passages of two searches, in turns, each once."""
    turns = itertools.chain.from_iterable(itertools.zip_longest(first, second))
    return numbered({(one.document_id, one.start): one for one in turns if one is not None}.values())


def fitting(passages: Sequence[Shown], room: int, count: Callable[[str], int]) -> list[Shown]:
    """As many of the first passages as fit `room` tokens, and a part of the first one in any case."""
    kept = list(passages)
    while kept and not _fits(kept, room, count):
        if len(kept) > 1:
            del kept[-max(len(kept) // 8, 1) :]
        elif len(text := kept[0].text[: len(kept[0].text) // 2]) > 1:
            kept = [replace(kept[0], text=text, line=one_line(text))]
        else:
            break
    return kept


def in_words(passages: Sequence[Shown], question: str) -> str:
    """The passages for a prompt: one a line, between two lines with a mark. The mark is a hash of all of it, so no
    document can have it, and equal passages are an equal prompt."""
    lines = "\n".join(
        prompts.PASSAGE.format(number=one.number, place=one.place, text=one.line.text) for one in passages
    )
    mark = hashlib.sha256(f"{question}\n{lines}".encode("utf-8", "replace")).hexdigest()[:16]
    return prompts.PASSAGES.format(mark=mark, lines=lines or prompts.NO_PASSAGE)


def numbered(passages: Iterable[Shown]) -> list[Shown]:
    """The passages with numbers from 1, and names that distinguish two documents."""
    found = [one for one in passages if one.line.text]
    ids: dict[str, set[str]] = {}
    for one in found:
        ids.setdefault(_plain_name(one), set()).add(one.document_id)
    return [
        replace(one, number=number, document=_distinct_name(one, ids)) for number, one in enumerate(found, start=1)
    ]


def _plain_name(one: Shown) -> str:
    return one.document.removesuffix(f" ({one.document_id[:6]})")


def _distinct_name(one: Shown, ids: Mapping[str, set[str]]) -> str:
    name = _plain_name(one)
    return name if len(ids[name]) == 1 else f"{name} ({one.document_id[:6]})"


def _fits(passages: Sequence[Shown], room: int, count: Callable[[str], int]) -> bool:
    text = in_words(passages, "")
    # No token is shorter than a byte.
    return len(text.encode("utf-8", "replace")) <= room or count(text) <= room


def _on_pages(passage: Passage, pages: Pages) -> Iterator[Shown]:
    """A passage, divided where a page ends."""
    page, place = passage.page, passage.start
    while place < passage.end:
        found = pages.get(passage.document_id, page, page)
        if not found:  # the document was removed or replaced since the search
            return
        [on_page] = found
        start, end = max(passage.start, on_page.start), min(passage.end, on_page.start + len(on_page.text))
        if start < end:
            yield _shown(
                passage.document,
                passage.document_id,
                on_page,
                start - on_page.start,
                end - on_page.start,
                passage.score,
            )
        page, place = page + 1, on_page.start + len(on_page.text) + 1


def _shown(document: str, document_id: str, page: DocumentPage, start: int, end: int, score: float) -> Shown:
    text = page.text[start:end]
    name = one_line(document).text.translate({ord("["): "(", ord("]"): ")"})[:NAME_CHARACTERS]
    return Shown(0, name, document_id, page.page, page.page_label, page.start + start, text, one_line(text), score)


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Parts of a page of about `WHOLE_CHARACTERS`, which end where a paragraph, a sentence, a line or a word does."""
    start = 0
    while len(text) - start > WHOLE_CHARACTERS * 5 // 4:
        ends = [one for one in _ENDS.finditer(text, start + WHOLE_CHARACTERS // 2, start + WHOLE_CHARACTERS)]
        best = max(ends, key=lambda one: (_worth(one.group(), text, one.start()), one.end()), default=None)
        end = start + WHOLE_CHARACTERS if best is None else best.end()
        yield start, end
        start = end
    if start < len(text):
        yield start, len(text)


def _worth(between: str, text: str, place: int) -> int:
    """How good a place it is to divide a text at."""
    return 3 if between.count("\n") > 1 else 2 if text[place - 1] in ".!?" else 1 if "\n" in between else 0
