"""Search in collections: the indexes in memory, each brought up to what the database has right before a search."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from server.documents.embedder import Embedder, EmbeddingError
from server.errors import InvalidRequestError
from server.observability import metrics
from server.store.document_types import Collection, FoundPassage, StoredChunk
from server.store.documents import DocumentStore

if TYPE_CHECKING:
    from server.documents.collection_index import CollectionIndex, Entry
    from server.documents.rerank import Reranker

MOST_INDEXED = 500_000
"""Passages of all indexes in memory. The one that was used least recently makes room; its next search builds it."""


@dataclass(frozen=True)
class Filters:
    """Which documents to search. `documents`: their ids; None: all. `page`: as printed, of the one document that
    `documents` names. `after`: ISO 8601; only documents whose date is later."""

    documents: tuple[str, ...] | None = None
    page: str | None = None
    after: str | None = None


@dataclass(frozen=True)
class Passage:
    """A passage that was found. `score`: compares the passages of one search. `ranks`: its place by `words`,
    `vectors` and `rerank`, where it has one. `similarity`: see `Hit`."""

    found: FoundPassage
    score: float
    ranks: dict[str, int]
    similarity: float | None = None


@dataclass(frozen=True)
class _Held:
    """An index in memory. `lock`: of those who bring it up to date."""

    index: "CollectionIndex"
    lock: threading.Lock = field(default_factory=threading.Lock)


class Searches:
    """Searches collections. Safe for any number of threads."""

    def __init__(self, store: DocumentStore, embedder: Embedder, reranker: "Reranker | None" = None) -> None:
        self._store = store
        self._embedder = embedder
        self._reranker = reranker
        self._lock = threading.Lock()
        self._indexes: OrderedDict[int, _Held] = OrderedDict()
        self._sizes: dict[int, int] = {}

    def search(
        self,
        collections: Sequence[Collection],
        query: str,
        limit: int,
        filters: Filters = Filters(),
        rerank: bool = False,
    ) -> list[Passage]:
        """The best passages of collections, the best first. What was deleted before the call is never among them.

        Passages of several collections are ordered by their scores, which are relative to the best in their
        own collection. Raises `InvalidRequestError`, `DocumentNotFoundError`, `StoreError`.
        """
        if rerank and self._reranker is None:
            raise InvalidRequestError(
                "rerank: this server has nothing that ranks again. HEARTH_RERANK_MODEL chooses it."
            )
        pages = None if filters.page is None else [self._page(collections, filters)]
        reranker = self._reranker if rerank else None
        hits = []
        with metrics.SEARCH_SECONDS.time():
            for collection in collections:
                wanted = None
                if filters.documents is not None or filters.after is not None:
                    wanted = self._store.live(collection.key, filters.after, filters.documents).keys()
                    if not wanted:
                        continue
                index = self._up_to_date(collection)
                hits += index.search(query, limit, documents=wanted, pages=pages, rerank=reranker)
            hits = sorted(hits, key=lambda hit: -hit.score)[:limit]
            found = self._store.passages([hit.chunk for hit in hits]) if hits else {}
        return [Passage(found[hit.chunk], hit.score, hit.ranks, hit.similarity) for hit in hits if hit.chunk in found]

    def forget(self, collection: int) -> None:
        """Free the index of a collection that is gone."""
        with self._lock:
            self._indexes.pop(collection, None)
            self._sizes.pop(collection, None)

    def _page(self, collections: Sequence[Collection], filters: Filters) -> int:
        if filters.documents is None or len(filters.documents) != 1:
            raise InvalidRequestError("page: a page belongs to a document. Say which one: document=<id>.")
        document = self._store.document([one.key for one in collections], filters.documents[0])
        for index, label, _ in self._store.page_sizes(document.key):
            if filters.page == (label or str(index + 1)):
                return index
        raise InvalidRequestError(f"page: {document.name!r} has no page {filters.page!r}, as printed.")

    def _up_to_date(self, collection: Collection) -> "CollectionIndex":
        """The index of a collection, as the database is now or later."""
        found = self._index(collection)
        # With the lock held: otherwise a search that has read the database earlier could take back what a later one
        # has brought.
        with found.lock:
            found.index.sync(self._store.live(collection.key))
        return found.index

    def _index(self, collection: Collection) -> "_Held":
        # Late: it imports what the server's start does not need.
        from server.documents.collection_index import CollectionIndex

        with self._lock:
            found = self._indexes.get(collection.key)
            if found is None:
                found = _Held(CollectionIndex(self._load, self._embedder.embed_query))
                self._indexes[collection.key] = found
            self._indexes.move_to_end(collection.key)
            self._sizes[collection.key] = collection.chunks
            while sum(self._sizes.values()) > MOST_INDEXED and len(self._indexes) > 1:
                gone, _ = self._indexes.popitem(last=False)
                del self._sizes[gone]
        return found

    def _load(self, key: int) -> "list[Entry]":
        """The passages of a document; none if it was deleted a moment ago."""
        import numpy as np

        from server.documents.collection_index import Entry
        from server.documents.headings import contexts

        document, chunks = self._store.chunks(key)
        if document is None:
            return []
        has_vectors = document.state == "ready" and document.model == self._model()
        above = contexts(*_laid_out(chunks))
        return [
            Entry(
                chunk.key,
                key,
                chunk.first_page,
                chunk.text,
                np.frombuffer(chunk.vector, "<f4") if has_vectors and chunk.vector is not None else None,
                context=f"{document.name}\n{titles}",
                last_page=chunk.last_page,
            )
            for chunk, titles in zip(chunks, above, strict=True)
        ]

    def _model(self) -> str | None:
        try:
            return self._embedder.name
        except EmbeddingError:
            return None  # the search is by words; the indexer has said why


def _laid_out(chunks: Sequence[StoredChunk]) -> tuple[str, list[tuple[int, int]]]:
    """The text that passages are of, as far as its lines matter, and their places in it."""
    parts: list[str] = []
    spans = []
    place = 0
    for chunk in chunks:
        spans.append((place, place + len(chunk.text)))
        parts.append(chunk.text)
        place += len(chunk.text) + 1
    return "\n".join(parts), spans
