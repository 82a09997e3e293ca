"""The background model, for work that nothing waits for, such as titles and notes."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from server.errors import SchemaRefusedError
from server.models.resident import ResidentModels
from server.providers import RemoteModel
from server.runs import Run
from server.runs.fair_queue import FairQueue
from server.sdk import context

if TYPE_CHECKING:
    from server.engine import GuidedEngine

log = logging.getLogger(__name__)


class BackgroundModel:
    """The model of HEARTH_BACKGROUND_MODEL, which is connected on first use; without one, the resident model at the
    priority `batch`. Safe for any number of threads."""

    def __init__(self, reach: Callable[[], RemoteModel] | None, models: ResidentModels, queue: FairQueue) -> None:
        """`reach` connects the model; None: use the resident one."""
        self._reach = reach
        self._models = models
        self._queue = queue
        self._model: RemoteModel | None = None
        self._reaching = threading.Lock()
        self._closing = threading.Event()

    def complete(
        self,
        messages: list[dict[str, str]],
        *,
        workspace: str,
        max_tokens: int,
        schema: Mapping[str, Any] | None = None,
        words: str = "",
    ) -> str:
        """The assistant's next message, at most `max_tokens` long: free text, or JSON by `schema`. If the provider
        does not support schemas, the last message gets `words`, which ask for JSON, and the model may write something
        else.

        The resident model is used after a turn in the queue, and its usage counts for `workspace`. Raises
        `ModelNotLoadedError`, the errors of the connection and of the model, and `RunCancelledError` at shutdown.
        """
        with context.scope(cancelled=self._closing):
            if self._reach is not None:
                with self._reaching:
                    if self._model is None:
                        self._model = self._reach()
                return _complete(self._model, messages, max_tokens, schema, words)
            run = Run("", workspace, max_steps=0, priority="batch")
            with self._queue.take(run), self._models.use() as resident, context.scope(on_text=run.on_text):
                assert resident.engine is not None, "it is ready"
                return _complete(resident.engine, messages, max_tokens, schema, words)

    def close(self) -> None:
        """Refuse new work, and end what is running."""
        self._closing.set()


def _complete(
    model: "GuidedEngine | RemoteModel",
    messages: list[dict[str, str]],
    max_tokens: int,
    schema: Mapping[str, Any] | None,
    words: str,
) -> str:
    if schema is not None and isinstance(model, RemoteModel):
        if model.takes_schema:
            try:
                return model.complete(messages, max_tokens=max_tokens, schema=schema)
            except SchemaRefusedError as refused:
                log.warning("%s The prompt asks for JSON instead.", refused.message)
        *before, last = messages
        messages = [*before, {**last, "content": f"{last['content']}\n\n{words}"}]
        schema = None
    return model.complete(messages, max_tokens=max_tokens, schema=schema)
