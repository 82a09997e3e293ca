"""A background thread in which a model adds to notepads, after the answers are sent."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from server.errors import HearthError
from server.sessions.entry import entry_of
from server.store import SessionStore

log = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Maximum number of waiting entries. The model adds nothing to entries beyond that."""
LONGEST = {"title": 200, "found": 2000}
"""Maximum length of the model's texts in an entry, in characters."""


class NoteTaker:
    """Improves one entry after the other, in the order of their exchanges. Nothing waits for it. If it fails, the
    entry stays as it is."""

    def __init__(self, store: SessionStore, write: Callable[[Mapping[str, Any]], Any]) -> None:
        """`write` returns the model's texts for the entry of a run's record."""
        self._store = store
        self._write = write
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(MOST_WAITING)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def add(self, record: dict[str, Any]) -> None:
        """The exchange of that run was saved: improve its entry."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="notes", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            log.warning(
                "%d notes wait to be written; nothing is added to that of run %s", MOST_WAITING, record["run_id"]
            )

    def close(self) -> None:
        """Start no more entries."""
        self._closing.set()

    def _work(self) -> None:
        while True:
            record = self._waiting.get()
            if self._closing.is_set():
                return
            try:
                self._improve(record)
            except HearthError as error:
                log.info("nothing is added to the note of run %s: %s", record["run_id"], error.message)
            except Exception:  # boundary: the thread's end
                log.warning("nothing is added to the note of run %s", record["run_id"], exc_info=True)

    def _improve(self, record: dict[str, Any]) -> None:
        written = self._write(record)
        entry = entry_of(record)
        self._store.improve_entry(record["run_id"], entry, {**entry, **_checked(written)})


def _checked(written: Any) -> dict[str, str]:
    """The result of reloadable code, reduced to what an entry accepts."""
    if not isinstance(written, Mapping):
        raise TypeError(f"a note is a dict with {', '.join(LONGEST)}, and not {type(written).__name__}")
    fits = {name: str(written[name])[:longest] for name, longest in LONGEST.items() if written.get(name)}
    return {name: " ".join(text.split()) for name, text in fits.items()}
