"""The runs in flight: how many there may be, and how they end when the server ends."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from server.errors import HearthError, QueueFullError, RunNotFoundError, ShuttingDownError, known
from server.observability import logs, metrics
from server.runs.fair_queue import Turns
from server.runs.record import AgentResult, answer_of
from server.runs.run import Run

log = logging.getLogger(__name__)

CANCEL_SECONDS = 5.0
"""How long a cancelled run may take to notice. Then the server ends without it: a tool that never returns."""
NOTICE_SECONDS = 0.1
"""How soon it is noticed that a run is out of time."""
REMEMBERED = 256
"""Runs that have ended whose events can still be read."""
KEPT_FREE = 8
"""Of the places for runs, an eighth is kept for people who have none in flight, so that nobody fills them all."""


class Runs:
    """Admits runs up to a limit, and knows each one until it ends and a while longer. Safe for any number of threads.

    Each run has a thread of its own, so that whoever asked may leave, or read along.
    """

    def __init__(self, limit: int, at_once: int, keep: Callable[[Run], None]) -> None:
        """Up to `limit` in flight, of which `at_once` have a turn. `keep` is called with every run that has ended,
        before anybody is told its answer; where it raises, that is told with the answer."""
        self.turns = Turns(at_once)
        self._limit = limit
        self._keep = keep
        self._in_flight: dict[str, Run] = {}
        self._remembered: OrderedDict[str, Run] = OrderedDict()
        self._closing = False
        self._timekeeper: threading.Thread | None = None
        self._changed = threading.Condition()

    def begin(self, run: Run, work: Callable[[], AgentResult]) -> None:
        """Let `work` find the answer of `run`, on a thread of its own.

        Raises `QueueFullError` when the limit is reached and `ShuttingDownError` once `drain` has begun. All that
        goes wrong later is the run's `error`.
        """
        thread = threading.Thread(
            target=self._do, args=(run, work, logs.request_id.get()), name=f"run {run.id}", daemon=True
        )
        with self._changed:
            if self._closing:
                raise ShuttingDownError("The server is shutting down and takes no new questions. Ask again later.")
            self._find_place(run)
            # With the lock held: should there be no thread for it, it was never in flight.
            thread.start()
            self._in_flight[run.id] = run
            if self._timekeeper is None:
                self._timekeeper = threading.Thread(target=self._stop_late, name="time limits", daemon=True)
                self._timekeeper.start()
            self._changed.notify_all()

    def _find_place(self, run: Run) -> None:
        places = f"{self._limit} questions are in flight, and that is as many as HEARTH_MAX_RUNS allows."
        taken, kept_free = len(self._in_flight), 0
        if any(other.workspace == run.workspace for other in self._in_flight.values()):
            kept_free = self._limit // KEPT_FREE
            places = (
                f"{taken} questions are in flight, some of the workspace {run.workspace!r} among them, and the last "
                f"{kept_free} of {self._limit} places (HEARTH_MAX_RUNS) are kept for people who have none in flight."
            )
        missing = taken + 1 + kept_free - self._limit
        if missing > 0:
            seconds = self.turns.seconds_until(missing)
            raise QueueFullError(f"{places} Ask again in about {seconds} s.", retry_after=seconds)

    def _do(self, run: Run, work: Callable[[], AgentResult], request_id: str) -> None:
        logs.request_id.set(request_id)
        answer, error = None, None
        try:
            answer = answer_of(run, work())
            for step in answer["steps"][len(run.steps) :]:
                # An agent need not send its steps.
                run.did_step(step)
        except BaseException as raised:  # boundary: a run that did not end would keep its place for ever
            # Of one that was stopped the reason is told, and not how its code took it.
            answer = None
            error = None if run.cancelled.is_set() else _without_frames(known(raised))
        run.settle(answer, error)
        metrics.RUNS.labels(run.state).inc()
        try:
            self._keep(run)
        except Exception as raised:  # boundary: the answer is worth more than its record
            reason = known(raised)
            log.error("run %s is not recorded: %s", run.id, reason.message)
            run.is_not_recorded(reason)
        with self._changed:
            del self._in_flight[run.id]
            self._remembered[run.id] = run
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
            self._changed.notify_all()
        run.tell_the_end()

    def _stop_late(self) -> None:
        """Let runs end whose time is up. On a thread of its own: a run's may be waiting for the model."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._in_flight or self._closing)
                if not self._in_flight:
                    return
            for run in self.in_flight():
                run.stop_if_late()
            time.sleep(NOTICE_SECONDS)

    def in_flight(self) -> list[Run]:
        """Those that haven't ended, in the order of their arrival."""
        with self._changed:
            return list(self._in_flight.values())

    def get(self, run_id: str) -> Run:
        """A run that is in flight, or one of the last that have ended. Raises `RunNotFoundError`."""
        with self._changed:
            run = self._in_flight.get(run_id) or self._remembered.get(run_id)
        if run is None:
            raise RunNotFoundError(
                f"The events of run {run_id!r} are not known: those of the last {REMEMBERED} runs are. "
                f"GET /runs/{run_id} tells what came of it."
            )
        return run

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
                run.stop(ShuttingDownError("The server shut down before the question was answered."))
            return self._wait_for_the_end(CANCEL_SECONDS)

    def _wait_for_the_end(self, seconds: float) -> bool:
        return self._changed.wait_for(lambda: not self._in_flight, timeout=seconds)


def _without_frames(error: HearthError) -> HearthError:
    """`error` as one that may be kept: its traceback would hold the code that failed."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
