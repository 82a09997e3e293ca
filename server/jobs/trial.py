"""A person's call of one tool, to try it: in a process of its own, whose crash is a result. Only its usage is saved.
`server/jobs/live_call.py` calls a tool in the live worker."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.errors import WorkerCrashedError
from server.jobs.job import Job
from server.jobs.process import RunningJob, described
from server.reload import Workspaces
from server.runs.fair_queue import FairQueue
from server.sdk.tool_error import ToolFailedError
from server.store.usage import Used

LOOK_SECONDS = 0.25
"""Interval of the checks whether the caller still waits."""
GRACE_SECONDS = 2.0
"""Time for a tool whose caller has left, from SIGTERM to SIGKILL."""


@dataclass(frozen=True)
class ToolCalled:
    """What came of a call: a `result`, or an `error` with `type`, `message`, and perhaps `traceback`, `signal`,
    `file` and `line`. `output`: what the tool printed. `seconds`: how long it ran."""

    result: str | None
    error: dict[str, Any] | None
    output: str
    seconds: float


def try_tool(
    job: Job,
    key: str,
    workspaces: Workspaces,
    queue: FairQueue,
    has_left: Callable[[], bool],
    count: Callable[[Used], object],
) -> ToolCalled:
    """Call the tool of `job`, which is never saved. `key`: the API key that asked, or empty. A failure or a
    crash of the tool is a result. When `has_left`, the tool is stopped. `count` gets what it has used.

    Raises `ToolNotFoundError`, `RunCancelledError` for a caller that has left, and what `Generation.start_worker`
    raises.
    """
    running = RunningJob(job)
    outcome: list[str | BaseException] = []

    def call() -> None:
        try:
            outcome.append(running.call(workspaces, queue))
        except BaseException as error:  # boundary: the thread's end; the caller raises it
            outcome.append(error)
        finally:
            running.ended.set()

    threading.Thread(target=call, name=f"trial of {job.tool}", daemon=True).start()
    while not running.ended.wait(LOOK_SECONDS):
        if has_left():
            running.stop("its caller has left", GRACE_SECONDS)
    run = running.run
    count(Used(job.owner, key, job.model or "", tokens_processed=run.tokens_used, tokens_written=run.written))
    match outcome[0]:
        case str() as result:
            return ToolCalled(result, None, running.log.text(), running.seconds)
        case ToolFailedError() | WorkerCrashedError() as failure:
            return ToolCalled(None, described(failure), running.log.text(), running.seconds)
        case error:
            raise error
