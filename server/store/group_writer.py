"""Small changes that share transactions, so that the price of a commit is paid once for many."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from server.errors import StoreError, StoreRefusedError

MOST_WAITING = 2048
"""More than there may be runs (HEARTH_MAX_RUNS): only behind a database that does not answer so many gather."""

Change = Callable[[Connection], None]


class GroupWriter:
    """Does what any number of threads hand it, in the order in which it came, on one thread of its own. All that came
    while a transaction was under way share the next one.

    A change that is refused does not keep the others of its transaction from being kept.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[Connection]], patience: float) -> None:
        """`patience`: the longest that anybody waits, in seconds, also when the database never comes back."""
        self._transaction = transaction
        self._patience = patience
        self._waiting: list[tuple[Change, Future[None]]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def write(self, change: Change) -> None:
        """Wait until `change` is kept. Raises what it raises, and `StoreError`."""
        done: Future[None] = Future()
        with self._changed:
            if self._closed:
                raise StoreError("The server has ended, and nothing more is kept.")
            if len(self._waiting) >= MOST_WAITING:
                raise StoreError(f"The database does not answer, and {MOST_WAITING} changes wait for it already.")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="store", daemon=True)
                self._thread.start()
            self._waiting.append((change, done))
            self._changed.notify_all()
        try:
            error = done.exception(self._patience)
        except TimeoutError:
            outcome = "is not kept" if done.cancel() else "may be kept later, or not"
            raise StoreError(
                f"The database has not answered for {self._patience:g} s. What was to be kept {outcome}."
            ) from None
        if error is not None:
            # A copy, since others may wait for the same transaction.
            raise copy.copy(error)

    def close(self) -> None:
        """Keep what is waiting, and take nothing more."""
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
                # Only now, since a database may be waited for for longer than anybody waits for this.
                begun = [one for one in group if _begins(one[1])]
                for change, _ in begun:
                    change(connection)
        except Exception as error:  # boundary: whoever waits is told
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
