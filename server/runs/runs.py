"""The runs in flight: how many there may be, and how they end when the server ends."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import QueueFullError, RunCancelledError, ShuttingDownError
from server.runs.run import Outcome, Run

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1
CANCEL_SECONDS = 5.0
"""How long a cancelled run may take to notice. Then the server ends without it: a tool that never returns."""


class Runs:
    """Admits runs up to a limit and knows each one until it ends. Safe for any number of threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_flight: dict[str, Run] = {}
        self._closing = False
        self._changed = threading.Condition()

    @contextmanager
    def admit(self, run: Run) -> Iterator[Run]:
        """`run` is in flight within this context, and has finished after it.

        Raises `QueueFullError` when the limit is reached and `ShuttingDownError` once `drain` has begun; also
        when the run was cancelled because of that.
        """
        with self._changed:
            if self._closing:
                raise ShuttingDownError("The server is shutting down and takes no new questions. Ask again later.")
            if len(self._in_flight) >= self._limit:
                raise QueueFullError(
                    f"{self._limit} questions are in flight, and that is as many as HEARTH_MAX_RUNS allows. "
                    "Ask again in a moment.",
                    retry_after=RETRY_AFTER_SECONDS,
                )
            self._in_flight[run.id] = run
        outcome: Outcome = "failed"
        try:
            yield run
            outcome = "done"
        except RunCancelledError as error:
            outcome = "cancelled"
            if self._closing:
                raise ShuttingDownError("The server shut down before the question was answered.") from error
            raise
        finally:
            with self._changed:
                run.finish(outcome)
                del self._in_flight[run.id]
                self._changed.notify_all()

    def in_flight(self) -> list[Run]:
        """Those that haven't ended, in the order of their arrival."""
        with self._changed:
            return list(self._in_flight.values())

    def drain(self, grace: float) -> bool:
        """Take no more runs, let those in flight finish for `grace` seconds, then cancel the rest.

        Returns whether all have ended.
        """
        with self._changed:
            self._closing = True
            if self._in_flight:
                log.info("waiting up to %.0f s for %d questions", grace, len(self._in_flight))
            self._wait_for_the_end(grace)
            for run in self._in_flight.values():
                log.warning("cancelling run %s", run.id)
                run.cancelled.set()
            return self._wait_for_the_end(CANCEL_SECONDS)

    def _wait_for_the_end(self, seconds: float) -> bool:
        return self._changed.wait_for(lambda: not self._in_flight, timeout=seconds)
