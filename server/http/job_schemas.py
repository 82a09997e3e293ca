"""The bodies of background jobs."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from server.http.schemas import Failure, Name, SessionId, StrictRequest, WorkspaceChoice


class JobPath(StrictRequest):
    job_id: str


class NewJob(WorkspaceChoice):
    """A tool and its input."""

    tool: Name
    input: dict[str, Any] = Field({}, description="the tool's arguments")
    generation: Name | None = Field(None, description="its hash, or the first digits; default: the live generation")
    session_id: SessionId | None = Field(None, description="the session that is woken at the job's end")
    priority: int = Field(0, ge=-100, le=100, description="among your own jobs; the higher number is next")
    timeout: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="time limit in seconds; at most HEARTH_JOB_TIMEOUT, the default",
    )


class JobsQuery(StrictRequest):
    """Filters of jobs, and their maximum number."""

    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "lost"] | None = None
    session_id: SessionId | None = None
    workspace: Name | None = Field(None, description="default: all workspaces")
    before: Name | None = Field(None, description="only jobs that came before this one")
    limit: int = Field(100, ge=1, le=1000, strict=False)


class JobStarted(BaseModel):
    job_id: str
    state: Literal["queued"]
    retry_of: str | None = Field(None, description="only after a retry")


class JobProgress(BaseModel):
    done: float
    total: float | None = None
    message: str | None = None


class JobShown(BaseModel):
    job_id: str
    workspace: str
    generation: str
    tool: str
    input: dict[str, Any]
    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "lost"]
    priority: int
    timeout_seconds: float
    tries: int = Field(description="how often it was started")
    created_at: str = Field(description="ISO 8601, UTC")
    started_at: str | None = Field(None, description="only after its start")
    ended_at: str | None = Field(None, description="only after its end")
    session_id: str | None = Field(None, description="only if it belongs to a session")
    run_id: str | None = Field(None, description="the run that started it, if one did")
    retry_of: str | None = Field(None, description="the job that it repeats, if it does")
    progress: JobProgress | None = Field(None, description="only if the tool reports it")
    result: str | None = Field(None, description="only of a job that succeeded")
    error: Failure | None = Field(None, description="only of a job that failed or was lost")


class JobsListed(BaseModel):
    jobs: list[JobShown]
