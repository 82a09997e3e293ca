"""Ranking the best passages again, by a model that reads query and passage together."""

from collections.abc import Sequence
from typing import Protocol


class Reranker(Protocol):
    """Says how well each text answers a query."""

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """A score for each text; a higher one is better. Only the order has a meaning."""
