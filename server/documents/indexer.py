"""The thread that embeds the passages of documents, one small batch after the other.

It runs Hearth's own code alone, so it needs no process of its own, as a job does. What is left to do is what the
database says: the documents that are `embedding`, and their passages without a vector. So nothing is lost when the
server is killed, and nothing is done twice.
"""

import logging
import threading

from server.documents.chunking import Chunking
from server.documents.embedder import Embedder, EmbeddingError
from server.documents.feeds import CollectionFeeds
from server.documents.text import BETWEEN, Text
from server.errors import HearthError, StoreError
from server.observability import metrics
from server.store.document_types import Document, StoredChunk
from server.store.documents import DocumentStore

log = logging.getLogger(__name__)

BATCH = 16
"""Passages of one transaction. Other documents get their turn after it."""
AGAIN_SECONDS = 30.0
"""Until the next try when the database can't be used."""
CLOSE_SECONDS = 10.0


class Indexer:
    """Idle until it is opened. Safe for any number of threads."""

    def __init__(self, store: DocumentStore, embedder: Embedder, chunking: Chunking, feeds: CollectionFeeds) -> None:
        self._store = store
        self._embedder = embedder
        self._chunking = chunking
        self._feeds = feeds
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def open(self) -> None:
        """Continue with what an earlier server has left: in the background, and only if there is something."""
        counts = self._store.counts()
        if sum(counts.values()):
            # Only the thread can say what the model is called: it has to be loaded for it.
            self._notice(is_first=True)

    def notice(self) -> None:
        """There is a document to embed."""
        self._notice(is_first=False)

    def close(self) -> None:
        """End after the batch that is being embedded."""
        self._closed.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _notice(self, is_first: bool) -> None:
        with self._starting:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(
                    target=self._work, args=(is_first,), name="embed documents", daemon=True
                )
                self._thread.start()
        self._wanted.set()

    def _work(self, is_first: bool) -> None:
        while not self._closed.is_set():
            self._wanted.clear()
            try:
                if is_first:
                    self._try_again()
                    is_first = False
                # A round: a batch of each, so that neither a long document nor one that is often replaced keeps
                # others waiting.
                waiting = self._store.to_embed()
                for document in waiting:
                    if self._closed.is_set():
                        return
                    self._advance(document)
                if waiting:
                    continue
            except StoreError:
                log.exception("documents can't be embedded now")
                self._closed.wait(AGAIN_SECONDS)
                continue
            self._wanted.wait()

    def _try_again(self) -> None:
        """What failed before, or was made by another model or chunker, is to be embedded."""
        try:
            model, chunker = self._embedder.name, self._chunking.name
        except EmbeddingError as error:
            log.warning("Documents are not embedded: %s", error)
            return
        self._store.write(self._store.try_again(model, chunker))

    def _advance(self, document: Document) -> None:
        """Embed a batch of a document. Any failure but that of the database makes it `words_only`, and is said."""
        try:
            if document.chunker != self._chunking.name:
                self._rechunk(document)
                return
            model = self._embedder.name
            batch = self._store.without_vector(document.key, model, BATCH)
            if batch:
                vectors = self._embed(document, batch)
                count = self._store.add_vectors(document, model, vectors)
                if count is not None:
                    self._feeds.on_progress(document, count)
            elif self._store.end_embedding(document, model, None):
                self._feeds.on_state(document, "ready")
        except StoreError:
            raise
        except Exception as error:  # boundary: a model and its libraries may raise anything
            if not isinstance(error, EmbeddingError | HearthError):
                log.exception("the document %r can't be embedded", document.name)
            reason = f"It can be found by words only: {error}"[:2000]
            if self._store.end_embedding(document, None, reason):
                self._feeds.on_state(document, "words_only", reason)

    def _embed(self, document: Document, batch: list[StoredChunk]) -> dict[int, bytes]:
        import numpy as np  # late: the server's start does not need it

        vectors = self._embedder.embed([chunk.text for chunk in batch])
        lengths = np.linalg.norm(vectors, axis=1)
        if vectors.shape[0] != len(batch) or not np.allclose(lengths, 1, atol=0.01):
            # Vectors of zeros would be found for nothing, and nobody would notice.
            raise EmbeddingError("the embedding model has made vectors that are not of length 1.")
        metrics.CHUNKS_EMBEDDED.inc(len(batch))
        stored = vectors.astype("<f4")
        return {chunk.key: stored[place].tobytes() for place, chunk in enumerate(batch)}

    def _rechunk(self, document: Document) -> None:
        pages = self._store.pages(document.key)
        text = Text(BETWEEN.join(page.text for page in pages), tuple(pages))
        chunker, chunks = self._chunking.of(text)
        self._store.rechunk(document, chunker, chunks)
