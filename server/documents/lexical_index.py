"""Search by words: BM25 over segments, with bm25s.

bm25s has no incremental add, so the index consists of segments, as Lucene's does: new texts are a segment of their
own, and small segments are merged into larger ones. A term's rarity is that of the whole collection, so the scores of
different segments compare; the average length is the segment's own. Removed texts are not found from the next search
on, and still count for the rarity until their segment is merged, as in Lucene.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from server.documents.words import query_words, words

K1, B = 1.5, 0.75
"""BM25's constants, as in bm25s: how soon a repeated word counts no more, and how much a text's length counts."""
MERGED_AT_ONCE = 4
"""Number of segments of about one size that are merged into one."""


class LexicalIndex:
    """Texts by id, searched by words. Not safe for threads: `CollectionIndex` has the lock."""

    def __init__(self) -> None:
        self._term_ids: dict[str, int] = {}
        self._segments: list[_Segment] = []
        self._frequencies: Counter[int] = Counter()
        self._places: dict[int, tuple[_Segment, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, texts: Mapping[int, str]) -> None:
        """Add texts by id; one that is there is replaced."""
        self.remove(texts)
        if texts:
            self._append(_Segment(list(texts), [self._terms_of(text) for text in texts.values()]))
            self._merge()

    def remove(self, ids: Iterable[int]) -> None:
        """Remove texts; ids that are not there are ignored."""
        for one in ids:
            if (place := self._places.pop(one, None)) is not None:
                place[0].remove(place[1])
        self._merge()

    def search(self, query: str, limit: int, allowed: np.ndarray | None = None) -> list[tuple[int, float]]:
        """The ids of at most `limit` texts that have a word of `query`, with their scores, the best first; equal ones
        by id. `allowed`: the only ids to find; None: all."""
        asked = Counter(stem for word in query_words(query) if (stem := self._term_ids.get(_stem(word))) is not None)
        weights = {term: self._rarity(term) * count for term, count in asked.items()}
        ids, scores = [], []
        for segment in self._segments:
            found = segment.scores(weights, allowed)
            positive = np.flatnonzero(found > 0)
            if len(positive) > limit:
                positive = positive[np.argpartition(-found[positive], limit - 1)[:limit]]
            ids.append(segment.ids[positive])
            scores.append(found[positive])
        if not ids:
            return []
        all_ids, all_scores = np.concatenate(ids), np.concatenate(scores)
        order = np.lexsort((all_ids, -all_scores))[:limit]
        return [(int(all_ids[place]), float(all_scores[place])) for place in order]

    def _terms_of(self, text: str) -> np.ndarray:
        terms = self._term_ids
        return np.array([terms.setdefault(_stem(word), len(terms)) for word in words(text)], dtype=np.int32)

    def _rarity(self, term: int) -> float:
        """Lucene's inverse document frequency."""
        total, having = sum(len(one.ids) for one in self._segments), self._frequencies[term]
        return math.log(1 + (total - having + 0.5) / (having + 0.5))

    def _append(self, segment: "_Segment") -> None:
        self._segments.append(segment)
        self._frequencies.update(segment.frequencies)
        self._places.update((int(one), (segment, row)) for row, one in enumerate(segment.ids))

    def _merge(self) -> None:
        """Merge segments of about one size, and those that have lost half of their texts."""
        for one in [segment for segment in self._segments if segment.live <= len(segment.ids) // 2]:
            self._replace([one])
        while alike := self._alike():
            self._replace(alike)

    def _alike(self) -> "list[_Segment] | None":
        sizes: dict[int, list[_Segment]] = {}
        for segment in self._segments:
            sizes.setdefault(int(math.log(segment.live, MERGED_AT_ONCE)), []).append(segment)
        return next((same for same in sizes.values() if len(same) >= MERGED_AT_ONCE), None)

    def _replace(self, segments: "list[_Segment]") -> None:
        for one in segments:
            self._segments.remove(one)
            self._frequencies.subtract(one.frequencies)
        self._frequencies = +self._frequencies
        kept = [(int(one.ids[row]), one.terms[row]) for one in segments for row in np.flatnonzero(~one.removed)]
        if kept:
            self._append(_Segment([one for one, _ in kept], [terms for _, terms in kept]))


class _Segment:
    """Texts that were indexed together."""

    def __init__(self, ids: Sequence[int], terms: list[np.ndarray]) -> None:
        """`terms`: of each text, in its order."""
        self.ids = np.array(ids, dtype=np.int64)
        self.terms = terms
        self.removed = np.zeros(len(ids), dtype=bool)
        self.live = len(ids)
        lengths = [len(one) for one in terms]
        self._vocabulary, own = np.unique(np.concatenate(terms), return_inverse=True)
        texts = [part.tolist() for part in np.split(own, np.cumsum(lengths)[:-1])]
        scored = self._index(texts)
        self._starts, self._rows, self._scores = scored["indptr"], scored["indices"], scored["data"]
        counts = np.diff(self._starts[: len(self._vocabulary) + 1])
        self.frequencies = dict(zip(self._vocabulary.tolist(), counts.tolist(), strict=True))
        # bm25s multiplies by the rarity of its own texts; the index multiplies by that of the whole collection.
        rarity = np.log(1 + (len(ids) - counts + 0.5) / (counts + 0.5))
        self._scores = (self._scores / np.repeat(rarity, counts)).astype(np.float32)

    def _index(self, texts: list[list[int]]) -> dict[str, Any]:
        if len(self._vocabulary) == 0:  # bm25s fails on texts without words
            return {
                "indptr": np.zeros(1, np.int64),
                "indices": np.zeros(0, np.int32),
                "data": np.zeros(0, np.float32),
            }
        index = _bm25(k1=K1, b=B, method="lucene")
        scored: dict[str, Any] = index.build_index_from_ids(range(len(self._vocabulary)), texts, show_progress=False)
        return scored

    def remove(self, row: int) -> None:
        self.removed[row] = True
        self.live -= 1

    def scores(self, weights: Mapping[int, float], allowed: np.ndarray | None) -> np.ndarray:
        """The score of each text; 0 for those that are removed or not allowed. `weights`: of the query's terms."""
        scores = np.zeros(len(self.ids), dtype=np.float32)
        for term, weight in weights.items():
            place = int(np.searchsorted(self._vocabulary, term))
            if place < len(self._vocabulary) and self._vocabulary[place] == term:
                span = slice(self._starts[place], self._starts[place + 1])
                scores[self._rows[span]] += self._scores[span] * weight  # a term has a text once
        scores[self.removed] = 0
        if allowed is not None:
            scores[~np.isin(self.ids, allowed)] = 0
        return scores


def _bm25(**constants: Any) -> Any:
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # importing it sets DEBUG
    return bm25s.BM25(**constants)


@lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    """The English stem of a word in small letters. Words with digits or marks stay as they are."""
    return str(_stemmer().stemWord(word)) if word.isalpha() else word


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("english", 0)  # without its own cache, which is not safe for threads
