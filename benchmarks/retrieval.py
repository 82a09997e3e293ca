"""How well documents are searched: the right page among the first five, by words, by vectors, and by both."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import numpy as np
import psutil

from benchmarks import retrieval_set
from benchmarks.retrieval_set import Page, Question, RetrievalSet
from benchmarks.tables import milliseconds, p95, print_table
from server.documents.chunks import chunks_of
from server.documents.collection_index import DEPTH, CollectionIndex, Entry
from server.documents.embedder import Embedder
from server.documents.headings import contexts
from server.documents.text import text_of

AMONG, GAIN_AMONG = 5, 10
"""Passages that are looked at, for the recall and for the gain."""
SHORT = ("R-data", "R-lang")
"""Two manuals with some 250 questions."""
SYLLABLES = [first + second for first in "bdfgklmnprst" for second in "aeiou"]

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
        [replace(one, vector=vector) for one, vector in zip(given.entries, vectors, strict=True)], given.names
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


def report(few: bool) -> None:
    """Prints how well and how fast documents are searched. `few`: of two short manuals, and of few chunks."""
    if not retrieval_set.is_installed():
        print(f"The manuals are missing. Install them with: {retrieval_set.INSTALL}")
        return
    embedder = Embedder()
    sets = [retrieval_set.r_manuals(SHORT)] if few else [retrieval_set.r_manuals(), retrieval_set.python_pages()]
    rows = []
    for given in sets:
        found = chunked(given, embedder.count_tokens)
        began = time.perf_counter()
        found = with_vectors(found, embedder)
        seconds = time.perf_counter() - began
        vectors = {one.query: embedder.embed_query(one.query) for one in given.questions}
        for half, questions in (("tuned", given.questions[::2]), ("held out", given.questions[1::2])):
            for way, scores in ways(questions, found, vectors).items():
                rows.append(
                    [given.name, half, way, str(scores.questions), f"{scores.recall:.1%}", f"{scores.gain:.3f}"]
                )
        print(f"\n{given.name}: {len(found.entries)} chunks embedded, {len(found.entries) / seconds:.1f} a second.")
    print_table(("set", "half", "way", "questions", "recall@5", "nDCG@10"), rows)
    _report_times((1_000,) if few else (10_000, 100_000))


def ways(questions: Sequence[Question], given: Chunked, vectors: Mapping[str, np.ndarray]) -> dict[str, Scores]:
    """The scores of the search by words, by vectors, and by both. `vectors`: of the queries."""
    index = given.index(vectors.__getitem__)

    def search(question: Question, by: str | None) -> list[int]:
        hits = index.search(question.query, 2 * DEPTH, documents=given.ids(question.document))
        if by is not None:
            hits = sorted((hit for hit in hits if by in hit.ranks), key=lambda hit: hit.ranks[by])
        return [hit.chunk for hit in hits]

    return {
        name: evaluate(questions, given, partial(search, by=by))
        for name, by in (("words", "words"), ("vectors", "vectors"), ("fused", None))
    }


def _report_times(sizes: Sequence[int]) -> None:
    rows = []
    for size in sizes:
        process = psutil.Process()
        before = process.memory_info().rss
        documents, queries = _made_up(size)
        vectors = {query: documents[0][0].vector for query in queries}
        index = CollectionIndex(documents.__getitem__, vectors.__getitem__)  # type: ignore[arg-type]
        build = _seconds(partial(index.sync, dict.fromkeys(documents, "1")))
        times = [_seconds(partial(index.search, query, 10)) for query in queries]
        documents[0] = documents[0][:50]
        change = _seconds(partial(index.sync, {**dict.fromkeys(documents, "1"), 0: "2"}))
        memory = (process.memory_info().rss - before) / 2**20
        figures = (statistics.median(times), p95(times), change)
        rows.append([f"{size:,}", *map(milliseconds, figures), f"{build:.1f} s", f"{memory:,.0f} MiB"])
    print_table(("chunks", "search p50", "p95", "a changed document", "build", "memory, with the texts"), rows)


def _made_up(size: int) -> tuple[dict[int, list[Entry]], list[str]]:
    """Documents of 100 chunks, with as many words as real ones, and queries."""
    random = np.random.default_rng(0)
    vocabulary = np.array([f"{first}{second}" for first in SYLLABLES for second in SYLLABLES])
    vectors = random.normal(size=(size, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents: dict[int, list[Entry]] = {}
    for chunk, vector in enumerate(vectors):
        entry = Entry(chunk, chunk // 100, chunk % 100, _words(random, vocabulary, 150), vector)
        documents.setdefault(entry.document, []).append(entry)
    return documents, [_words(random, vocabulary, 4) for _ in range(100)]


def _words(random: np.random.Generator, vocabulary: np.ndarray, number: int) -> str:
    """Words by Zipf's law: few are frequent."""
    ranks = np.minimum(random.zipf(1.3, size=number), len(vocabulary)) - 1
    return " ".join(vocabulary[ranks].tolist())


def _seconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began
