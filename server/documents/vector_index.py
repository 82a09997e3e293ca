"""Search by vectors: faiss, exact, in memory.

faiss is imported at the first vector, and never in a process that is forked later: it hangs there (faiss#5206).
"""

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np


class VectorIndex:
    """Vectors of length 1 by id. Not safe for threads: `CollectionIndex` has the lock."""

    def __init__(self) -> None:
        self._index: Any = None
        self._ids: set[int] = set()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def dimensions(self) -> int | None:
        """The length of its vectors; None: it had none yet."""
        return None if self._index is None else int(self._index.d)

    def add(self, ids: Iterable[int], vectors: np.ndarray) -> None:
        """Add vectors, float32 of shape (number of ids, dimensions); an id that is there gets the new one. Raises
        `ValueError` for another shape than that of the others."""
        import faiss

        given = np.fromiter(ids, dtype=np.int64)
        if vectors.ndim != 2 or len(vectors) != len(given) or self.dimensions not in (None, vectors.shape[1]):
            raise ValueError(
                f"{len(given)} vectors have the shape {vectors.shape}; the others' length is {self.dimensions}."
            )
        if not len(given):
            return
        self.remove(given.tolist())
        if self._index is None:
            self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), given)
        self._ids.update(given.tolist())

    def remove(self, ids: Iterable[int]) -> None:
        """Remove vectors; ids that are not there are ignored."""
        if gone := self._ids.intersection(ids):
            self._index.remove_ids(np.fromiter(gone, dtype=np.int64))
            self._ids -= gone
            if not self._ids:
                self._index = None  # the next vectors may be another model's, and of another length

    def cosines(self, vector: np.ndarray, ids: Iterable[int]) -> dict[int, float]:
        """The cosines of `vector` and those of `ids` that have a vector."""
        return {one: float(self._index.reconstruct(one) @ vector) for one in self._ids.intersection(ids)}

    def search(self, vector: np.ndarray, limit: int, allowed: np.ndarray | None = None) -> list[tuple[int, float]]:
        """The ids of the `limit` vectors nearest to `vector`, with their cosines, the nearest first. `allowed`: the
        only ids to find; None: all."""
        if not self._ids or limit < 1 or (allowed is not None and not len(allowed)):
            return []
        faiss: Any = importlib.import_module("faiss")  # its types lack the arguments
        # One thread: the resident model needs the others. The number is that of the calling thread.
        faiss.omp_set_num_threads(1)
        only = None
        if allowed is not None:
            only = faiss.SearchParameters(sel=faiss.IDSelectorBatch(np.ascontiguousarray(allowed, dtype=np.int64)))
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        cosines, found = self._index.search(query, min(limit, len(self._ids)), params=only)
        return [(int(one), float(cosine)) for one, cosine in zip(found[0], cosines[0], strict=True) if one >= 0]
