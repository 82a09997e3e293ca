"""Cutting texts into passages of the length that the embedding model reads."""

from server.documents.chunks import TOKENS, VERSION, Chunk, chunks_of
from server.documents.embedder import Embedder, EmbeddingError
from server.documents.text import Text

SHARE = 0.8
"""Of what the model reads. The rest is for what stands above a passage."""
CHARACTERS_A_TOKEN = 4
"""Without a model, about as many as in English."""

WITHOUT_MODEL = f"{VERSION}-characters"


class Chunking:
    """Cuts texts. Safe for any number of threads."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def name(self) -> str:
        """What it is called: texts that were cut by another one are cut again. Raises `EmbeddingError`."""
        return f"{VERSION}-{self._tokens()}"

    def current(self) -> str:
        """The same; without the model, what cuts without it."""
        try:
            return self.name
        except EmbeddingError:
            return WITHOUT_MODEL

    def of(self, text: Text) -> tuple[str, list[Chunk]]:
        """The name of what cuts, and the passages. Without the model, characters are counted: they are found by words
        alone. Raises `IngestFailedError`."""
        try:
            tokens = self._tokens()
            return f"{VERSION}-{tokens}", chunks_of(text, self._embedder.count_tokens, tokens)
        except EmbeddingError:
            return WITHOUT_MODEL, chunks_of(text, _count_characters)

    def _tokens(self) -> int:
        return min(TOKENS, int(self._embedder.window * SHARE))


def _count_characters(text: str) -> int:
    return 1 + len(text) // CHARACTERS_A_TOKEN
