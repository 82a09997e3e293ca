"""What agents, tools and jobs ask of jobs and of the values that they share, over the worker's channel."""

import logging
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from constants import Settings
from server.bounds import shortened
from server.errors import InvalidRequestError, JobNotFoundError, RunCancelledError
from server.jobs.job import Job
from server.jobs.jobs import Jobs
from server.runs.run import Run
from server.sdk import context
from server.sessions.asked import Asked, read
from server.store.shared_values import SharedValues

log = logging.getLogger(__name__)

MOST_NAMED = 64
"""Maximum number of a session's jobs that its agent knows by name: the latest ones."""

Name = Annotated[str, Field(min_length=1, max_length=200)]
Key = Annotated[str, Field(min_length=1, max_length=200)]


class _Start(Asked):
    """Start a job; `in_background`: its end wakes the session, and otherwise the caller waits for it."""

    do: Literal["start"]
    tool: Name
    input: dict[str, Any]
    in_background: bool
    idempotent: bool = False


class _Wait(Asked):
    do: Literal["wait"]
    jobs: Annotated[list[Name], Field(min_length=1, max_length=MOST_NAMED)]
    mode: Literal["all", "any"]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Cancel(Asked):
    do: Literal["cancel"]
    job: Name


class _Status(Asked):
    do: Literal["status"]
    job: Name | None = None


class _Get(Asked):
    do: Literal["get"]
    key: Key


class _Set(Asked):
    do: Literal["set"]
    key: Key
    value: Any


class _Increment(Asked):
    do: Literal["increment"]
    key: Key
    by: Annotated[float, Field(allow_inf_nan=False)] | int


class _Replace(Asked):
    """Set a value if it is still `was`."""

    do: Literal["replace"]
    key: Key
    was: Any
    value: Any


_any_call: TypeAdapter[Any] = TypeAdapter(
    Annotated[_Start | _Wait | _Cancel | _Status | _Get | _Set | _Increment | _Replace, Field(discriminator="do")]
)


class JobCalls:
    """What a run asks of jobs and shared values. A run may ask for the jobs of its session, or, without a session,
    for those that it has started. Safe for any number of threads."""

    def __init__(self, settings: Settings, jobs: Callable[[], Jobs], values: SharedValues) -> None:
        self._settings = settings
        self._jobs = jobs
        self._values = values

    def do(self, given: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
        """The answer to a call. Raises `InvalidRequestError`, and what `Jobs` and `SharedValues` raise."""
        call, run = read(_any_call, given, run, "jobs and shared values")
        match call:
            case _Start():
                return self._start(call, run)
            case _Wait():
                return {"jobs": self._wait(call, run)}
            case _Cancel():
                return self._cancel(call, run)
            case _Status():
                return {"jobs": self._status(call, run)}
        return self._share(call, run)

    # Jobs

    def _start(self, call: _Start, run: Run) -> dict[str, Any]:
        assert run.generation is not None, "its code asks"
        longest = self._settings.JOB_TIMEOUT
        jobs = self._jobs()
        job = jobs.start(
            Job(
                id="",
                workspace=run.workspace,
                owner=run.owner,
                generation=run.generation,
                tool=call.tool,
                input=call.input,
                timeout=longest,
                session_id=run.session_id,
                wakes=call.in_background and run.session_id is not None,
                run_id=run.id,
                agent=run.agent,
                model=run.model,
                idempotent=call.idempotent,
            ),
            at_once=not call.in_background,
        )
        if call.in_background:
            return {"job": job.id}
        ended = jobs.wait([job.id], seconds=longest, is_cancelled=_is_cancelled)[0]
        if not ended.has_ended:
            jobs.cancel(job.id)
            raise RunCancelledError("The run was cancelled before its tool had a result.")
        return _for_model(ended)

    def _wait(self, call: _Wait, run: Run) -> list[dict[str, Any]]:
        for name in call.jobs:
            self._own(name, run)
        found = self._jobs().wait(call.jobs, mode=call.mode, seconds=call.seconds, is_cancelled=_is_cancelled)
        return [self._reported(job, run) for job in found]

    def _cancel(self, call: _Cancel, run: Run) -> dict[str, Any]:
        self._own(call.job, run)
        return self._reported(self._jobs().cancel(call.job), run)

    def _status(self, call: _Status, run: Run) -> list[dict[str, Any]]:
        found = self._known(run) if call.job is None else [self._own(call.job, run)]
        return [self._reported(job, run) for job in found]

    def names(self, run: Run) -> list[str]:
        """See `server.workers.worker.SessionCalls.jobs`."""
        # Without a session it has started none yet.
        return [] if run.session_id is None else [job.id for job in self._known(run)]

    def _known(self, run: Run) -> list[Job]:
        """The jobs that a run may ask after, the latest first."""
        if run.session_id is not None:
            return self._jobs().latest(MOST_NAMED, workspace=run.workspace, session_id=run.session_id)
        return self._jobs().latest(MOST_NAMED, workspace=run.workspace, run_id=run.id)

    def _own(self, name: str, run: Run) -> Job:
        job = self._jobs().get(name)
        is_own = job.workspace == run.workspace and (
            job.run_id == run.id if run.session_id is None else job.session_id == run.session_id
        )
        if not is_own:
            raise JobNotFoundError(f"This conversation has no job {name!r}.")
        return job

    def _reported(self, job: Job, run: Run) -> dict[str, Any]:
        if job.has_ended:
            run.reported_jobs.add(job.id)
        return _for_model(job)

    # Values

    def _share(self, call: _Get | _Set | _Increment | _Replace, run: Run) -> dict[str, Any]:
        if run.session_id is None:
            raise InvalidRequestError("Shared values belong to a session. Ask with a session_id.")
        values, workspace, session = self._values, run.workspace, run.session_id
        match call:
            case _Get():
                return {"value": values.get(workspace, session, call.key)}
            case _Set():
                values.set(workspace, session, call.key, call.value)
                return {}
            case _Increment():
                return {"value": values.increment(workspace, session, call.key, call.by)}
            case _Replace():
                return {"replaced": values.replace(workspace, session, call.key, call.was, call.value)}


def _is_cancelled() -> bool:
    cancelled = context.current().cancelled
    return cancelled is not None and cancelled.is_set()


def _for_model(job: Job) -> dict[str, Any]:
    """A job as agents read it."""
    shown = {"job": job.id, "tool": job.tool, "input": dict(job.input), "state": job.state}
    if job.progress is not None and not job.has_ended:
        shown["progress"] = dict(job.progress)
    if job.result is not None:
        shown["result"] = job.result
    if job.error is not None:
        shown["error"] = shortened(str(job.error["message"]), 4000)
    return shown
