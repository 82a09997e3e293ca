"""All jobs of the server: accepted, started when there is a place, waited for, cancelled, ended.

Promised: see docs/design/jobs.md. What one job does is in `process.py`, what agents
ask for in `calls.py`, and what follows an end in `wakes.py`. Over 400 lines, because one lock guards the queue, the
running jobs and those who wait for them.
"""

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import coolname

from constants import Settings
from server.errors import (
    HearthError,
    JobEndedError,
    QueueFullError,
    ShuttingDownError,
    StoreError,
    StoreRefusedError,
    as_hearth_error,
)
from server.jobs.job import Job, State
from server.jobs.process import NodeLostError, RunningJob, described
from server.jobs.queue import JobQueue
from server.jobs.ray_cluster import RayCluster
from server.observability import metrics, tracing
from server.observability import semantic_conventions as names
from server.quotas.quotas import Quotas, check_jobs
from server.reload import Workspaces
from server.runs.events import Events
from server.runs.fair_queue import FairQueue
from server.sdk.tool_error import ToolFailedError
from server.store.jobs import JobStore
from server.store.usage import Used, adding

log = logging.getLogger(__name__)

PERSONS_SHARE = 4
"""One person may have a quarter of the waiting jobs."""
NOTE_SECONDS = 1.0
"""Interval at which progress and logs of running jobs are saved."""
NOTICE_SECONDS = 0.1
"""Interval at which one that waits looks whether it was cancelled."""
RETRY_SECONDS = 1.0
"""Pause before an end that could not be saved is tried again."""
END_SECONDS = 15.0
"""Maximum time for the processes of a job to end after they were killed."""
MOST_TRIES = 3
"""Maximum number of times that an idempotent job is started on a node that is lost then."""
REMEMBERED = 64
"""Maximum number of ended jobs whose events stay readable."""
RESERVED_SHARE = 8
"""One eighth of the places is reserved for people without a running job."""


class Jobs:
    """Safe for any number of threads. No job starts before `open`."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        workspaces: Workspaces,
        queue: FairQueue,
        quotas: Quotas,
        cluster: RayCluster | None = None,
    ) -> None:
        """`queue`: where the jobs' model calls wait. `cluster`: where jobs run; None: on this machine."""
        self._settings = settings
        self._store = store
        self._workspaces = workspaces
        self._queue = queue
        self._quotas = quotas
        self._cluster = cluster
        self._waiting = JobQueue()
        self._starting: set[tuple[str, object]] = set()
        """Owners of jobs that are being saved, before they wait."""
        self._running: dict[str, RunningJob] = {}
        self._remembered: OrderedDict[str, Events] = OrderedDict()
        """Of ended jobs."""
        self._followed: WeakValueDictionary[str, Events] = WeakValueDictionary()
        """Of queued jobs that somebody follows."""
        self._listeners: list[Callable[[Job, bool], object]] = []
        self._changes = 0
        self._closing = False
        self._changed = threading.Condition()

    def on_change(self, call: Callable[[Job, bool], object]) -> None:
        """Let `call` get each job whose state has changed, and, with True, whose progress has. It is called in any
        thread, and must not wait."""
        self._listeners.append(call)

    def settle(self) -> None:
        """Take over what an earlier server has left: its queued jobs wait, and its running ones are lost or wait
        again. A database that does not answer is logged."""
        try:
            left = self._store.left_over()
            for job in left:
                if job.state == "queued":
                    self._waiting.put(job)
                else:
                    self._settle(job)
        except StoreError as error:
            log.error("the jobs of the last server are left as they were: %s", error.message)

    def open(self) -> None:
        """Begin to start jobs."""
        for name, work in (("jobs", self._dispatch), ("notes on jobs", self._note)):
            threading.Thread(target=work, name=name, daemon=True).start()

    def _settle(self, job: Job) -> None:
        """A job that ran when the server ended: its processes are gone, since their guards have seen that end."""
        if job.idempotent:
            if self._store.requeue(job.id):
                self._waiting.put(replace(job, state="queued"))
            return
        message = "The server ended while the job ran. Start it again with POST /jobs/<id>/retry."
        self._store.end(job, ["running"], "lost", error={"type": "lost", "message": message})

    # Starting

    def start(self, job: Job, at_once: bool = False) -> Job:
        """Accept a job, whose `id` is ignored. Returns it with its name. `at_once`: it waits for no place, since
        somebody waits for it.

        Raises `QuotaReachedError`, `QueueFullError`, `ShuttingDownError`, `StoreError`.
        """
        limits = self._quotas.limits_of(job.owner)
        self._quotas.check_tokens(job.owner, limits)
        with self._changed:
            if self._closing:
                raise ShuttingDownError("The server is shutting down and takes no new jobs. Ask again later.")
            check_jobs(job.owner, limits.jobs_at_once, self._count(job.owner))
            if not at_once:
                self._check_room(job.owner)
            place = (job.owner, object())
            self._starting.add(place)
        try:
            return self._start(job, at_once, place)
        finally:
            with self._changed:
                self._starting.discard(place)

    def _count(self, owner: str) -> int:
        """The jobs of a person that have not ended. With the lock held."""
        running = sum(one.job.owner == owner for one in self._running.values())
        return running + self._waiting.of(owner) + sum(one == owner for one, _ in self._starting)

    def _start(self, job: Job, at_once: bool, place: tuple[str, object]) -> Job:
        """Save a job and let it wait, or begin: then it leaves its `place` among those that start."""
        while True:
            job = replace(
                job,
                id=coolname.generate_slug(2),
                state="queued",
                created=time.time(),
                traceparent=tracing.traceparent(),
            )
            try:
                self._store.add(job)
                break
            except StoreRefusedError:
                if not self._is_taken(job.id):
                    raise
        self._tell(job)
        with self._changed:
            self._starting.discard(place)
            if not at_once:
                self._waiting.put(job)
                self._changed.notify_all()
                return job
            try:
                self._begin(job, stays_here=True)  # its caller waits
                return job
            except RuntimeError as error:  # no thread can be started now
                reason = QueueFullError(f"The job can't be started now: {error}. Ask again later.", retry_after=10)
        self._store.end(job, ["queued"], "failed", error=described(reason))
        raise reason

    def _check_room(self, owner: str) -> None:
        most = self._settings.MAX_QUEUED_JOBS
        own = max(most // PERSONS_SHARE, 1)
        for number, limit, whose in (
            (len(self._waiting), most, ""),
            (self._waiting.of(owner), own, f" of {owner!r}"),
        ):
            if number >= limit:
                raise QueueFullError(
                    f"{number} jobs{whose} wait, the maximum (HEARTH_MAX_QUEUED_JOBS is {most}, a quarter of them a "
                    "person). Wait for some, or cancel them.",
                    retry_after=10,
                )

    def _is_taken(self, name: str) -> bool:
        try:
            self._store.get(name)
        except HearthError:
            return False
        return True

    def retry(self, job_id: str) -> Job:
        """Start an ended job anew, with the same code and input. Raises `JobNotFoundError`, `JobEndedError` if it has
        not ended, and what `start` raises."""
        job = self.get(job_id)
        if not job.has_ended:
            raise JobEndedError(f"The job {job_id} is {job.state}. Only one that has ended can be started again.")
        return self.start(
            replace(
                job,
                retry_of=job.id,
                tries=0,
                started=None,
                ended=None,
                progress=None,
                result=None,
                error=None,
            )
        )

    # Showing

    def counts(self) -> dict[str, int]:
        """How many jobs are queued, and how many run."""
        with self._changed:
            return {"queued": len(self._waiting), "running": len(self._running)}

    def tokens_of(self, owner: str) -> int:
        """Tokens of the model that the running jobs of a person have used so far."""
        with self._changed:
            runs = [one.run for one in self._running.values() if one.job.owner == owner]
        return sum(run.tokens_used for run in runs)

    @property
    def changes(self) -> int:
        """How often a job has begun to wait or to run, or has ended, since the server's start. It grows when that is
        saved. A list that is read later has the change."""
        return self._changes

    def get(self, job_id: str) -> Job:
        """A job as it is now. Raises `JobNotFoundError`."""
        return self._with_progress(self._store.get(job_id))

    def latest(self, limit: int, **filters: Any) -> list[Job]:
        """See `JobStore.latest`."""
        return [self._with_progress(job) for job in self._store.latest(limit, **filters)]

    def log(self, job_id: str) -> str:
        """What a job has printed. Raises `JobNotFoundError`."""
        running = self._running.get(job_id)
        return self._store.log(job_id) if running is None else running.log.text()

    def events(self, job_id: str) -> Events:
        """The events of a job; of one that has ended long ago, only the last one. Raises `JobNotFoundError`."""
        with self._changed:
            running = self._running.get(job_id)
            found = running.events if running is not None else self._remembered.get(job_id)
            # Before the job is read: it may begin or end right after.
            events = found or self._followed.setdefault(job_id, Events(last=("end",), text="log"))
        if found is None:
            job = self._store.get(job_id)
            events.publish("end" if job.has_ended else "state", job.shown())
        return events

    def _with_progress(self, job: Job) -> Job:
        running = self._running.get(job.id)
        return job if running is None or job.has_ended else replace(job, progress=running.progress)

    # Waiting and cancelling

    def wait(
        self,
        job_ids: Sequence[str],
        *,
        mode: str = "all",
        seconds: float,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Job]:
        """Wait until all of the jobs have ended (`mode` `any`: one of them), or for so many `seconds`, or until
        `is_cancelled`. Returns the jobs as they are then. Raises `JobNotFoundError`."""
        deadline = time.monotonic() + seconds
        enough = all if mode == "all" else any
        for job_id in job_ids:
            self._store.get(job_id)
        with self._changed:
            while not enough(self._has_ended(job_id) for job_id in job_ids):
                left = deadline - time.monotonic()
                if left <= 0 or is_cancelled() or self._closing:
                    break
                self._changed.wait(min(left, NOTICE_SECONDS))
        return [self.get(job_id) for job_id in job_ids]

    def _has_ended(self, job_id: str) -> bool:
        """With the lock held. Of a job of another server, only the database knows."""
        if job_id in self._running or job_id in self._waiting:
            return False
        return self._store.get(job_id).has_ended

    def cancel(self, job_id: str) -> Job:
        """Cancel a job, and wait until nothing of it is left, at most `END_SECONDS` after the grace. Returns it as it
        is then.

        Raises `JobNotFoundError`, and `JobEndedError` if it has ended.
        """
        while True:
            with self._changed:
                running = self._running.get(job_id)
                waited = running is None and self._waiting.remove(job_id)
            if running is not None:
                running.stop("it was cancelled", self._settings.JOB_GRACE)
                running.ended.wait(self._settings.JOB_GRACE + END_SECONDS)
                return self.get(job_id)
            job = self.get(job_id)
            if waited:
                self._cancel_queued(job)
                return self.get(job_id)
            if job.has_ended:
                raise JobEndedError(f"The job {job_id} has ended already: it is {job.state}.")
            if job.state == "running":
                raise JobEndedError(f"The job {job_id} runs in another server. Cancel it there.")
            with self._changed:
                # Its row is saved, and it is not in the queue yet: `start` notifies.
                self._changed.wait(NOTICE_SECONDS)

    def _cancel_queued(self, job: Job) -> None:
        """Cancel a job that was taken out of the queue. If that can't be saved, it waits again."""
        try:
            if not self._store.end(job, ["queued"], "cancelled"):
                return
        except StoreError:
            with self._changed:
                self._waiting.put(job)
                self._changed.notify_all()
            raise
        metrics.JOBS.labels("cancelled").inc()
        ended = self.get(job.id)
        with self._changed:
            events = self._followed.get(job.id)
        if events is not None:
            events.publish("end", ended.shown())
        self._has_changed(ended)

    # The dispatcher

    def _dispatch(self) -> None:
        """Start jobs while there are places. On a thread of its own."""
        while True:
            with self._changed:
                job = None
                while job is None:
                    if self._closing:
                        return
                    job = self._next()
                    if job is None:
                        self._changed.wait()
                try:
                    self._begin(job)
                except RuntimeError as error:  # no thread can be started now
                    log.warning("the job %s waits: %s", job.id, error)
                    self._waiting.put(job)
                    self._changed.wait(RETRY_SECONDS)

    def _next(self) -> Job | None:
        """The next job, if there is a place for it. With the lock held."""
        places, running = self._settings.MAX_JOBS, Counter(one.job.owner for one in self._running.values())
        if len(self._running) >= places:
            return None
        return self._waiting.take(running, only_new=len(self._running) >= places - places // RESERVED_SHARE)

    def _begin(self, job: Job, stays_here: bool = False) -> None:
        """Run a job on a thread of its own. With the lock held. Raises `RuntimeError` if there can be none."""
        running = RunningJob(job, self._followed.get(job.id), stays_here or self._cluster is None, stays_here)
        threading.Thread(target=self._run, args=(running,), name=f"job {job.id}", daemon=True).start()
        self._running[job.id] = running

    def _run(self, running: RunningJob) -> None:
        """Run a job to its end. On a thread of its own."""
        job = running.job
        result: str | None = None
        error: dict[str, Any] | None = None
        state: State = "failed"
        lost = False
        if not self._until_saved(running, lambda: self._store.start(job.id)):
            # Another server has cancelled it, or this one ends and the database does not answer.
            self._leave(running, self._read(job))
            return
        try:
            running.job = job = replace(job, state="running", tries=job.tries + 1, started=time.time())
            running.events.publish("state", job.shown())
            self._tell(job)
            about = {names.JOB: job.id, names.WORKSPACE: job.workspace, names.GENERATION: job.generation}
            with tracing.caused(f"job {job.tool}", about, job.traceparent, running.is_awaited):
                result = running.call(self._workspaces, self._queue, None if running.stays_here else self._cluster)
            state = "succeeded"
        except NodeLostError as raised:
            lost, (state, error) = True, self._lost(running, raised)
        except (HearthError, ToolFailedError) as raised:
            error = described(raised)
        except Exception as raised:  # boundary: the thread's end; a job that does not end would hold its place
            error = described(as_hearth_error(raised))
        finally:
            # One that was stopped while its node was lost is lost: what is left of it there, nobody knows.
            if running.stopping is not None and (self._closing or not lost):
                state, result, error = self._stopped(running)
            self._end(running, state, result, error)

    def _lost(self, running: RunningJob, raised: NodeLostError) -> tuple[State, dict[str, Any] | None]:
        """The state of a job whose node was lost."""
        if running.job.idempotent and running.job.tries < MOST_TRIES and running.stopping is None:
            log.warning("the job %s is queued again: %s", running.job.id, raised)
            return "queued", None
        message = f"Its node was lost while the job ran: {raised}. Start it again with POST /jobs/<id>/retry."
        return "lost", {"type": "lost", "message": message}

    def _stopped(self, running: RunningJob) -> tuple[State, None, dict[str, Any] | None]:
        if not self._closing:
            return "cancelled", None, None
        if running.job.idempotent:
            return "queued", None, None
        message = "The server was shut down while the job ran. Start it again with POST /jobs/<id>/retry."
        return "lost", None, {"type": "lost", "message": message}

    def _end(self, running: RunningJob, state: State, result: str | None, error: Mapping[str, Any] | None) -> None:
        """Save the end of a job, whose processes are gone, and then tell it."""
        job = running.job

        used = Used(
            job.owner,
            model=job.model or "",
            tokens_processed=running.run.tokens_used,
            tokens_written=running.run.written,
            job_seconds=0.0 if job.started is None else max(time.time() - job.started, 0.0),
        )

        def save() -> bool:
            if state == "queued":
                return self._store.requeue(job.id)
            return self._store.end(
                job,
                ["queued", "running"],
                state,
                result=result,
                error=error,
                log=running.log.text(),
                progress=running.progress,
                also=[adding(used)],
            )

        if self._until_saved(running, save):
            metrics.JOBS.labels(state).inc()
        self._leave(running, self._read(job))

    def _leave(self, running: RunningJob, job: Job) -> None:
        """Tell that a job runs no more."""
        with self._changed:
            is_again = job.state == "queued" and not self._closing
            self._running.pop(job.id, None)
            if is_again:
                self._followed[job.id] = running.events
                self._waiting.put(job)
            else:
                self._remembered[job.id] = running.events
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        running.events.publish("state" if is_again else "end", job.shown())
        self._has_changed(job)
        running.ended.set()

    def _read(self, job: Job) -> Job:
        try:
            return self._store.get(job.id)
        except StoreError as error:
            log.warning("the job %s can't be read: %s", job.id, error.message)
            return job

    def _until_saved(self, running: RunningJob, save: Callable[[], bool]) -> bool:
        """Try `save` until the database answers. Returns its result, and False if the server ends before."""
        while True:
            try:
                return save()
            except StoreError as error:
                log.warning("the state of the job %s can't be saved: %s", running.job.id, error.message)
                with self._changed:
                    if self._changed.wait_for(lambda: self._closing, RETRY_SECONDS):
                        return False

    def _note(self) -> None:
        """Save progress and logs of running jobs now and then. On a thread of its own."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, NOTE_SECONDS):
                    return
                news = [running for running in self._running.values() if running.has_news]
            for running in news:
                running.has_news = False
                if running.progress is not None:
                    self._tell(replace(running.job, progress=running.progress), is_progress=True)
            if news:
                try:
                    self._store.note({one.job.id: (one.progress, one.log.text()) for one in news})
                except StoreError as error:
                    log.warning("the progress of jobs is not saved: %s", error.message)

    def _has_changed(self, job: Job) -> None:
        with self._changed:
            self._changed.notify_all()
        self._tell(job)

    def _tell(self, job: Job, is_progress: bool = False) -> None:
        if not is_progress:
            with self._changed:
                self._changes += 1
        for call in self._listeners:
            try:
                call(job, is_progress)
            except Exception:  # boundary: what listens must not stop a job
                log.exception("a listener of jobs failed")

    # The end

    def close(self) -> None:
        """Start no more jobs, and stop those that run. Waits for a few seconds at most."""
        with self._changed:
            self._closing = True
            running = list(self._running.values())
            self._changed.notify_all()
        for one in running:
            one.stop("the server ends", 1.0)
        deadline = time.monotonic() + 5.0
        for one in running:
            one.ended.wait(max(deadline - time.monotonic(), 0.0))
        if self._cluster is not None:
            self._cluster.close()
