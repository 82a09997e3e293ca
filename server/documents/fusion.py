"""Several rankings made into one: reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

K = 60
"""The constant of the paper: how little the first places differ."""


def fuse(rankings: Mapping[str, Sequence[int]], weights: Mapping[str, float]) -> list[tuple[int, float]]:
    """Ids with their scores, the best first; equal ones as the first ranking has them.

    `rankings`: ids by the ranking's name, each the best first. `weights`: of the rankings; one that is missing is 1.
    """
    scores: dict[int, float] = defaultdict(float)
    for name, ranking in rankings.items():
        for place, one in enumerate(ranking, start=1):
            scores[one] += weights.get(name, 1.0) / (K + place)
    return sorted(scores.items(), key=lambda item: -item[1])
