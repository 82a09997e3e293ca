"""The index of a collection: vectors, fusion, filters, re-ranking, and what happens when documents change."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from server.documents import collection_index
from server.documents.collection_index import RERANKED, CollectionIndex, Entry
from server.documents.embedder import EmbeddingError
from server.documents.fusion import fuse
from server.documents.vector_index import VectorIndex

pytest.importorskip("faiss", reason="requirements-documents.txt is not installed")
pytest.importorskip("bm25s", reason="requirements-documents.txt is not installed")

AXES = np.eye(4, dtype=np.float32)
CONTENTS = "1 Warpage . . . . . . . . 3\n2 Ovens . . . . . . . . 4\n3 Index . . . . . . . . 9"


class Library:
    """Documents that change, as the store has them, and an embedder of four words."""

    def __init__(self) -> None:
        self.entries: dict[int, list[Entry]] = {}
        self.versions: dict[int, str] = {}
        self.loads: list[int] = []
        self.fails = False

    def put(self, document: int, version: str, *texts: str, vectors: bool = True, page: int = 0) -> None:
        self.versions[document] = version
        self.entries[document] = [
            Entry(100 * document + place, document, page + place, text, self.embed(text) if vectors else None)
            for place, text in enumerate(texts)
        ]

    def load(self, document: int) -> list[Entry]:
        self.loads.append(document)
        return self.entries.get(document, [])

    def embed(self, text: str) -> np.ndarray:
        if self.fails:
            raise EmbeddingError("it is broken")
        vector: np.ndarray = AXES[
            next((place for place, word in enumerate(("oven", "heat", "glass")) if word in text), 3)
        ]
        return vector

    def index(self) -> CollectionIndex:
        index = CollectionIndex(self.load, self.embed)
        index.sync(self.versions)
        return index


class ByLength:
    """A re-ranker: long texts are good."""

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        return [float(len(text)) for text in texts]


@pytest.fixture
def library() -> Library:
    library = Library()
    library.put(1, "a", "the oven is hot", "glass breaks at night", "nothing here")
    library.put(2, "a", "heat and warpage", "an oven again, and much longer", page=5)
    return library


def _chunks(index: CollectionIndex, query: str, limit: int = 10, **filters: object) -> list[int]:
    return [hit.chunk for hit in index.search(query, limit, **filters)]  # type: ignore[arg-type]


def test_words_and_vectors_are_fused(library: Library) -> None:
    hits = library.index().search("oven", 10)
    assert {hit.chunk for hit in hits[:2]} == {100, 201}
    assert {"words", "vectors"} == hits[0].ranks.keys()
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert "words" not in hits[-1].ranks
    assert library.index().search("oven", 0) == []


def test_a_query_without_a_subject_finds_nothing_by_chance(library: Library) -> None:
    index = library.index()
    assert _chunks(index, "") == _chunks(index, " ?! ") == []
    assert _chunks(index, "an") == [201]


def test_a_document_that_is_gone_is_never_found(library: Library) -> None:
    index = library.index()
    index.sync({2: "a"})
    assert set(_chunks(index, "oven glass")) == {200, 201}
    index.sync({})
    assert _chunks(index, "oven glass heat") == []
    index.sync(library.versions)
    assert 100 in _chunks(index, "oven")


def test_only_what_changed_is_loaded_again(library: Library) -> None:
    index = library.index()
    index.sync(library.versions)
    assert library.loads == [1, 2]
    library.put(2, "b", "glass only")
    index.sync(library.versions)
    assert library.loads == [1, 2, 2]
    assert "warpage" not in library.entries[2][0].text and 201 not in _chunks(index, "warpage oven heat", 10)


def test_vectors_that_come_later_are_searched(library: Library) -> None:
    library.put(3, "words", "molten glass", vectors=False)
    index = library.index()
    assert next(hit.ranks for hit in index.search("molten", 10) if hit.chunk == 300) == {"words": 1}
    library.put(3, "ready", "molten glass")
    index.sync(library.versions)
    found = {hit.chunk: hit.ranks for hit in index.search("glass", 10)}
    assert found[300].keys() == {"words", "vectors"}


def test_what_can_not_be_loaded_or_embedded(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    index = library.index()
    library.fails = True
    assert set(_chunks(index, "oven")) == {100, 201}
    assert "it is broken" in caplog.text
    library.put(4, "a", vectors=False)
    index.sync(library.versions)
    assert set(_chunks(index, "oven")) == {100, 201}


def test_filters(library: Library) -> None:
    index = library.index()
    assert set(_chunks(index, "oven", documents={2})) == {200, 201}
    assert _chunks(index, "oven", documents={2}, pages={6}) == [201]
    assert _chunks(index, "oven", documents={9}) == _chunks(index, "oven", pages={77}) == []
    library.entries[1] = [Entry(100, 1, 3, "oven", AXES[0], last_page=5)]
    library.versions[1] = "b"
    index.sync(library.versions)
    assert 100 in _chunks(index, "oven", pages={4}) and 100 not in _chunks(index, "oven", pages={6})


def test_reranking(library: Library) -> None:
    library.put(5, "a", *(f"oven {'x' * number}" for number in range(RERANKED + 20)))
    hits = library.index().search("oven", 40, rerank=ByLength())
    first = [hit for hit in hits if "rerank" in hit.ranks]
    assert [hit.ranks["rerank"] for hit in first] == list(range(1, RERANKED + 1))
    assert hits[: len(first)] == first
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_table_of_contents_comes_last(library: Library) -> None:
    library.put(6, "a", CONTENTS)
    found = _chunks(library.index(), "warpage ovens index")
    assert 600 in found and found[0] != 600


def test_a_table_of_contents_comes_last_even_if_it_is_the_best() -> None:
    library = Library()
    library.put(1, "a", CONTENTS, "An oven, mentioned once in a long text about something else.")
    hits = library.index().search("warpage ovens index", 10)
    assert hits[-1].chunk == 100 and hits[-1].score < 0 <= hits[0].score


def test_fusion_adds_shares_of_both_scores() -> None:
    fused = fuse({1: 4.0, 2: 3.0}, {2: 0.9, 3: 0.5, 4: 0.1})
    assert fused == pytest.approx({1: 0.75, 2: 0.75 * 0.75 + 0.25, 3: 0.25 * 0.5, 4: 0.0})
    # A collection whose vectors are not there yet does not come before one that has them.
    assert fuse({1: 4.0, 2: 3.0}, {}) == pytest.approx({1: 0.75, 2: 0.75 * 0.75})
    assert fuse({}, {5: 0.2}) == {5: pytest.approx(0.25)}
    assert fuse({}, {}) == {}


@pytest.mark.parametrize("has_vector", [True, False])
def test_every_hit_with_a_vector_has_its_similarity(monkeypatch: pytest.MonkeyPatch, has_vector: bool) -> None:
    monkeypatch.setattr(collection_index, "DEPTH", 1)
    library = Library()
    library.put(1, "a", "heat heat", vectors=has_vector)
    library.put(2, "a", "an oven")
    hits = {hit.chunk: (set(hit.ranks), hit.similarity) for hit in library.index().search("heat oven", 10)}
    assert hits == {100: ({"words"}, 0.0 if has_vector else None), 200: ({"vectors"}, 1.0)}


def test_vectors_by_id() -> None:
    index = VectorIndex()
    assert index.cosines(AXES[0], [1]) == {}
    assert index.search(AXES[0], 5) == []
    index.add([2**40, 7, 8], AXES[:3])
    assert index.search(AXES[0], 1) == [(2**40, 1.0)]
    index.add([7], AXES[:1])
    assert {one for one, cosine in index.search(AXES[0], 5) if cosine > 0.5} == {2**40, 7}
    assert [one for one, _ in index.search(AXES[0], 5, np.array([8, 99]))] == [8]
    index.remove([2**40, 12345])
    assert len(index) == 2 and 2**40 not in dict(index.search(AXES[0], 5))
    with pytest.raises(ValueError, match="shape"):
        index.add([1], np.ones((1, 3), np.float32))
    index.remove([7, 8])
    index.add([1], np.ones((1, 3), np.float32))  # another model's
    assert index.dimensions == 3


def test_searches_and_changes_at_once(library: Library) -> None:
    index = library.index()
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                if number == 0:
                    index.sync({1: "a"} if turn % 2 else {1: "a", 2: "a"})
                else:
                    assert 100 in _chunks(index, "oven")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
