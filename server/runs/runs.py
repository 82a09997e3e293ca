"""The runs in flight: their limit, their threads, and how they end at shutdown."""

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from server.bounds import characters
from server.errors import HearthError, QueueFullError, RunNotFoundError, ShuttingDownError, as_hearth_error
from server.observability import logs, metrics
from server.quotas.quotas import runs_reached
from server.runs.fair_queue import RESERVED_SHARE, FairQueue
from server.runs.record import AgentResult, answer_of
from server.runs.run import Run
from server.runs.trace import Trace
from server.sdk import context
from server.store.ownership import Owned

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

CANCEL_SECONDS = 5.0
"""Seconds for cancelled runs to end. Then the server stops without them: a tool may never return."""
NOTICE_SECONDS = 0.1
"""Interval of the checks for time limits."""
REMEMBERED = 256
"""Maximum number of ended runs whose events stay readable."""
REMEMBERED_CHARACTERS = 32_000_000
"""Maximum length of the texts of all of them; the last one stays in any case."""


class Runs:
    """Accepts runs up to a limit, and knows the last ones that have ended. Safe for any number of threads.

    Each run has a thread of its own, so that the client may disconnect, or stream its events.
    """

    def __init__(self, limit: int, at_once: int) -> None:
        """Up to `limit` runs in flight, of which `at_once` work at a time."""
        self.queue = FairQueue(at_once)
        self._limit = limit
        self._in_flight: dict[str, Run] = {}
        self._remembered: OrderedDict[str, tuple[Run, int]] = OrderedDict()
        self._remembered_size = 0
        self._written = 0
        self._changes = 0
        self._closing = False
        self._timekeeper: threading.Thread | None = None
        self._changed = threading.Condition()

    def begin(
        self, run: Run, work: Callable[[], AgentResult], save: Callable[[Run], None], most_own: int | None = None
    ) -> None:
        """Start `run` on a thread of its own, where `work` finds the answer. `save` is called before the answer is
        sent; if it raises, the answer says so. `most_own`: the maximum number of runs of its owner.

        Raises `QueueFullError` at the limit, `QuotaReachedError` at the owner's, and `ShuttingDownError` after
        `drain` has begun. Any later error becomes the run's `error`."""
        begun_by = logs.request_id.get(), context.current().span
        thread = threading.Thread(
            target=self._do, args=(run, work, save, *begun_by), name=f"run {run.id}", daemon=True
        )
        with self._changed:
            if self._closing:
                raise ShuttingDownError("The server is shutting down and takes no new questions. Ask again later.")
            own = sum(other.owner == run.owner for other in self._in_flight.values())
            if most_own is not None and own >= most_own:
                raise runs_reached(run.owner, most_own, own, self.queue.seconds_until(1))
            self._find_place(run)
            # Within the lock: if no thread can be started, the run was never in flight.
            if self._timekeeper is None:
                timekeeper = threading.Thread(target=self._stop_late, name="time limits", daemon=True)
                timekeeper.start()
                self._timekeeper = timekeeper
            thread.start()
            self._in_flight[run.id] = run
            self._changes += 1
            self._changed.notify_all()

    def _find_place(self, run: Run) -> None:
        places = f"{self._limit} questions are in flight, the maximum (HEARTH_MAX_RUNS)."
        taken, reserved = len(self._in_flight), 0
        if any(other.owner == run.owner for other in self._in_flight.values()):
            reserved = self._limit // RESERVED_SHARE
            places = (
                f"{taken} questions are in flight, some of them of {run.owner!r}, and the last "
                f"{reserved} of {self._limit} places (HEARTH_MAX_RUNS) are reserved for people without one."
            )
        missing = taken + 1 + reserved - self._limit
        if missing > 0:
            # Between the first free place and the end of all that are here, so that not all come back at once.
            soonest = self.queue.seconds_until(missing)
            seconds = random.randint(soonest, max(soonest, self.queue.seconds_until(taken)))
            raise QueueFullError(f"{places} Ask again in about {seconds} s.", retry_after=seconds)

    def _do(
        self,
        run: Run,
        work: Callable[[], AgentResult],
        save: Callable[[Run], None],
        request_id: str,
        span: "Span | None",
    ) -> None:
        logs.request_id.set(request_id)
        answer, error = None, None
        try:
            with context.scope(span=span):
                answer = answer_of(run, work())
            for step in answer["steps"][len(run.steps) :]:
                # An agent need not send its steps.
                run.add_step(step)
        except BaseException as raised:  # boundary: a run that does not end would hold its place for ever
            # A run that was stopped reports that reason, and not the error that its code raised then.
            answer = None
            error = None if run.cancelled.is_set() else _without_frames(as_hearth_error(raised))
        run.settle(answer, error)
        metrics.RUNS.labels(run.state).inc()
        try:
            save(run)
        except Exception as raised:  # boundary: the answer is worth more than its record
            reason = as_hearth_error(raised)
            log.error("run %s is not recorded: %s", run.id, reason.message)
            run.mark_not_recorded(reason)
        with self._changed:
            del self._in_flight[run.id]
            self._written += run.written
            # It is saved; what is remembered are the events.
            run.trace = Trace()
            self._remember(run)
            self._changes += 1
            self._changed.notify_all()
        run.publish_end()

    def _remember(self, run: Run) -> None:
        size = run.events.characters + characters([run.question, run.history, run.answer])
        self._remembered[run.id] = run, size
        self._remembered_size += size
        while len(self._remembered) > REMEMBERED or (
            self._remembered_size > REMEMBERED_CHARACTERS and len(self._remembered) > 1
        ):
            _, (_, size) = self._remembered.popitem(last=False)
            self._remembered_size -= size

    def _stop_late(self) -> None:
        """Stop runs whose time is up. On a thread of its own, since a run's thread may be waiting for the model."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._in_flight or self._closing)
                if not self._in_flight:
                    return
            for run in self.in_flight():
                run.stop_if_late()
            time.sleep(NOTICE_SECONDS)

    def in_flight(self) -> list[Run]:
        """The runs that have not ended, in the order of their arrival."""
        with self._changed:
            return list(self._in_flight.values())

    @property
    def written(self) -> int:
        """Tokens that all runs have written since the server's start."""
        with self._changed:
            return self._written + sum(run.written for run in self._in_flight.values())

    @property
    def changes(self) -> int:
        """How often a run has begun or ended since the server's start. A list that is read later has the change."""
        return self._changes

    def tokens_of(self, owner: str) -> int:
        """Tokens that the runs in flight of a person have used so far."""
        return sum(run.tokens_used for run in self.in_flight() if run.owner == owner)

    def get(self, run_id: str) -> Run:
        """A run in flight, or one of the last that have ended. Raises `RunNotFoundError`."""
        with self._changed:
            run = self._in_flight.get(run_id) or self._remembered.get(run_id, (None, 0))[0]
        if run is None:
            raise RunNotFoundError(
                f"The events of run {run_id!r} are not in memory: only those of the last {REMEMBERED} runs are. "
                f"GET /runs/{run_id} shows its record."
            )
        return run

    def owned(self, run_id: str) -> Owned | None:
        """Whose the run is; None if it is not in memory."""
        with self._changed:
            run = self._in_flight.get(run_id) or self._remembered.get(run_id, (None, 0))[0]
        return None if run is None else Owned(run.owner, run.workspace, run.session_id)

    def drain(self, grace: float) -> bool:
        """Accept no more runs, give those in flight `grace` seconds to finish, then cancel the rest.

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
    """`error` without its traceback, whose frames would keep the failed code in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
