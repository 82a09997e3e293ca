"""What a model adds to notepads, when the answers have gone out."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from server.errors import HearthError, ShuttingDownError
from server.runs import Run
from server.sessions.entry import entry_of
from server.store import SessionStore

log = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Entries; of those that come while so many wait no more is made than is in them."""
LONGEST = {"title": 200, "found": 2000}
"""What a model may write of an entry, in characters."""
_SECONDS = 60.0
_TOKENS = 2048

Write = Callable[[Run, Mapping[str, Any]], Any]


class NoteTaker:
    """Has one entry after the other written, in the order of their turns. Nobody waits for it, and what fails leaves
    an entry as it is."""

    def __init__(self, store: SessionStore, write: Write) -> None:
        """`write` has a model write what there is to add to the entry of a record, in the turn of a run."""
        self._store = store
        self._write = write
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(MOST_WAITING)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._run: Run | None = None
        self._closed = False

    def add(self, record: dict[str, Any]) -> None:
        """A turn was kept, the one of that run."""
        with self._starting:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="notes", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            log.warning("%d notes wait to be written; that of run %s stays short", MOST_WAITING, record["run_id"])

    def close(self) -> None:
        """Begin no more, and let go of what is under way."""
        with self._starting:
            self._closed = True
            run = self._run
        if run is not None:
            run.stop(ShuttingDownError("The server is shutting down."))

    def _work(self) -> None:
        while True:
            record = self._waiting.get()
            entry = entry_of(record)
            run = Run(record["question"], record["workspace"], 0, priority="batch")
            run.max_tokens, run.timeout = _TOKENS, _SECONDS
            with self._starting:
                if self._closed:
                    return
                self._run = run
            try:
                written = self._write(run, record)
                self._store.improve_entry(record["run_id"], entry, {**entry, **_checked(written)})
            except HearthError as error:
                log.info("the note of run %s stays as it is: %s", record["run_id"], error.message)
            except BaseException:  # boundary: what writes is reloadable code
                log.warning("the note of run %s stays as it is", record["run_id"], exc_info=True)


def _checked(written: Any) -> dict[str, str]:
    """What reloadable code gave, as far as it fits an entry."""
    if not isinstance(written, Mapping):
        raise TypeError(f"a note is a dict with {', '.join(LONGEST)}, and not {type(written).__name__}")
    fits = {name: str(written[name])[:longest] for name, longest in LONGEST.items() if written.get(name)}
    return {name: " ".join(text.split()) for name, text in fits.items()}
