"""One running job: its worker, its log, its progress, and how it is stopped."""

import codecs
import logging
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from server.bounds import LONGEST_TEXT, bounded
from server.errors import HearthError, RunCancelledError, ToolNotFoundError, WorkerCrashedError
from server.jobs.job import Job
from server.jobs.ray_cluster import RayCluster
from server.reload import Generation, Workspaces
from server.runs.events import Events
from server.runs.fair_queue import FairQueue
from server.runs.run import Run
from server.sdk import context
from server.sdk.tool_error import ToolFailedError
from server.workers.messages import Progress
from server.workers.worker import NotStartedError, Worker

log = logging.getLogger(__name__)

ASK_SECONDS = 0.25
"""Time for a tool to end by itself after it was asked, before SIGTERM."""
TRIES = 3
"""Maximum number of workers that end before they can be asked."""
EXIT_SECONDS = 10.0
"""Maximum time for the exit handlers of the tool's code, and for the kernel to end its processes."""
LOG_EVENTS_CHARACTERS = 200_000
"""How much of its log a job's events have. The rest is in the log."""


class JobLog:
    """What a job prints: the first and the last half of `longest` characters. Safe for any number of threads."""

    def __init__(self, longest: int = LONGEST_TEXT) -> None:
        self._half = longest // 2
        self._head = self._tail = ""
        self._left_out = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._changing = threading.Lock()

    def write(self, data: bytes) -> str:
        """Add what was printed. Returns it as text."""
        with self._changing:
            # A null character: databases can't store it.
            text = self._decoder.decode(data).replace("\x00", "\ufffd")
            room = self._half - len(self._head)
            self._head += text[:room]
            self._tail += text[room:]
            over = len(self._tail) - self._half
            # Twice as long before it is cut: not each line copies all.
            if over > self._half:
                self._left_out += over
                self._tail = self._tail[over:]
        return text

    def text(self) -> str:
        """All that is kept, with a note of how much is missing in its middle."""
        with self._changing:
            over = max(len(self._tail) - self._half, 0)
            left_out = self._left_out + over
            note = f"\n[... {left_out:,} characters left out ...]\n" if left_out else ""
            return self._head + note + self._tail[over:]


class NodeLostError(Exception):
    """The job's node, or the connection to it, was lost: nobody knows how far the tool came. The message: why."""


class RunningJob:
    """A job from its start to its end. Safe for any number of threads."""

    def __init__(
        self, job: Job, events: Events | None = None, stays_here: bool = True, is_awaited: bool = False
    ) -> None:
        """`events`: those that somebody follows already. `stays_here`: it runs on this machine in any case.
        `is_awaited`: a tool call waits for it."""
        self.job = job
        self.is_awaited = is_awaited
        self.stays_here = stays_here
        self._grace = 0.0
        self.log = JobLog()
        self.events = events or Events(last=("end",), text="log")
        self.progress: Mapping[str, Any] | None = None
        self.has_news = False
        """Whether progress or log have changed since they were saved."""
        self.ended = threading.Event()
        """Set when its end is saved."""
        self.seconds = 0.0
        """How long its tool ran, without the start and the end of its process."""
        # What its model calls and its calls of other jobs count for.
        self.run = Run(
            f"the job {job.id}", job.workspace, 1, priority="batch", session_id=job.session_id, owner=job.owner
        )
        self._worker: Worker | None = None
        self._stopping: str | None = None
        self._changing = threading.Lock()

    # Running

    def call(self, workspaces: Workspaces, queue: FairQueue, cluster: RayCluster | None = None) -> str:
        """The tool's result, after the end of its process, which runs on `cluster` if there is one. Raises
        `ToolFailedError`, `RunCancelledError` after `stop`, `NodeLostError`, and what `Generation.start_worker` and
        `Worker.call_tool` raise."""
        job = self.job
        with workspaces.get(job.workspace).pin_earlier(job.generation, self._check) as generation:
            if job.tool not in (generation.tools or {}):
                raise ToolNotFoundError(f"Generation {job.generation} has no tool {job.tool!r}.")
            start = None if cluster is None else partial(self._start_on, cluster, generation)
            for _ in range(TRIES):
                self._check()
                try:
                    return self._call_in(generation.start_worker(start), queue)
                except NotStartedError as error:
                    last = error  # nothing was done: another one can do it
        raise WorkerCrashedError(f"The workers of the job end before they can be asked: {last}.")

    def _start_on(self, cluster: RayCluster, generation: Generation) -> Worker:
        """A worker on a node that has what the tool says."""
        tool = (generation.tools or {})[self.job.tool]
        return cluster.start_worker(
            generation, self.job.workspace, tool.resources, self.job.timeout, self._check, self._on_output
        )

    def _call_in(self, worker: Worker, queue: FairQueue) -> str:
        """The tool's result in a worker of its own, after the end of its process."""
        job = self.job
        try:
            self._begin(worker)
            with (
                queue.lend(self.run) as self.run.turn,
                context.scope(cancelled=self.run.cancelled, on_text=lambda text, usage: self.run.count(usage)),
            ):
                began = time.monotonic()
                try:
                    return worker.call_tool(job.tool, job.input, job.timeout, self.run, self._on_progress)
                finally:
                    self.seconds = time.monotonic() - began
        except WorkerCrashedError:
            if worker.process.end is not None and worker.process.end.lost is not None:
                raise NodeLostError(worker.process.end.lost) from None
            raise
        finally:
            if self._stopping is None:  # otherwise it ends as `stop` has it
                worker.close()
            if not worker.process.ended.wait(self._grace + EXIT_SECONDS):
                log.warning("the process of the job %s has not ended", job.id)

    def _begin(self, worker: Worker) -> None:
        """From now on `stop` reaches the worker."""
        worker.process.copy_output(self._on_output)
        with self._changing:
            self._worker = worker
        if self._stopping is not None:
            worker.kill(self._stopping)  # nothing of the tool has begun
        self._check()

    def _check(self) -> None:
        if self._stopping is not None:
            raise RunCancelledError(f"The job was stopped: {self._stopping}.")

    def _on_progress(self, progress: Progress) -> None:
        shown = {"done": progress.done, "total": progress.total, "message": progress.message or None}
        self.progress = bounded({name: value for name, value in shown.items() if value is not None}, 1000)
        self.has_news = True
        self.events.publish("progress", dict(self.progress or {}))

    def _on_output(self, data: bytes) -> None:
        text = self.log.write(data)
        self.has_news = True
        if self.events.characters < LOG_EVENTS_CHARACTERS:
            self.events.publish_text(text, None)

    # Stopping

    @property
    def stopping(self) -> str | None:
        """Why it is stopped; None: it isn't."""
        return self._stopping

    def stop(self, reason: str, grace: float) -> None:
        """Ask its tool to end, then its processes, and kill what is left after `grace` seconds. Returns at once. The
        first reason counts."""
        with self._changing:
            if self._stopping is not None:
                return
            self._stopping, self._grace = reason, grace
            worker = self._worker
        # A call of the model, and of another job, ends now.
        self.run.stop(RunCancelledError(f"The job was stopped: {reason}."))
        if worker is None:
            return
        worker.cancel_calls()
        worker.later(ASK_SECONDS, worker.process.terminate)
        worker.later(ASK_SECONDS + grace, lambda: worker.kill(reason))


def described(error: BaseException) -> dict[str, Any]:
    """Why a job has no result, as the database and the routes have it."""
    if isinstance(error, HearthError):
        return dict(bounded({"type": error.code, "message": error.message, **error.details}))
    if isinstance(error, ToolFailedError):
        shown = {"type": "tool_failed", "message": str(error)}
        return shown if error.traceback is None else {**shown, "traceback": error.traceback}
    raise error
