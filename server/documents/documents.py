"""Collections of documents: what people and agents do with them."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from server.documents import packages
from server.documents.chunking import Chunking
from server.documents.embedder import Embedder
from server.documents.feeds import CollectionFeeds
from server.documents.indexer import Indexer
from server.documents.reading import Content, ReadDocument, Reader, text_given
from server.documents.search import Filters, Passage, Searches
from server.errors import DocumentsUnavailableError, FileRefusedError
from server.observability import metrics
from server.runs.events import Events
from server.store.document_types import Collection, Document, NewDocument, Scope, Source
from server.store.documents import DocumentStore

log = logging.getLogger(__name__)


class FetchedPage(Protocol):
    """What was loaded from the web."""

    @property
    def final_url(self) -> str:
        """After redirects."""

    @property
    def content(self) -> bytes:
        """All of it."""


class Documents:
    """Safe for any number of threads."""

    def __init__(
        self,
        store: DocumentStore,
        reader: Reader,
        embedder: Embedder,
        searches: Searches,
        fetch_page: Callable[[str], FetchedPage] | None = None,
    ) -> None:
        """`fetch_page`: loads what a URL names, and raises a `HearthError`; None: pages can't be loaded here."""
        self.store = store
        self.searches = searches
        self._reader = reader
        self._fetch_page = fetch_page
        self._chunking = Chunking(embedder)
        self._feeds = CollectionFeeds()
        self._indexer = Indexer(store, embedder, self._chunking, self._feeds)

    def add(
        self,
        scope: Scope,
        owner: str,
        collection: str,
        name: str,
        content: Content,
        place: str = "",
        date: str | None = None,
    ) -> Document:
        """Add a file, or replace the document of its name. It can be found by words when this returns.

        Raises `FileRefusedError`, `TooLargeError`, `DocumentsUnavailableError`, `IngestFailedError`, what
        `Reader.read` raises, and `StoreError`.
        """
        packages.require()

        def known(sha256: str) -> Document | None:
            return self.store.same(scope, collection, name, sha256, date, self._chunking.current())

        read = self._reader.read(name, content, known)
        if isinstance(read, Document):
            metrics.DOCUMENTS.labels("unchanged").inc()
            return read
        return self._save(scope, owner, collection, name, "file", place, date, read)

    def add_text(
        self, scope: Scope, owner: str, collection: str, name: str, text: str, date: str | None = None
    ) -> Document:
        """The same for a text."""
        packages.require()
        return self._save(scope, owner, collection, name, "text", "", date, text_given(text))

    def add_url(
        self, scope: Scope, owner: str, collection: str, url: str, name: str | None = None, date: str | None = None
    ) -> Document:
        """The same for what a URL names. Its name is the URL, unless `name` is another one."""
        packages.require()
        if self._fetch_page is None:
            raise DocumentsUnavailableError(
                "This server loads nothing from the web. Download the page, and add it as a file."
            )
        page = self._fetch_page(url)
        read = self._reader.read(page.final_url, Content(page.content))
        assert isinstance(read, ReadDocument), "no document was to be found"
        return self._save(scope, owner, collection, name or url, "url", page.final_url, date, read)

    def delete_document(self, collection: Collection, document: str) -> Document:
        """Delete a document: it is in no search that begins from now on. Raises `DocumentNotFoundError`."""
        found = self.store.document([collection.key], document)
        self.store.delete_document(collection.key, document)
        self._feeds.on_state(found, "deleted")
        return found

    def delete_collection(self, scope: Scope, name: str) -> Collection:
        """Delete a collection with its documents. Raises `CollectionNotFoundError`."""
        found = self.store.delete_collection(scope, name)
        self._forget([found])
        return found

    def delete_session(self, workspace: str, session: str) -> bool:
        """Delete the collections of a session. Returns whether it had some."""
        found = self.store.collections([Scope(workspace, session)])
        if not found:
            return False
        self.store.delete_session(workspace, session)
        self._forget(found)
        return True

    def search(
        self, collections: Sequence[Collection], query: str, limit: int, filters: Filters, rerank: bool = False
    ) -> list[Passage]:
        """See `Searches.search`. Raises `DocumentsUnavailableError` too."""
        packages.require()
        return self.searches.search(collections, query, limit, filters, rerank)

    def events(self, collection: Collection) -> Events:
        """What happens in a collection."""
        return self._feeds.events(collection.key)

    def open(self) -> None:
        """Continue with what an earlier server has left."""
        self._reader.remove_leftovers()
        try:
            packages.require()
        except DocumentsUnavailableError:
            return  # each request says it
        self._indexer.open()

    def close(self) -> None:
        """End the indexing; the next server continues."""
        self._indexer.close()

    def _save(
        self,
        scope: Scope,
        owner: str,
        collection: str,
        name: str,
        source: Source,
        place: str,
        date: str | None,
        read: ReadDocument,
    ) -> Document:
        chunker, chunks = self._chunking.of(read.text)
        if not chunks:
            raise FileRefusedError(f"{name!r} has no text, so nothing in it could be found. {' '.join(read.skipped)}")
        given = NewDocument(
            name=name,
            source=source,
            place=place,
            sha256=read.sha256,
            bytes=read.bytes,
            media_type=read.media_type,
            kind=read.kind,
            date=date,
            skipped=read.skipped,
            chunker=chunker,
            pages=read.text.pages,
            chunks=chunks,
        )
        document, is_new = self.store.save(scope, owner, collection, given)
        metrics.DOCUMENTS.labels("saved" if is_new else "unchanged").inc()
        if document.state == "embedding":
            self._feeds.on_state(document, document.state)
            self._indexer.notice()
        return document

    def _forget(self, collections: Sequence[Collection]) -> None:
        for one in collections:
            self._feeds.on_deleted(one.key)
            self.searches.forget(one.key)
