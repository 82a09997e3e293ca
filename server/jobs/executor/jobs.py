"""All jobs of an executor: starting, following, waiting, cancelling."""

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import coolname
from langchain_core.tools import BaseTool

from server.jobs.executor import wire
from server.jobs.executor.global_context import SharedValues
from server.jobs.executor.job_process import Order
from server.jobs.executor.process import JobProcess
from server.jobs.executor.tools import SentTool, sendable

log = logging.getLogger(__name__)

REPORTS = 100
"""How many of a job's last reports are saved."""
SAVED_JOBS = 1000
"""How many jobs are remembered; above that, the oldest that have ended are forgotten."""
GUARD_SECONDS = 0.5
"""How much longer than the grace period a cancelled job may take before its guard is killed."""


class TooManyJobsError(Exception):
    """The maximum number of jobs is running."""


class JobState(StrEnum):
    """Where a job is. It has exactly one of the last three states, and never leaves it."""

    Starting = "starting"
    Running = "running"
    Succeeded = "succeeded"
    Failed = "failed"
    Cancelled = "cancelled"

    @property
    def is_end(self) -> bool:
        return self in (JobState.Succeeded, JobState.Failed, JobState.Cancelled)


@dataclass
class Job:
    """One call of a background tool. Others than `Jobs` only read it."""

    job_id: str
    tool: str
    tool_input: str | dict[str, Any]
    state: JobState = JobState.Starting
    result: Any = None
    """The tool's result, as JSON, if it succeeded."""
    text: str = ""
    """The result as the model reads it, or the error."""
    traceback: str = ""
    reports: deque[str] = field(default_factory=lambda: deque(maxlen=REPORTS))
    pid: int | None = None
    """The tool's process; also the name of its session and its process group."""
    started: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    ended: float | None = None
    reported: bool = False
    """The agent knows how it ended."""
    cancelling: bool = False
    _outcome: JobState | None = None
    _process: JobProcess | None = None
    _thread: threading.Thread | None = None


class Jobs:
    """The jobs. One lock guards all of them; one thread follows each.

    `on_start(job)` is called before the job starts, with the lock. `on_report(job, text)` and `on_end(job)` are
    called in the job's thread, without it. `on_end` is called once a job, after its end was recorded.
    """

    def __init__(
        self,
        values: SharedValues,
        grace_seconds: float,
        max_jobs: int,
        on_start: Callable[[Job], None],
        on_report: Callable[[Job, str], None],
        on_end: Callable[[Job], None],
    ) -> None:
        self._values = values
        self._grace_seconds = grace_seconds
        self._max_jobs = max_jobs
        self._on_start = on_start
        self._on_report = on_report
        self._on_end = on_end
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}

    def start(self, tool: BaseTool, tool_input: str | dict[str, Any], is_over: Callable[[], bool]) -> Job | None:
        """Start a job, and return at once. None if `is_over()`: the turn that wanted it has been abandoned.

        Raises `ToolNotSendableError`, `TooManyJobsError`, and `TypeError` for input that is not JSON.
        """
        sent = sendable(tool)
        json.dumps(tool_input)
        with self._changed:
            if is_over():
                return None
            running = [job for job in self._jobs.values() if not job.state.is_end]
            if len(running) >= self._max_jobs:
                raise TooManyJobsError(f"{len(running)} jobs are running, which is the maximum. Wait, or cancel one.")
            self._trim()
            job = Job(self._new_name(), tool.name, tool_input)
            self._jobs[job.job_id] = job
            self._on_start(job)
            job._thread = threading.Thread(
                target=self._follow, args=(job, sent), name=f"job {job.job_id}", daemon=True
            )
            job._thread.start()
        return job

    def get(self, job_id: str) -> Job | None:
        """The job of this name."""
        with self._changed:
            return self._jobs.get(job_id)

    def all(self) -> list[Job]:
        """All jobs, the oldest first."""
        with self._changed:
            return list(self._jobs.values())

    def forget(self) -> None:
        """Forget the jobs that have ended."""
        with self._changed:
            self._jobs = {name: job for name, job in self._jobs.items() if not job.state.is_end}

    def wait(
        self,
        job_ids: Sequence[str],
        mode: Literal["all", "any"],
        timeout: float | None,
        interruption: Callable[[], str | None],
    ) -> str | None:
        """Wait until all or any of these jobs have ended. Returns None then; else why not: `timeout`, or what
        `interruption()` returns, which is asked again after each `wake`. Those that have ended count as reported."""
        with self._changed:
            jobs = [self._jobs[name] for name in job_ids]
            enough = all if mode == "all" else any
            reason: str | None = None

            def is_over() -> bool:
                nonlocal reason
                if enough(job.state.is_end for job in jobs):
                    return True
                reason = interruption()
                return reason is not None

            if not self._changed.wait_for(is_over, timeout):
                reason = "timeout"
            for job in jobs:
                job.reported = job.reported or job.state.is_end
            return reason

    def wake(self) -> None:
        """Let each wait ask again whether it is interrupted."""
        with self._changed:
            self._changed.notify_all()

    def claim_report(self, job: Job) -> bool:
        """Whether the caller has to report to the agent how the job ended; true once a job."""
        with self._changed:
            claimed, job.reported = not job.reported, True
            return claimed

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End these jobs, and wait until nothing of them is left. A job that had a result before stays succeeded."""
        with self._changed:
            for job in jobs:
                if not job.state.is_end and not job.cancelling:
                    job.cancelling = True
                    if job._process is not None:
                        job._process.cancel()
        seconds = self._grace_seconds + GUARD_SECONDS
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: all(job.state.is_end for job in jobs), seconds):
                    return
                for job in jobs:
                    if not job.state.is_end and job._process is not None:
                        job._process.kill()
            seconds = GUARD_SECONDS

    def cancel_all(self) -> None:
        """End all jobs, and wait until neither a process nor a thread of them is left."""
        jobs = self.all()
        self.cancel(jobs)
        for job in jobs:
            if job._thread is not None and job._thread is not threading.current_thread():
                job._thread.join()

    def _trim(self) -> None:
        ended = [name for name, job in self._jobs.items() if job.state.is_end]
        for name in ended[: max(0, len(self._jobs) - SAVED_JOBS + 1)]:
            del self._jobs[name]

    def _new_name(self) -> str:
        for words in (*(2,) * 20, *(3,) * 20):
            name: str = coolname.generate_slug(words)
            if name not in self._jobs:
                return name
        return f"{coolname.generate_slug(2)}-{len(self._jobs)}"

    # The rest is executed in the job's own thread.

    def _follow(self, job: Job, sent: SentTool) -> None:
        problem: str | None
        try:
            process = None if job.cancelling else JobProcess(self._order(job, sent))
        except Exception as error:  # boundary: starting a process may fail in many ways
            log.exception("Job %s can't be started", job.job_id)
            process, problem = None, f"its process can't be started: {type(error).__name__}: {error}"
        else:
            problem = None
        if process is not None:
            with self._changed:
                job._process = process
                if job.cancelling:
                    process.cancel()
            problem = self._read(job, process)
        with self._changed:
            job._process = None
            job.state = self._end_state(job, problem)
            job.ended = time.time()
            self._changed.notify_all()
        self._on_end(job)

    def _order(self, job: Job, sent: SentTool) -> Order:
        try:
            folder: str | None = os.getcwd()
        except OSError:  # it was deleted
            folder = None
        return Order(job.job_id, sent, job.tool_input, self._grace_seconds, dict(os.environ), folder)

    def _read(self, job: Job, process: JobProcess) -> str | None:
        """Read all messages. Returns why there can be no result, if so."""
        broken: str | None = None
        while True:
            try:
                for message in process.messages():
                    if broken is None:
                        self._take(job, process, message)
                break
            except wire.WireError as error:
                broken = broken or str(error)
                process.cancel()
        end = process.end()
        return broken or end.problem

    def _take(self, job: Job, process: JobProcess, message: wire.FromJob) -> None:
        match message:
            case wire.Started() if job.pid is None:
                with self._changed:
                    job.pid, job.state = message.pid, JobState.Running
                    self._changed.notify_all()
            case wire.Report():
                job.reports.append(message.text)
                self._on_report(job, message.text)
            case wire.Ask():
                try:
                    reply: dict[str, Any] = {"reply": self._values.execute(message.request)}
                except (TypeError, ValueError) as error:
                    reply = {"type_error": str(error)}
                process.send(wire.line(reply))
            case wire.Result() | wire.Failure():
                self._conclude(job, message)

    def _conclude(self, job: Job, message: wire.Result | wire.Failure) -> None:
        """Record what the tool has returned or raised. The job ends when its process was reaped."""
        with self._changed:
            if job.cancelling or job._outcome is not None:
                return
            if isinstance(message, wire.Result):
                job._outcome, job.result, job.text = JobState.Succeeded, message.value, message.text
            else:
                job._outcome, job.text, job.traceback = JobState.Failed, message.error, message.traceback

    def _end_state(self, job: Job, problem: str | None) -> JobState:
        if job._outcome is not None:
            return job._outcome
        if job.cancelling:
            return JobState.Cancelled
        job.text = problem or "its process ended without a result"
        return JobState.Failed
