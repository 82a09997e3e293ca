"""Collections of documents: their pages, passages and vectors. Each change of a document is one transaction.

Over 400 lines: the changes and the lists have their conditions in common.
"""

import json
import secrets
import time
from collections.abc import Collection as Container
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, insert, or_, select, update

from server.documents.chunks import Chunk
from server.documents.text import Page
from server.errors import CollectionNotFoundError, DocumentNotFoundError, IngestFailedError
from server.store.database import Database
from server.store.document_types import Collection, Document, FoundPassage, NewDocument, Scope, StoredChunk
from server.store.group_writer import Change
from server.store.tables import CHUNK, CHUNK_VECTOR, COLLECTION, DOCUMENT, DOCUMENT_PAGE


class DocumentStore:
    """Documents by collection and name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Collections

    def collections(
        self, scopes: Sequence[Scope], limit: int | None = None, after: int = 0, names: Sequence[str] | None = None
    ) -> list[Collection]:
        """The collections of these scopes, in the order in which they were made: those after the key `after`."""
        wanted = (
            select(
                COLLECTION,
                func.count(DOCUMENT.c.key).label("documents"),
                func.coalesce(func.sum(DOCUMENT.c.chunks), 0).label("chunks"),
            )
            .outerjoin(DOCUMENT, DOCUMENT.c.collection == COLLECTION.c.key)
            .where(or_(*(_of(scope) for scope in scopes)), COLLECTION.c.key > after)
            .group_by(COLLECTION.c.key)
            .order_by(COLLECTION.c.key)
            .limit(limit)
        )
        if names is not None:
            wanted = wanted.where(COLLECTION.c.name.in_(list(names)))
        with self._database.reading() as connection:
            return [
                Collection(
                    row.key, Scope(row.workspace, row.session), row.name, row.created, row.documents, int(row.chunks)
                )
                for row in connection.execute(wanted)
            ]

    def collection(self, scope: Scope, name: str) -> Collection:
        """That collection. Raises `CollectionNotFoundError`."""
        found = self.collections([scope], names=[name])
        if not found:
            raise _no_collection(scope, name)
        return found[0]

    def any_document(self, scopes: Sequence[Scope]) -> bool:
        """Whether there is a document in a collection of these scopes."""
        wanted = select(
            exists(
                select(DOCUMENT.c.key)
                .join(COLLECTION, COLLECTION.c.key == DOCUMENT.c.collection)
                .where(or_(*(_of(scope) for scope in scopes)))
            )
        )
        with self._database.reading() as connection:
            return bool(connection.execute(wanted).scalar())

    def delete_collection(self, scope: Scope, name: str) -> Collection:
        """Delete a collection with all of its documents. Raises `CollectionNotFoundError`."""
        found = self.collection(scope, name)
        with self._database.writing() as connection:
            if not connection.execute(delete(COLLECTION).where(COLLECTION.c.key == found.key)).rowcount:
                raise _no_collection(scope, name)
        return found

    def delete_session(self, workspace: str, session: str) -> bool:
        """Delete the collections of a session. Returns whether it had some."""
        with self._database.writing() as connection:
            return bool(connection.execute(delete(COLLECTION).where(_of(Scope(workspace, session)))).rowcount)

    # Documents

    def save(self, scope: Scope, owner: str, collection: str, given: NewDocument) -> tuple[Document, bool]:
        """Save a document, whose state is `embedding` then. It replaces the one of its name, whose id it gets.

        A document of the same bytes, text and date stays as it is, and is tried again if it is `words_only`. Returns
        the document, and whether something was saved. Raises `IngestFailedError` if what would be saved does not
        agree with what was given: then nothing is.
        """
        with self._database.writing() as connection:
            key = _collection_key(connection, scope, owner, collection)
            old = connection.execute(
                select(DOCUMENT).where(DOCUMENT.c.collection == key, DOCUMENT.c.name == given.name)
            ).one_or_none()
            if old is not None and _is_same(old, given):
                if old.state == "words_only":
                    connection.execute(_document(old.key).values(state="embedding", error=None))
                    old = connection.execute(select(DOCUMENT).where(DOCUMENT.c.key == old.key)).one()
                return _as_document(old), False
            if old is not None:
                connection.execute(delete(DOCUMENT).where(DOCUMENT.c.key == old.key))
            made = connection.execute(insert(DOCUMENT).values(_row(key, old, given))).inserted_primary_key
            assert made is not None, "a row was inserted"
            document: int = made[0]
            if given.pages:
                connection.execute(
                    insert(DOCUMENT_PAGE),
                    [
                        {
                            "document": document,
                            "index": page.index,
                            "label": page.label,
                            "start": page.start,
                            "text": page.text,
                        }
                        for page in given.pages
                    ],
                )
            _insert_chunks(connection, document, given.chunks)
            return _checked(connection, document), True

    def same(
        self, scope: Scope, collection: str, name: str, sha256: str, date: str | None, chunker: str
    ) -> Document | None:
        """The document of that name, if it is these bytes with that date, cut by that chunker, not `words_only`."""
        wanted = (
            select(DOCUMENT)
            .join(COLLECTION, COLLECTION.c.key == DOCUMENT.c.collection)
            .where(_of(scope), COLLECTION.c.name == collection, DOCUMENT.c.name == name)
            .where(DOCUMENT.c.sha256 == sha256, DOCUMENT.c.chunker == chunker, DOCUMENT.c.state != "words_only")
        )
        with self._database.reading() as connection:
            row = connection.execute(wanted).one_or_none()
        return None if row is None or row.date != date else _as_document(row)

    def rechunk(self, document: Document, chunker: str, chunks: Sequence[Chunk]) -> None:
        """Replace the passages of a document, since what makes them has changed. Nothing changes if the document was
        replaced or deleted meanwhile."""
        with self._database.writing() as connection:
            values = {
                "chunks": len(chunks),
                "vectors": 0,
                "chunker": chunker,
                "model": None,
                "version": secrets.token_hex(8),
                "state": "embedding",
            }
            same = _document(document.key).where(DOCUMENT.c.version == document.version)
            if connection.execute(same.values(**values)).rowcount:
                connection.execute(delete(CHUNK).where(CHUNK.c.document == document.key))
                _insert_chunks(connection, document.key, chunks)
                _checked(connection, document.key)

    def documents(self, collections: Sequence[int], limit: int | None = None, after: int = 0) -> list[Document]:
        """The documents of collections, in the order in which they were saved; those after the key `after`."""
        wanted = (
            select(DOCUMENT)
            .where(DOCUMENT.c.collection.in_(list(collections)), DOCUMENT.c.key > after)
            .order_by(DOCUMENT.c.key)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [_as_document(row) for row in connection.execute(wanted)]

    def document(self, collections: Sequence[int], document: str) -> Document:
        """That document of one of these collections. Raises `DocumentNotFoundError`."""
        wanted = select(DOCUMENT).where(DOCUMENT.c.id == document, DOCUMENT.c.collection.in_(list(collections)))
        with self._database.reading() as connection:
            row = connection.execute(wanted).one_or_none()
        if row is None:
            raise _no_document(document)
        return _as_document(row)

    def delete_document(self, collection: int, document: str) -> None:
        """Delete a document. Raises `DocumentNotFoundError`."""
        wanted = delete(DOCUMENT).where(DOCUMENT.c.id == document, DOCUMENT.c.collection == collection)
        with self._database.writing() as connection:
            if not connection.execute(wanted).rowcount:
                raise _no_document(document)

    def pages(self, document: int, first: int = 0, last: int | None = None, limit: int | None = None) -> list[Page]:
        """The pages of a document from index `first` to `last`."""
        # A row has a method called `index`.
        columns = (
            DOCUMENT_PAGE.c.index.label("place"),
            *(DOCUMENT_PAGE.c[name] for name in ("label", "start", "text")),
        )
        wanted = (
            select(*columns)
            .where(DOCUMENT_PAGE.c.document == document, DOCUMENT_PAGE.c.index >= first)
            .order_by(DOCUMENT_PAGE.c.index)
            .limit(limit)
        )
        if last is not None:
            wanted = wanted.where(DOCUMENT_PAGE.c.index <= last)
        with self._database.reading() as connection:
            return [Page(row.place, row.label, row.start, row.text) for row in connection.execute(wanted)]

    def page_sizes(self, document: int) -> list[tuple[int, str | None, int]]:
        """Index, label and length of each page."""
        columns = (DOCUMENT_PAGE.c.index, DOCUMENT_PAGE.c.label, func.length(DOCUMENT_PAGE.c.text))
        wanted = select(*columns).where(DOCUMENT_PAGE.c.document == document).order_by(DOCUMENT_PAGE.c.index)
        with self._database.reading() as connection:
            return [(index, label, size) for index, label, size in connection.execute(wanted)]

    # Search

    def live(self, collection: int, after: str | None = None, ids: Sequence[str] | None = None) -> dict[int, str]:
        """The keys of the documents of a collection, with a text that changes when its passages or their vectors do.
        `after`: only those with a date, which is later. `ids`: only these."""
        columns = (DOCUMENT.c.key, DOCUMENT.c.version, DOCUMENT.c.state, DOCUMENT.c.model)
        wanted = select(*columns).where(DOCUMENT.c.collection == collection)
        if after is not None:
            wanted = wanted.where(DOCUMENT.c.date > after)
        if ids is not None:
            wanted = wanted.where(DOCUMENT.c.id.in_(list(ids)))
        with self._database.reading() as connection:
            return {
                row.key: f"{row.version} {row.model if row.state == 'ready' else ''}"
                for row in connection.execute(wanted)
            }

    def chunks(self, document: int) -> tuple[Document | None, list[StoredChunk]]:
        """A document, and its passages in order, with their vectors if it is `ready`. None and none if it is gone."""
        vector = and_(CHUNK_VECTOR.c.chunk == CHUNK.c.key, CHUNK_VECTOR.c.model == DOCUMENT.c.model)
        wanted = (
            select(CHUNK, CHUNK_VECTOR.c.vector)
            .join(DOCUMENT, DOCUMENT.c.key == CHUNK.c.document)
            .outerjoin(CHUNK_VECTOR, and_(vector, DOCUMENT.c.state == "ready"))
            .where(CHUNK.c.document == document)
            .order_by(CHUNK.c.number)
        )
        with self._database.reading() as connection:
            row = connection.execute(select(DOCUMENT).where(DOCUMENT.c.key == document)).one_or_none()
            chunks = [_as_chunk(one, one.vector) for one in connection.execute(wanted)]
        return None if row is None else _as_document(row), chunks

    def passages(self, chunks: Container[int]) -> dict[int, FoundPassage]:
        """These passages by their keys, as far as their documents are live: all as they are at one moment."""
        first, last = DOCUMENT_PAGE.alias("first"), DOCUMENT_PAGE.alias("last")
        wanted = (
            select(
                CHUNK,
                DOCUMENT.c.id,
                DOCUMENT.c.name,
                COLLECTION.c.name.label("collection"),
                first.c.label.label("first_label"),
                last.c.label.label("last_label"),
            )
            .join(DOCUMENT, DOCUMENT.c.key == CHUNK.c.document)
            .join(COLLECTION, COLLECTION.c.key == DOCUMENT.c.collection)
            .join(first, and_(first.c.document == DOCUMENT.c.key, first.c.index == CHUNK.c.first_page))
            .join(last, and_(last.c.document == DOCUMENT.c.key, last.c.index == CHUNK.c.last_page))
            .where(CHUNK.c.key.in_(list(chunks)))
        )
        with self._database.reading() as connection:
            return {
                row.key: FoundPassage(
                    chunk=row.key,
                    collection=row.collection,
                    document=row.name,
                    document_id=row.id,
                    page=row.first_page,
                    last_page=row.last_page,
                    page_label=row.first_label,
                    last_page_label=row.last_label,
                    start=row.start,
                    end=row.end,
                    text=row.text,
                )
                for row in connection.execute(wanted)
            }

    # Embedding

    def to_embed(self, limit: int = 1000) -> list[Document]:
        """The documents whose state is `embedding`, those that were saved first come first."""
        wanted = select(DOCUMENT).where(DOCUMENT.c.state == "embedding").order_by(DOCUMENT.c.key).limit(limit)
        with self._database.reading() as connection:
            return [_as_document(row) for row in connection.execute(wanted)]

    def without_vector(self, document: int, model: str, limit: int) -> list[StoredChunk]:
        """Passages of a document that have no vector by `model`, in order."""
        has = exists().where(CHUNK_VECTOR.c.chunk == CHUNK.c.key, CHUNK_VECTOR.c.model == model)
        wanted = select(CHUNK).where(CHUNK.c.document == document, ~has).order_by(CHUNK.c.number).limit(limit)
        with self._database.reading() as connection:
            return [_as_chunk(row, None) for row in connection.execute(wanted)]

    def add_vectors(self, document: Document, model: str, vectors: Mapping[int, bytes]) -> int | None:
        """Save vectors of passages by their keys. Returns how many the document has now; None if it was replaced or
        deleted, or has another state, and nothing was saved."""
        count: int | None = None

        def change(connection: Connection) -> None:
            nonlocal count
            count = None
            if not _is_current(connection, document):
                return
            # Another server on the same database may have been faster.
            known = select(CHUNK_VECTOR.c.chunk).where(
                CHUNK_VECTOR.c.chunk.in_(list(vectors)), CHUNK_VECTOR.c.model == model
            )
            there = set(connection.execute(known).scalars())
            rows = [
                {"chunk": chunk, "model": model, "vector": vector}
                for chunk, vector in vectors.items()
                if chunk not in there
            ]
            if rows:
                connection.execute(insert(CHUNK_VECTOR), rows)
            count = _count_vectors(connection, document.key, model)
            connection.execute(_document(document.key).values(vectors=count, model=model))

        self._database.write(change)
        return count

    def end_embedding(self, document: Document, model: str | None, error: str | None) -> bool:
        """Make a document `ready` or, with an `error`, `words_only`. Vectors of other models are removed when it is
        ready. Returns False if it was replaced or deleted, or if not every passage has a vector: then it stays as it
        is."""
        done = False

        def change(connection: Connection) -> None:
            nonlocal done
            done = False
            if not _is_current(connection, document):
                return
            if error is not None:
                connection.execute(_document(document.key).values(state="words_only", error=error))
            else:
                chunks = select(func.count()).where(CHUNK.c.document == document.key)
                count = _count_vectors(connection, document.key, str(model))
                if connection.execute(chunks).scalar_one() != count:
                    return
                values = {"state": "ready", "error": None, "vectors": count, "model": model}
                connection.execute(_document(document.key).values(**values))
                own = select(CHUNK.c.key).where(CHUNK.c.document == document.key)
                connection.execute(
                    delete(CHUNK_VECTOR).where(CHUNK_VECTOR.c.chunk.in_(own), CHUNK_VECTOR.c.model != model)
                )
            done = True

        self._database.write(change)
        return done

    def try_again(self, model: str, chunker: str) -> Change:
        """The change by which documents that are `words_only`, or of another model or chunker, are embedded."""
        other = or_(
            DOCUMENT.c.state == "words_only",
            and_(DOCUMENT.c.state == "ready", or_(DOCUMENT.c.model != model, DOCUMENT.c.chunker != chunker)),
        )

        def change(connection: Connection) -> None:
            connection.execute(update(DOCUMENT).where(other).values(state="embedding", error=None))

        return change

    def write(self, change: Change) -> None:
        """Make a change."""
        self._database.write(change)

    def bytes_of(self, owner: str) -> int:
        """The size of a person's documents, as they were sent."""
        wanted = select(func.coalesce(func.sum(DOCUMENT.c.bytes), 0)).join(COLLECTION)
        with self._database.reading() as connection:
            return int(connection.execute(wanted.where(COLLECTION.c.owner == owner)).scalar_one())

    def counts(self) -> dict[str, int]:
        """How many documents there are, by state."""
        with self._database.reading() as connection:
            rows = connection.execute(select(DOCUMENT.c.state, func.count()).group_by(DOCUMENT.c.state))
            return {"embedding": 0, "ready": 0, "words_only": 0} | {state: count for state, count in rows}


def _of(scope: Scope) -> Any:
    return and_(COLLECTION.c.workspace == scope.workspace, COLLECTION.c.session == scope.session)


def _document(key: int) -> Any:
    return update(DOCUMENT).where(DOCUMENT.c.key == key)


def _collection_key(connection: Connection, scope: Scope, owner: str, name: str) -> int:
    key: int | None = connection.execute(
        select(COLLECTION.c.key).where(_of(scope), COLLECTION.c.name == name)
    ).scalar()
    if key is None:
        row = {
            "workspace": scope.workspace,
            "owner": owner,
            "session": scope.session,
            "name": name,
            "created": time.time(),
        }
        made = connection.execute(insert(COLLECTION).values(row)).inserted_primary_key
        assert made is not None, "a row was inserted"
        key = int(made[0])
    return key


def _is_same(old: Row[Any], given: NewDocument) -> bool:
    same = (old.sha256, old.date, old.chunker) == (given.sha256, given.date, given.chunker)
    return same and (old.characters, old.pages) == (_characters(given.pages), len(given.pages))


def _row(collection: int, old: Row[Any] | None, given: NewDocument) -> dict[str, Any]:
    now = time.time()
    return {
        # The id of the document that it replaces, so that links to it stay; but another key.
        "id": secrets.token_hex(8) if old is None else old.id,
        "created": now if old is None else old.created,
        "changed": now,
        "collection": collection,
        "name": given.name,
        "source": given.source,
        "place": given.place,
        "sha256": given.sha256,
        "bytes": given.bytes,
        "media_type": given.media_type,
        "kind": given.kind,
        "date": given.date,
        "state": "embedding",
        "version": secrets.token_hex(8),
        "pages": len(given.pages),
        "chunks": len(given.chunks),
        "vectors": 0,
        "characters": _characters(given.pages),
        "skipped": json.dumps(given.skipped),
        "chunker": given.chunker,
    }


def _characters(pages: Sequence[Page]) -> int:
    return sum(len(page.text) for page in pages)


def _insert_chunks(connection: Connection, document: int, chunks: Sequence[Chunk]) -> None:
    if chunks:
        connection.execute(
            insert(CHUNK),
            [
                {
                    "document": document,
                    "number": chunk.number,
                    "start": chunk.start,
                    "end": chunk.end,
                    "first_page": chunk.first_page,
                    "last_page": chunk.last_page,
                    "text": chunk.text,
                }
                for chunk in chunks
            ],
        )


def _checked(connection: Connection, document: int) -> Document:
    """The document as it is saved. Raises `IngestFailedError` if its counts are not those of its rows."""
    row = connection.execute(select(DOCUMENT).where(DOCUMENT.c.key == document)).one()
    pages, characters = connection.execute(
        select(func.count(), func.coalesce(func.sum(func.length(DOCUMENT_PAGE.c.text)), 0)).where(
            DOCUMENT_PAGE.c.document == document
        )
    ).one()
    chunks, wrong = connection.execute(
        select(func.count(), func.count().filter(func.length(CHUNK.c.text) != CHUNK.c.end - CHUNK.c.start)).where(
            CHUNK.c.document == document
        )
    ).one()
    saved, said = (pages, characters, chunks), (row.pages, row.characters, row.chunks)
    if saved != said or wrong:
        raise IngestFailedError(
            f"{row.name!r} was not saved: {said[0]} pages, {said[1]} characters and {said[2]} passages were read, "
            f"and {saved[0]}, {saved[1]} and {saved[2]} would have been saved, {wrong} of them cut."
        )
    return _as_document(row)


def _is_current(connection: Connection, document: Document) -> bool:
    wanted = select(DOCUMENT.c.state).where(DOCUMENT.c.key == document.key, DOCUMENT.c.version == document.version)
    return connection.execute(wanted).scalar() == "embedding"


def _count_vectors(connection: Connection, document: int, model: str) -> int:
    count: int = connection.execute(
        select(func.count())
        .select_from(CHUNK_VECTOR)
        .join(CHUNK, CHUNK.c.key == CHUNK_VECTOR.c.chunk)
        .where(CHUNK.c.document == document, CHUNK_VECTOR.c.model == model)
    ).scalar_one()
    return count


def _as_document(row: Row[Any]) -> Document:
    values = {name: getattr(row, name) for name in Document.__dataclass_fields__ if name != "skipped"}
    return Document(**values, skipped=json.loads(row.skipped))


def _as_chunk(row: Row[Any], vector: bytes | None) -> StoredChunk:
    return StoredChunk(
        row.key, row.number, row.start, row.end, row.first_page, row.last_page, row.text, vector and bytes(vector)
    )


def _no_collection(scope: Scope, name: str) -> CollectionNotFoundError:
    whose = f"session {scope.session!r} of the " if scope.session else ""
    return CollectionNotFoundError(
        f"The {whose}workspace {scope.workspace!r} has no collection {name!r}. GET /collections lists those that "
        "there are; the first document makes one."
    )


def _no_document(document: str) -> DocumentNotFoundError:
    return DocumentNotFoundError(
        f"There is no document {document!r} here. GET /collections/<name>/documents lists those that there are."
    )
