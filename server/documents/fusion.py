"""Two searches made into one: a convex combination of their scores (Bruch, Gai and Ingber, ACM TOIS 2023,
https://doi.org/10.1145/3596512)."""

from collections.abc import Mapping

WORDS_SHARE = 0.75
"""What the search by words counts, of 1; the rest is the search by vectors. Tuned on every other question of
benchmarks/retrieval_set.py, with the others in view; benchmarks/RESULTS.md has both halves."""


def fuse(words: Mapping[int, float], cosines: Mapping[int, float]) -> dict[int, float]:
    """A score from 0 to 1 for each id. `words`: scores by words, above 0. `cosines`: of vectors and the query's.

    The best by words counts 1, and no word 0; the best by vectors counts 1, and the last of those given 0, like all
    others.
    """
    by_words, by_vectors = _scaled(words, 0.0), _scaled(cosines, min(cosines.values(), default=0.0))
    return {
        one: WORDS_SHARE * by_words.get(one, 0.0) + (1 - WORDS_SHARE) * by_vectors.get(one, 0.0)
        for one in {**words, **cosines}
    }


def _scaled(scores: Mapping[int, float], lowest: float) -> dict[int, float]:
    """The scores, so that `lowest` is 0 and the highest 1."""
    width = max(scores.values(), default=lowest) - lowest
    return {one: (score - lowest) / width if width > 0 else 1.0 for one, score in scores.items()}
