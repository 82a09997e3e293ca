"""The tools by which an agent waits for jobs, cancels them, and asks after them.

The grammar holds their input to the names that exist.
"""

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.tools import BaseTool

from server.sdk import context
from server.sdk.jobs import SessionJobs, ask_for_model
from server.sdk.tool_call import check_arguments

WAIT_SECONDS = 60.0
"""How long `wait` waits if the model says nothing."""
LONGEST_WAIT = 86_400.0


class JobTool(BaseTool):
    """A tool about the jobs of the conversation. It works in the server, so no time limit of tools holds for it."""

    jobs: SessionJobs

    @property
    def is_usable(self) -> bool:
        """Whether there is a job that it could be about."""
        return bool(self.jobs.names)

    def schema_now(self) -> dict[str, Any]:
        """The JSON schema of its arguments, with the names of the jobs that there are now."""
        raise NotImplementedError

    def call(self, arguments: Mapping[str, Any]) -> str:
        """What the model reads. Raises `ToolFailedError`."""
        check_arguments(self.schema_now(), arguments)
        return str(self._run(**arguments))

    def _name(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.jobs.names)} if self.jobs.names else {"type": "string"}


class WaitTool(JobTool):
    """Waits until jobs have ended."""

    name: str = "wait"
    description: str = "Wait until background jobs have ended, and give their results."

    def schema_now(self) -> dict[str, Any]:
        """See `JobTool`."""
        properties = {
            "job_ids": {
                "type": "array",
                "items": self._name(),
                "minItems": 1,
                "maxItems": max(len(self.jobs.names), 1),
            },
            "mode": {"type": "string", "enum": ["all", "any"]},
            "timeout": {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT},
        }
        return _object(properties, ["job_ids"])

    def _run(self, job_ids: list[str], mode: str = "all", timeout: float = WAIT_SECONDS) -> str:
        return _listed(ask_for_model("wait", jobs=job_ids, mode=mode, seconds=float(timeout))["jobs"])


class CancelTool(JobTool):
    """Cancels a job."""

    name: str = "cancel"
    description: str = "Cancel a background job."

    def schema_now(self) -> dict[str, Any]:
        """See `JobTool`."""
        return _object({"job_id": self._name()}, ["job_id"])

    def _run(self, job_id: str) -> str:
        return _listed([ask_for_model("cancel", job=job_id)])


class StatusTool(JobTool):
    """Says how far jobs are."""

    name: str = "status"
    description: str = "Say how far a background job is, or all of them."

    def schema_now(self) -> dict[str, Any]:
        """See `JobTool`."""
        return _object({"job_id": self._name()}, [])

    def _run(self, job_id: str | None = None) -> str:
        return _listed(ask_for_model("status", job=job_id)["jobs"])


def job_tools() -> dict[str, JobTool]:
    """For agents: the tools about the jobs of the run's session, by name; none if there are no jobs, and no tools
    that start one."""
    jobs = context.current().jobs
    if jobs is None or not (jobs.names or jobs.may_begin):
        return {}
    return {tool.name: tool for tool in (kind(jobs=jobs) for kind in (WaitTool, CancelTool, StatusTool))}


def wait_for_started(seconds: float) -> str | None:
    """For agents: wait for the jobs that this run has started, at most so many `seconds`. Returns what the model
    reads about them; None if there are none."""
    jobs = context.current().jobs
    if jobs is None or not jobs.started:
        return None
    return _listed(ask_for_model("wait", jobs=jobs.started, mode="all", seconds=seconds)["jobs"])


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _listed(jobs: list[dict[str, Any]]) -> str:
    return "\n".join(map(_line, jobs)) or "There are no jobs."


def _line(job: Mapping[str, Any]) -> str:
    called = f"{job['job']}: {job['tool']}({json.dumps(job['input'], ensure_ascii=False)}) is {job['state']}"
    if "progress" in job:
        progress = job["progress"]
        total = f" of {progress['total']:g}" if "total" in progress else ""
        message = f" ({progress['message']})" if "message" in progress else ""
        return f"{called}, {progress['done']:g}{total} done{message}"
    if "result" in job:
        return f"{called}: {job['result']}"
    return f"{called}: {job['error']}" if "error" in job else called
