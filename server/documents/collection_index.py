"""The index of one collection: search by words and by meaning, fused, and ranked again on request."""

import logging
import threading
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import numpy as np

from server.documents.embedder import EmbeddingError
from server.documents.fusion import fuse
from server.documents.headings import is_listing
from server.documents.lexical_index import LexicalIndex
from server.documents.rerank import Reranker
from server.documents.vector_index import VectorIndex
from server.documents.words import has_subject

log = logging.getLogger(__name__)

DEPTH = 100
"""Number of passages of each search that are fused."""
RERANKED = 20
"""Number of the best passages that are ranked again."""
CONTEXT_WEIGHT = 2
"""How often a word of a chunk's context counts in the search by words."""


@dataclass(frozen=True)
class Entry:
    """A chunk. `chunk`: its id, of which no other document has the same. `page`: the index of its first page.
    `vector`: of length 1; None: it has none yet. `context`: what stands above the chunk, such as the headings of
    `server.documents.headings.contexts`; it counts for the search by words, and is not shown. `last_page`: None: it
    ends on `page`."""

    chunk: int
    document: int
    page: int
    text: str
    vector: np.ndarray | None
    context: str = ""
    last_page: int | None = None

    @property
    def searched(self) -> str:
        """What is indexed by words."""
        return "\n".join([self.context] * CONTEXT_WEIGHT + [self.text])


@dataclass(frozen=True)
class Hit:
    """A chunk that was found. `score`: of the fusion, from 0 to 1, or below 0 for a table of contents; if it was
    ranked again, of that. It compares hits of one search only. `ranks`: its place, from 1, by "words", "vectors" and
    "rerank", where it has one. `similarity`: the cosine of its vector and the query's; None: there is none yet."""

    chunk: int
    score: float
    ranks: dict[str, int]
    similarity: float | None = None


@dataclass
class _Document:
    version: str
    fingerprint: int
    chunks: np.ndarray
    pages: dict[int, range]


class CollectionIndex:
    """The chunks of a collection, in memory. Safe for any number of threads. Empty until the first `sync`."""

    def __init__(self, load: Callable[[int], list[Entry]], embed_query: Callable[[str], np.ndarray] | None) -> None:
        """`load`: the chunks of a document. `embed_query`: a query's vector; None: search by words alone."""
        self._load = load
        self._embed_query = embed_query
        self._lock = threading.Lock()
        self._words = LexicalIndex()
        self._vectors = VectorIndex()
        self._documents: dict[int, _Document] = {}
        self._document_of: dict[int, int] = {}
        self._listings: set[int] = set()

    def sync(self, live: Mapping[int, str]) -> None:
        """Make the index that of the documents `live`: their ids with their versions. Documents whose version changed
        are loaded again. What `load` raises is raised, and the next call tries again."""
        with self._lock:
            for gone in self._documents.keys() - live.keys():
                self._remove(gone)
            changed = [one for one, version in live.items() if not self._has(one, version)]
            loaded: dict[int, list[Entry]] = {one: self._load(one) for one in changed}
            self._add(loaded, live)

    def search(
        self,
        query: str,
        limit: int,
        documents: Container[int] | None = None,
        pages: Container[int] | None = None,
        rerank: Reranker | None = None,
    ) -> list[Hit]:
        """The best chunks for `query`, at most `limit`, the best first; none for a query without words.

        `documents`, `pages`: the only documents, and indices of pages, to find; None: all. `rerank` ranks the best
        `RERANKED` again. Where the query can't be embedded, the search is by words, and the log says why.
        """
        vector = self._vector(query)
        cosines: dict[int, float] = {}
        others: dict[int, float] = {}
        with self._lock:
            allowed = self._allowed(documents, pages)
            words = dict(self._words.search(query, DEPTH, allowed))
            if vector is not None:
                cosines = dict(self._vectors.search(vector, DEPTH, allowed))
                others = self._vectors.cosines(vector, words.keys() - cosines.keys())
            document_of = {one: self._document_of[one] for one in {**words, **cosines}}
            listings = self._listings.intersection(document_of)
        # Tables of contents come last: they have the words of every heading, and say nothing.
        scores = {one: score - 2 * (one in listings) for one, score in fuse(words, cosines).items()}
        fused = sorted(scores.items(), key=lambda item: -item[1])
        found = {"words": words, "vectors": cosines}
        ranks = {
            name: {one: place for place, one in enumerate(sorted(ids, key=lambda one: one in listings), 1)}
            for name, ids in found.items()
        }
        if rerank is not None:
            fused = self._reranked(query, fused, document_of, rerank)
            ranks["rerank"] = {one: place for place, (one, _) in enumerate(fused[:RERANKED], 1)}
        similarities = cosines | others
        return [
            Hit(one, score, {name: at[one] for name, at in ranks.items() if one in at}, similarities.get(one))
            for one, score in fused[:limit]
        ]

    def _vector(self, query: str) -> np.ndarray | None:
        if self._embed_query is None or not len(self._vectors) or not has_subject(query):
            return None
        try:
            return self._embed_query(query)
        except EmbeddingError as error:
            log.warning("This search is by words alone: %s", error)
            return None

    def _reranked(
        self, query: str, fused: list[tuple[int, float]], document_of: dict[int, int], rerank: Reranker
    ) -> list[tuple[int, float]]:
        """`fused` with the first ones in the re-ranker's order. Chunks that were removed meanwhile are left out."""
        first, others = fused[:RERANKED], fused[RERANKED:]
        texts: dict[int, str] = {}
        for document in {document_of[one] for one, _ in first}:
            texts.update((entry.chunk, entry.text) for entry in self._load(document))
        candidates = [one for one, _ in first if one in texts]
        if not candidates:
            return others
        scores = rerank.score(query, [texts[one] for one in candidates])
        ranked = sorted(zip(candidates, scores, strict=True), key=lambda item: -item[1])
        # Those that were not ranked again come after these: their scores are of another kind.
        lowest = ranked[-1][1]
        return ranked + [(one, lowest - place) for place, (one, _) in enumerate(others, 1)]

    def _has(self, document: int, version: str) -> bool:
        known = self._documents.get(document)
        return known is not None and known.version == version

    def _add(self, loaded: Mapping[int, list[Entry]], live: Mapping[int, str]) -> None:
        texts: dict[int, str] = {}
        vectors: dict[int, np.ndarray] = {}
        for document, entries in loaded.items():
            fingerprint = hash(tuple((entry.chunk, entry.searched) for entry in entries))
            known = self._documents.get(document)
            if known is None or known.fingerprint != fingerprint:
                self._remove(document)
                texts.update((entry.chunk, entry.searched) for entry in entries)
            else:
                # Its vectors are new, and its words are not.
                self._vectors.remove(known.chunks.tolist())
            vectors.update((entry.chunk, entry.vector) for entry in entries if entry.vector is not None)
            self._document_of.update((entry.chunk, document) for entry in entries)
            self._listings.update(entry.chunk for entry in entries if is_listing(entry.text))
            self._documents[document] = _Document(
                live[document],
                fingerprint,
                np.array([entry.chunk for entry in entries], dtype=np.int64),
                {entry.chunk: range(entry.page, (entry.last_page or entry.page) + 1) for entry in entries},
            )
        self._words.add(texts)
        if vectors:
            self._vectors.add(vectors, np.stack(list(vectors.values())))

    def _remove(self, document: int) -> None:
        known = self._documents.pop(document, None)
        if known is not None:
            chunks = known.chunks.tolist()
            self._words.remove(chunks)
            self._vectors.remove(chunks)
            self._listings.difference_update(chunks)
            for one in chunks:
                del self._document_of[one]

    def _allowed(self, documents: Container[int] | None, pages: Container[int] | None) -> np.ndarray | None:
        """The chunks that may be found; None: all."""
        if documents is None and pages is None:
            return None
        found = [known for one, known in self._documents.items() if documents is None or one in documents]
        if pages is None:
            return np.concatenate([known.chunks for known in found]) if found else np.zeros(0, dtype=np.int64)
        wanted = [one for known in found for one, span in known.pages.items() if any(page in pages for page in span)]
        return np.array(wanted, dtype=np.int64)
