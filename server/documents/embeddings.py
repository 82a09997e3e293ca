"""Vectors of texts for people's own programs, by the model that searches documents. They count as usage."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.documents.embedder import Embedder, EmbeddingError
from server.errors import DocumentsUnavailableError, InvalidRequestError, PromptTooLongError
from server.quotas.quotas import Quotas
from server.store.database import Database
from server.store.usage import Used, adding

if TYPE_CHECKING:
    import numpy as np

NAME = "hearth-embedding"
"""What requests call the model."""


class Embeddings:
    """Safe for any number of threads."""

    def __init__(self, embedder: Embedder, quotas: Quotas, database: Database) -> None:
        self._embedder = embedder
        self._quotas = quotas
        self._database = database

    def embed(
        self, inputs: Sequence[str | Sequence[int]], dimensions: int | None, owner: str, key: str
    ) -> "tuple[np.ndarray, int]":
        """A vector for each text, or for tokens as they are: float32 of shape (inputs, `dimensions`), each of length
        1; and the number of tokens. `dimensions`: the first ones alone; None: all. `owner` and `key`: whose usage
        it is.

        Raises `QuotaReachedError`, `DocumentsUnavailableError`, `StoreError`; `InvalidRequestError` and
        `PromptTooLongError` for an input or dimensions that the model has not.
        """
        import numpy as np

        self._quotas.check_tokens(owner, self._quotas.limits_of(owner))
        try:
            ids = [self._read(number, one) for number, one in enumerate(inputs)]
            if dimensions is not None and dimensions > self._embedder.dimensions:
                raise _invalid(f"The model's vectors have {self._embedder.dimensions} dimensions.", "dimensions")
            vectors = self._embedder.embed_tokens(ids)
        except EmbeddingError as error:
            raise DocumentsUnavailableError(str(error)) from error
        if dimensions is not None:
            vectors = vectors[:, :dimensions]
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        tokens = sum(map(len, ids))
        self._database.write(adding(Used(owner, key, NAME, tokens_processed=tokens)))
        return vectors, tokens

    def _read(self, number: int, given: str | Sequence[int]) -> list[int]:
        """The tokens of an input."""
        if isinstance(given, str) and not given:
            raise _invalid("A text without characters has no vector.", "input", number)
        ids = self._embedder.encode(given) if isinstance(given, str) else list(given)
        if len(ids) > self._embedder.longest:
            raise PromptTooLongError(
                f"Input {number} has {len(ids)} tokens, and the embedding model reads at most "
                f"{self._embedder.longest}. Send it in parts.",
                tokens=len(ids),
                limit=self._embedder.longest,
                details=[{"type": "too_long", "loc": ["input", number], "msg": "too long"}],
            )
        if wrong := [one for one in ids if one >= self._embedder.vocabulary]:
            raise _invalid(f"The embedding model has no token {wrong[0]}.", "input", number)
        return ids


def _invalid(message: str, *loc: str | int) -> InvalidRequestError:
    return InvalidRequestError(message, details=[{"type": "value_error", "loc": list(loc), "msg": message}])
