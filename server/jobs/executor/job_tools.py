"""The agent's own tools for its jobs: wait, cancel, inspect. All answer with sentences that a model can read."""

import time
from collections.abc import Callable, Sequence
from typing import Literal

from langchain_core.tools import BaseTool
from pydantic import BaseModel, Field, PrivateAttr

from server.bounds import shortened
from server.jobs.executor.jobs import Job, Jobs, JobState

LONGEST_RESULT = 20_000
"""Characters of a result or a report in the agent's prompt."""

_INTERRUPTIONS = {
    "timeout": "The time is over",
    "user": "The wait was interrupted, because the user has written",
    "cancelled": "The wait was cancelled",
}


def describe_end(job: Job) -> str:
    """A sentence about a job that has ended."""
    text = shortened(job.text, LONGEST_RESULT)
    match job.state:
        case JobState.Succeeded:
            return f"Tool {job.tool} with job_id {job.job_id} finished: {text}"
        case JobState.Failed:
            return f"Tool {job.tool} with job_id {job.job_id} failed: {text}"
    return f"Tool {job.tool} with job_id {job.job_id} was cancelled."


def describe(job: Job) -> str:
    """A sentence about a job."""
    if job.state.is_end:
        return describe_end(job)
    seconds = time.time() - job.started
    last = f" Its last report: {shortened(job.reports[-1], LONGEST_RESULT)}" if job.reports else ""
    return f"Tool {job.tool} with job_id {job.job_id} is {job.state.value}, for {seconds:.0f} seconds.{last}"


class JobTool(BaseTool):
    """A tool that needs the executor's jobs. The executor connects it."""

    _jobs: Jobs | None = PrivateAttr(None)
    _interruption: Callable[[], str | None] | None = PrivateAttr(None)

    def connect(self, jobs: Jobs, interruption: Callable[[], str | None]) -> None:
        """`interruption()`: why a wait has to end, `user` or `cancelled`; None if it has not."""
        self._jobs, self._interruption = jobs, interruption

    @property
    def _connected(self) -> Jobs:
        if self._jobs is None:
            raise RuntimeError(f"The tool {self.name} works only in an executor.")
        return self._jobs

    def _unknown(self, job_ids: Sequence[str]) -> str | None:
        """A sentence about the names that no job has, if there are any."""
        jobs = self._connected
        unknown = [name for name in job_ids if jobs.get(name) is None]
        if not unknown:
            return None
        known = ", ".join(job.job_id for job in jobs.all())
        return f"There is no job {', '.join(unknown)}. " + (
            f"The jobs are: {known}." if known else "There are no jobs."
        )


class WaitInput(BaseModel):
    """Input of `WaitTool`."""

    job_ids: list[str] | str = Field(description="names of jobs")
    mode: Literal["all", "any"] = Field("all", description="wait until all of them, or any of them, have ended")
    timeout: float | None = Field(None, ge=0, description="seconds to wait at most")


class WaitTool(JobTool):
    """Waits for jobs."""

    name: str = "_Wait"
    description: str = "Wait until background jobs have ended, and read their results."
    args_schema: type[BaseModel] = WaitInput

    def _run(
        self, job_ids: list[str] | str, mode: Literal["all", "any"] = "all", timeout: float | None = None
    ) -> str:
        names = list(dict.fromkeys([job_ids] if isinstance(job_ids, str) else job_ids))
        if not names:
            return "Name the jobs to wait for."
        if (problem := self._unknown(names)) is not None:
            return problem
        reason = self._connected.wait(names, mode, timeout, self._interruption or (lambda: None))
        found = [job for name in names if (job := self._connected.get(name)) is not None]
        sentences = [describe(job) for job in found]
        if reason is not None:
            sentences.insert(0, f"{_INTERRUPTIONS[reason]}. The system tells you when a running job ends.")
        return "\n".join(sentences)


class CancelInput(BaseModel):
    """Input of `CancelTool`."""

    job_id: str = Field(description="name of a job")


class CancelTool(JobTool):
    """Cancels a job. When it returns, nothing of the job is left."""

    name: str = "_Cancel"
    description: str = "Cancel a background job."
    args_schema: type[BaseModel] = CancelInput

    def _run(self, job_id: str) -> str:
        job = self._connected.get(job_id)
        if job is None:
            return self._unknown([job_id]) or ""
        had_ended = job.state.is_end
        self._connected.cancel([job])
        self._connected.claim_report(job)
        if had_ended or job.state is not JobState.Cancelled:
            return f"It had already ended. {describe_end(job)}"
        return describe_end(job)


class StatusInput(BaseModel):
    """Input of `StatusTool`."""

    job_id: str | None = Field(None, description="name of a job; without it, all jobs")


class StatusTool(JobTool):
    """Says what jobs do."""

    name: str = "_Status"
    description: str = "Read the state and the last report of a background job, or of all jobs."
    args_schema: type[BaseModel] = StatusInput

    def _run(self, job_id: str | None = None) -> str:
        if job_id is None:
            return "\n".join(describe(job) for job in self._connected.all()) or "There are no jobs."
        job = self._connected.get(job_id)
        return describe(job) if job is not None else self._unknown([job_id]) or ""
