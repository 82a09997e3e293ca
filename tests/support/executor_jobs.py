"""Jobs without an agent, and what is left of their processes."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
from langchain_core.tools import BaseTool

from server.jobs.executor.global_context import GlobalContext, SharedValues
from server.jobs.executor.jobs import Job, Jobs

SECONDS = 30
GRACE = 1.0


class RecordedJobs(Jobs):
    """Jobs that remember how often each has ended, and what it has reported."""

    def __init__(self, grace_seconds: float = GRACE, max_jobs: int = 64) -> None:
        values = SharedValues()
        self.context = GlobalContext(values.execute)
        self.ends: Counter[str] = Counter()
        self.states_at_end: dict[str, str] = {}
        self.reports: list[str] = []
        self.pids: set[int] = set()
        self._news = threading.Condition()
        super().__init__(values, grace_seconds, max_jobs, lambda job: None, self._record_report, self._record_end)

    def run(self, tool: BaseTool, **tool_input: Any) -> Job:
        job = self.start(tool, tool_input, lambda: False)
        assert job is not None
        return job

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            self._changed.notify_all()
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, what
            with self._changed:
                self._changed.wait(0.01)

    def wait_for_end(self, *jobs: Job) -> None:
        """Also until it was reported."""
        assert self.wait([job.job_id for job in jobs], "all", SECONDS, lambda: None) is None
        for job in jobs:
            assert job._thread is not None
            job._thread.join(SECONDS)

    def wait_for_report(self, count: int = 1) -> str:
        self.wait_until(lambda: len(self.reports) >= count, "no report")
        return self.reports[-1]

    def _record_report(self, job: Job, text: str) -> None:
        self.reports.append(text)

    def _record_end(self, job: Job) -> None:
        self.ends[job.job_id] += 1
        self.states_at_end[job.job_id] = job.state.value
        if job.pid is not None:
            assert not is_alive(job.pid), "the end was reported before the process was reaped"
            self.pids.add(job.pid)


def is_alive(pid: int) -> bool:
    """Whether a process exists that has not ended."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def processes_of_jobs() -> list[psutil.Process]:
    """Everything below this process's fork server: guards, tools' processes, and what they have started."""
    found = []
    for child in psutil.Process().children():
        if "multiprocessing.forkserver" in " ".join(child.cmdline()):
            found += [one for one in child.children(recursive=True) if is_alive(one.pid)]
    return found
