"""Group commit: small changes share transactions, so that one commit serves many."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from server.errors import StoreError, StoreRefusedError

MOST_WAITING = 2048
"""More than HEARTH_MAX_RUNS. Only a database that does not answer lets so many accumulate."""

Change = Callable[[Connection], None]


class GroupWriter:
    """Runs the changes of any number of threads in their order, on a thread of its own. All changes that arrive
    during a transaction share the next one.

    A refused change does not affect the others of its transaction.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[Connection]], patience: float) -> None:
        """`patience`: the maximum wait in seconds, also if the database never answers."""
        self._transaction = transaction
        self._patience = patience
        self._waiting: list[tuple[Change, Future[None]]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def write(self, change: Change) -> None:
        """Wait until `change` is committed. Raises what it raises, and `StoreError`."""
        done: Future[None] = Future()
        with self._changed:
            if self._closed:
                raise StoreError("The server has ended, and nothing more is saved.")
            if len(self._waiting) >= MOST_WAITING:
                raise StoreError(f"The database does not answer, and {MOST_WAITING} changes wait for it already.")
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="store", daemon=True)
                try:
                    thread.start()
                except RuntimeError as reason:
                    raise StoreError(f"Nothing can be saved now: {reason}.") from None
                self._thread = thread
            self._waiting.append((change, done))
            self._changed.notify_all()
        try:
            error = done.exception(self._patience)
        except TimeoutError:
            outcome = "is not saved" if done.cancel() else "may be saved later, or not"
            raise StoreError(
                f"The database has not answered for {self._patience:g} s. The change {outcome}."
            ) from None
        if error is not None:
            # A copy, since others may wait for the same transaction.
            raise copy.copy(error)

    def close(self) -> None:
        """Commit waiting changes, and accept no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(self._patience)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                group, self._waiting = self._waiting, []
            if not group:
                return
            self._keep(group)

    def _keep(self, group: list[tuple[Change, "Future[None]"]]) -> None:
        begun = []
        try:
            with self._transaction() as connection:
                # Only now, because the wait for the database may be longer than the callers' timeout.
                begun = [one for one in group if _begins(one[1])]
                for change, _ in begun:
                    change(connection)
        except Exception as error:  # boundary: the caller gets the error
            database_fails = isinstance(error, StoreError) and not isinstance(error, StoreRefusedError)
            if len(group) == 1 or database_fails:
                for _, done in group:
                    if _begins(done):
                        done.set_exception(error)
            else:
                for one in begun:
                    self._keep([one])
        else:
            for _, done in begun:
                done.set_result(None)


def _begins(done: Future[None]) -> bool:
    """Whether somebody still waits for it, and so can't give it up any more; or it has begun already."""
    return done.running() or (not done.cancelled() and done.set_running_or_notify_cancel())
