"""Documents in both databases: whole or not there, replaced at once, gone at once."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.documents.chunks import chunks_of
from server.documents.text import text_of
from server.errors import CollectionNotFoundError, DocumentNotFoundError, IngestFailedError
from server.store import Database
from server.store.document_types import NewDocument, Scope
from server.store.documents import DocumentStore

LAB = Scope("main")
VECTOR = b"\0\0\x80\x3f" * 3


@pytest.fixture
def store(tmp_path: Path, database_url: str | None) -> Iterator[DocumentStore]:
    database = Database(tmp_path, database_url)
    yield DocumentStore(database)
    database.close()


def document(name: str, *pages: str, sha256: str = "") -> NewDocument:
    text = text_of([(f"p{number}", page) for number, page in enumerate(pages)])
    chunks = chunks_of(text, lambda part: len(part.split()), 20)
    sha256 = sha256 or str(hash(pages))
    return NewDocument(
        name, "file", "", sha256, 10, "text/plain", "text", None, ["page 7"], "1-20", text.pages, chunks
    )


def embed(store: DocumentStore, model: str) -> None:
    """Does what the indexer does, once for all documents."""
    while waiting := store.to_embed():
        found = waiting[0]
        batch = store.without_vector(found.key, model, 2)
        if batch:
            assert store.add_vectors(found, model, {chunk.key: VECTOR for chunk in batch}) is not None
        else:
            assert store.end_embedding(found, model, None)


def test_a_document_and_its_life(store: DocumentStore) -> None:
    given = document("a.pdf", "Die warpage µ. " * 20, "", "More of it 語. " * 20)
    saved, is_new = store.save(LAB, "main", "notes", given)
    assert is_new and (saved.state, saved.pages, saved.chunks, saved.vectors) == (
        "embedding",
        3,
        len(given.chunks),
        0,
    )
    assert saved.chunks > 3 and saved.skipped == ["page 7"]
    [collection] = store.collections([LAB])
    assert (collection.name, collection.documents, collection.chunks) == ("notes", 1, saved.chunks)
    assert [page.text for page in store.pages(saved.key)] == [page.text for page in given.pages]
    assert store.page_sizes(saved.key)[1] == (1, "p1", 0)
    live = store.live(collection.key)
    # Vectors of another model are replaced.
    embed(store, "old")
    assert store.live(collection.key) != live
    assert store.chunks(saved.key)[1][0].vector == VECTOR
    store.write(store.try_again("new", "1-20"))
    embed(store, "new")
    ready = store.document([collection.key], saved.id)
    assert (ready.state, ready.model, ready.vectors) == ("ready", "new", ready.chunks)
    assert store.without_vector(saved.key, "old", 100) != []
    # The same again is nothing new.
    again, is_new = store.save(LAB, "main", "notes", given)
    assert not is_new and again == ready
    # Other bytes replace it: the id stays, and nothing else does.
    other, is_new = store.save(LAB, "main", "notes", document("a.pdf", "Another text."))
    assert is_new and other.id == saved.id and other.key != saved.key and other.state == "embedding"
    assert store.chunks(saved.key) == (None, []) and store.pages(saved.key) == []
    # What the indexer still does for the old one is nothing.
    assert store.add_vectors(saved, "new", {1: VECTOR}) is None
    assert not store.end_embedding(saved, "new", None)
    assert store.end_embedding(other, None, "no model")
    assert store.document([collection.key], other.id).error == "no model"
    # Adding it once more tries again.
    assert store.save(LAB, "main", "notes", document("a.pdf", "Another text."))[0].state == "embedding"
    [chunk] = store.chunks(other.key)[1]
    assert store.passages([chunk.key])[chunk.key].page_label == "p0"
    store.delete_document(collection.key, other.id)
    assert store.passages([chunk.key]) == {} and store.live(collection.key) == {}
    with pytest.raises(DocumentNotFoundError):
        store.delete_document(collection.key, other.id)
    # Keys are never used again: an index in memory may still have the old ones.
    newest, _ = store.save(LAB, "main", "notes", document("b.pdf", "A text."))
    assert newest.key > other.key and store.chunks(newest.key)[1][0].key > chunk.key


def test_a_document_whose_counts_do_not_agree_is_not_there(store: DocumentStore) -> None:
    good = document("good.pdf", "One text.")
    store.save(LAB, "main", "notes", good)
    [chunk] = good.chunks
    wrong = replace(good, sha256="x", chunks=[replace(chunk, end=chunk.end + 1)])
    with pytest.raises(IngestFailedError, match="1 of them cut"):
        store.save(LAB, "main", "notes", wrong)
    [collection] = store.collections([LAB])
    [kept] = store.documents([collection.key])
    assert kept.sha256 == good.sha256 and len(store.chunks(kept.key)[1]) == 1


def test_a_new_chunker_replaces_the_passages(store: DocumentStore) -> None:
    saved, _ = store.save(LAB, "main", "notes", document("a.pdf", "A text of some words. " * 30))
    embed(store, "model")
    store.write(store.try_again("model", "2-20"))
    [found] = store.to_embed()
    text = text_of([(page.label, page.text) for page in store.pages(found.key)])
    store.rechunk(found, "2-20", chunks_of(text, lambda part: len(part.split()), 10))
    embed(store, "model")
    ready = store.document([saved.collection], saved.id)
    assert ready.chunks > saved.chunks and (ready.state, ready.chunker) == ("ready", "2-20")
    # It was the old document's state that this was for.
    store.rechunk(found, "3", [])
    assert store.document([saved.collection], saved.id).chunks == ready.chunks


def test_scopes(store: DocumentStore) -> None:
    scopes = [LAB, Scope("alice"), Scope("alice", "may"), Scope("bob")]
    for scope in scopes:
        store.save(scope, scope.workspace, "notes", document("a.pdf", f"Of {scope}."))
    readable = store.collections(Scope("alice", "may").readable())
    assert [one.scope for one in readable] == scopes[:3]
    assert [one.scope for one in store.collections(readable[0].scope.readable())] == [LAB]
    assert store.any_document([Scope("bob")]) and not store.any_document([Scope("carol")])
    assert store.delete_session("alice", "may") and not store.delete_session("alice", "may")
    with pytest.raises(CollectionNotFoundError, match="session 'may' of the workspace 'alice'"):
        store.collection(Scope("alice", "may"), "notes")
    store.delete_collection(LAB, "notes")
    assert [one.scope for one in store.collections(scopes)] == [Scope("alice"), Scope("bob")]
