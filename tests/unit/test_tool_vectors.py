"""The vectors of tools' texts, by the packaged embedding model: nobody waits for the many texts of somebody else."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from server.documents.embedder import Embedder
from server.documents.tool_vectors import ToolVectors
from server.errors import RunCancelledError
from server.sdk import context

if TYPE_CHECKING:
    import numpy as np

MANY = [
    f"Tool {number} measures the temperature of the reactor and returns it in degrees. " * 3 for number in range(300)
]
FEW = ["Weigh a sample.", "Open the valve of the gas line.", "Plot a spectrum."]


class Watched(Embedder):
    """Says when it has begun, and what it has embedded."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> "np.ndarray":
        self.began.set()
        self.embedded += texts
        return super().embed(texts)


@pytest.fixture
def embedder() -> Watched:
    made = Watched()
    made.embed_query("loads the model")
    return made


def beside_many(embedder: Watched, many: Callable[[], object], few: Callable[[], object]) -> list[str]:
    """In which order the two end; `few` begins later."""
    ended: list[str] = []

    def run(name: str, work: Callable[[], object]) -> None:
        work()
        ended.append(name)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, "many", many)
        assert embedder.began.wait(60)
        pool.submit(run, "few", few).result(60)
        first.result(60)
    return ended


def test_few_texts_do_not_wait_for_many(embedder: Watched) -> None:
    vectors, cancelled = ToolVectors(embedder), threading.Event()

    def many() -> None:
        with context.scope(cancelled=cancelled), pytest.raises(RunCancelledError):
            vectors.similarities(["How hot is it?"], MANY)

    def few() -> None:
        similarities = vectors.similarities(["Is the gas on?"], FEW)
        assert similarities is not None and max(similarities) == similarities[1]
        cancelled.set()

    assert beside_many(embedder, many, few) == ["few", "many"]


def test_a_few_passages_do_not_wait_for_a_large_document(embedder: Watched) -> None:
    passages = MANY[:80]
    assert beside_many(embedder, lambda: embedder.embed(passages), lambda: embedder.embed(FEW)) == ["few", "many"]


def test_a_text_is_embedded_once(embedder: Watched) -> None:
    vectors, texts = ToolVectors(embedder), FEW * 30 + MANY[:40]
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda query: vectors.similarities([query], texts), ["Is it hot?", "Is it hot?"])
    assert one == two and one is not None and len(one) == len(texts)
    assert sorted(embedder.embedded) == sorted({*texts})


def test_several_queries_count_as_their_mean(embedder: Watched) -> None:
    vectors = ToolVectors(embedder)
    queries = ["Is the gas on?", "How hot is it?"]
    single = [vectors.similarities([query], FEW) for query in queries]
    both = vectors.similarities(queries, FEW)
    assert both is not None and None not in single
    means = [sum(pair) / 2 for pair in zip(*filter(None, single), strict=True)]
    assert both == pytest.approx(means, abs=2e-4)
