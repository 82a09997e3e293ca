"""How well documents are searched: the right page among the first five, by words, by vectors, and by both."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from benchmarks.retrieval_set import Page, Question, RetrievalSet
from server.documents.chunks import chunks_of
from server.documents.collection_index import CollectionIndex, Entry
from server.documents.embedder import Embedder
from server.documents.headings import contexts
from server.documents.text import text_of

AMONG, GAIN_AMONG = 5, 10
"""Passages that are looked at, for the recall and for the gain."""

Search = Callable[[Question], Sequence[int]]
"""The ids of the chunks that answer a question, the best first."""


@dataclass(frozen=True)
class Scores:
    """`recall`: share of the questions that have a right page among the first five passages. `gain`: nDCG@10, where a
    page counts once."""

    recall: float
    gain: float
    questions: int


@dataclass(frozen=True)
class Chunked:
    """The passages of a set, with their documents' names and ids."""

    entries: list[Entry]
    names: list[str]

    def ids(self, name: str | None) -> list[int] | None:
        return None if name is None else [self.names.index(name)]

    def pages(self, chunk: int) -> set[tuple[str, int]]:
        entry = self.entries[chunk]
        return {(self.names[entry.document], page) for page in range(entry.page, (entry.last_page or entry.page) + 1)}

    def index(self, embed_query: Callable[[str], np.ndarray] | None) -> CollectionIndex:
        """An index of all of them."""
        index = CollectionIndex(lambda one: [entry for entry in self.entries if entry.document == one], embed_query)
        index.sync(dict.fromkeys(range(len(self.names)), "1"))
        return index


def chunked(given: RetrievalSet, count_tokens: Callable[[str], int]) -> Chunked:
    """The passages of a set, as the server makes them, without vectors."""
    entries: list[Entry] = []
    names = []
    for number, (name, pages) in enumerate(_by_document(given.pages)):
        names.append(name)
        text = text_of([(str(page.index), page.text) for page in pages])
        chunks = chunks_of(text, count_tokens)
        above = contexts(text.whole, [(one.start, one.end) for one in chunks])
        for one, headings in zip(chunks, above, strict=True):
            first, last = pages[one.first_page].index, pages[one.last_page].index
            entries.append(Entry(len(entries), number, first, one.text, None, f"{name}\n{headings}".strip(), last))
    return Chunked(entries, names)


def with_vectors(given: Chunked, embedder: Embedder) -> Chunked:
    """The same with the vectors of its passages."""
    vectors = embedder.embed([f"{entry.context}\n{entry.text}" for entry in given.entries])
    return Chunked(
        [
            Entry(one.chunk, one.document, one.page, one.text, vector, one.context, one.last_page)
            for one, vector in zip(given.entries, vectors, strict=True)
        ],
        given.names,
    )


def evaluate(questions: Sequence[Question], given: Chunked, search: Search) -> Scores:
    """How well `search` answers questions."""
    recalled, gain = 0, 0.0
    for question in questions:
        found = [given.pages(chunk) & question.pages for chunk in search(question)]
        recalled += any(found[:AMONG])
        gain += _gain(found[:GAIN_AMONG], len(question.pages))
    return Scores(recalled / len(questions), gain / len(questions), len(questions))


def _gain(found: Sequence[set[tuple[str, int]]], right: int) -> float:
    """nDCG with gains of 1: Järvelin and Kekäläinen, ACM TOIS 2002. A page that was found before gains nothing."""
    seen: set[tuple[str, int]] = set()
    gained = 0.0
    for place, pages in enumerate(found):
        if pages - seen:
            gained += 1 / math.log2(place + 2)
        seen |= pages
    return gained / sum(1 / math.log2(place + 2) for place in range(min(right, GAIN_AMONG)))


def _by_document(pages: Sequence[Page]) -> Iterator[tuple[str, list[Page]]]:
    for name, own in groupby(pages, key=lambda page: page.document):
        yield name, list(own)
