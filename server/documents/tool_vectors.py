"""How near tools are to a question, by the embedding model. Agents with many tools ask it."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from server.documents.embedder import Embedder, EmbeddingError
from server.documents.turn import Turn
from server.runs.run import Run
from server.sdk import context
from server.sessions.asked import Asked, read

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Maximum number of texts whose vectors are kept: 15 MB at 384 dimensions."""
AT_ONCE = 32
"""Texts between two looks at whether the run was cancelled; then somebody else may have the next ones."""


class _Compare(Asked):
    do: Literal["compare"]
    queries: Annotated[list[Annotated[str, Field(max_length=20_000)]], Field(min_length=1, max_length=4)]
    texts: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=REMEMBERED)]


_any_call: TypeAdapter[Any] = TypeAdapter(_Compare)


class ToolVectors:
    """Vectors of the texts of tools. A text is embedded when a question first needs it, which takes a second for some
    hundred, and is remembered: after a reload only changed tools are. Safe for any number of threads."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: OrderedDict[str, np.ndarray] = OrderedDict()
        self._changing = threading.Lock()
        self._embedding = Turn()
        self._is_unusable = False

    def do(self, given: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
        """The answer to a call. Raises `InvalidRequestError`, `RunCancelledError`."""
        call, _ = read(_any_call, given, run, "the tools")
        return {"similarities": self.similarities(call.queries, call.texts)}

    def similarities(self, queries: Sequence[str], texts: Sequence[str]) -> list[float] | None:
        """For each text the mean cosine of its vector and each query's. None: there is no embedding model, which is
        logged once. Raises `RunCancelledError`."""
        if self._is_unusable:
            return None
        try:
            vectors = self._of(texts)
            wanted = self._embedder.embed_queries([*map(_encodable, queries)]).mean(axis=0)
        except EmbeddingError as error:
            self._is_unusable = True
            log.warning("Tools are chosen by words alone until the server is started again: %s", error)
            return None
        return [round(float(vector @ wanted), 4) for vector in vectors]

    def _of(self, texts: Sequence[str]) -> "list[np.ndarray]":
        found = self._remembered(texts)
        missing = list(dict.fromkeys(text for text in texts if text not in found))
        for first in range(0, len(missing), AT_ONCE):
            context.check_cancelled()
            some = missing[first : first + AT_ONCE]
            # Two questions after a reload need the same vectors, and each makes some. Others need few, and must not
            # wait for thousands.
            with self._embedding.of():
                found |= self._remembered(some)
                fresh = [text for text in some if text not in found]
                if fresh:
                    made = dict(zip(fresh, self._embedder.embed([*map(_encodable, fresh)]), strict=True))
                    found |= made
                    self._remember(made)
        return [found[text] for text in texts]

    def _remembered(self, texts: Sequence[str]) -> "dict[str, np.ndarray]":
        """The vectors of those of the texts that have one."""
        with self._changing:
            found = {text: self._vectors[text] for text in texts if text in self._vectors}
            for text in found:
                self._vectors.move_to_end(text)
        return found

    def _remember(self, made: "Mapping[str, np.ndarray]") -> None:
        with self._changing:
            self._vectors.update(made)
            while len(self._vectors) > REMEMBERED:
                self._vectors.popitem(last=False)


def _encodable(text: str) -> str:
    """A text that tokenizers read: one of people's code may have half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()
