"""All workers of the server: starting them, listing them, ending idle ones."""

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from server.errors import ShuttingDownError, WorkerUnavailableError
from server.observability import metrics
from server.workers.kept_values import KeptStore
from server.workers.model_calls import ModelCalls
from server.workers.process import Process
from server.workers.template import Template, WorkerStartError
from server.workers.worker import SessionCalls, State, Worker

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Interval at which idle workers are ended."""


@dataclass(frozen=True)
class WorkerInfo:
    """A worker as `/health` shows it. `retired`: why it gets no new runs."""

    workspace: str
    generation: str
    pid: int
    state: State
    runs: int
    memory_bytes: int
    cpu_seconds: float
    started_at: str
    retired: str | None


class Workers:
    """Safe for any number of threads."""

    def __init__(
        self,
        calls: ModelCalls,
        session_calls: SessionCalls,
        *,
        niceness: int = 0,
        memory_bytes: int | None = None,
        idle_seconds: float = float("inf"),
        lasting: Collection[str] = (),
        hidden: Collection[str] = (),
        method: Literal["fork", "spawn"] | None = None,
    ) -> None:
        """Starts nothing yet: the template, which imports for seconds, starts with the first worker.

        `niceness` is added to a worker's once its code is loaded. Workers that are idle for `idle_seconds` end,
        except those of the workspaces `lasting`. `hidden`: environment variables that workers don't get.
        """
        self.memory_bytes = memory_bytes
        self._calls = calls
        self._session_calls = session_calls
        self._niceness = niceness
        self._idle_seconds = idle_seconds
        self._lasting = frozenset(lasting)
        self._make_template = lambda: Template(memory_bytes=memory_bytes, hidden=hidden, method=method)
        self._template: Template | None = None
        self._workers: set[Worker] = set()
        self._changing = threading.Lock()
        self._closing = threading.Event()
        threading.Thread(target=self._end_idle, name="idle workers", daemon=True).start()

    def start(self, folder: Path, workspace: str, generation: str, kept: KeptStore) -> Worker:
        """A new worker for the code in `folder`. The code is not loaded yet. Raises `WorkerUnavailableError`,
        `ShuttingDownError`."""
        with self._changing:
            if self._closing.is_set():
                raise ShuttingDownError("The server is shutting down and loads no more code.")
            template = self._template = self._template or self._make_template()
        try:
            process = template.spawn()
        except WorkerStartError as error:
            raise WorkerUnavailableError(f"No worker can be started: {error}") from error
        worker = self.over(process, str(folder), workspace, generation, kept, kept.folder, self._niceness)
        with self._changing:
            self._workers.add(worker)
        process.on_end(lambda _: self._forget(worker))
        return worker

    def over(
        self,
        process: Process,
        folder: str,
        workspace: str,
        generation: str,
        kept: KeptStore,
        kept_folder: Path,
        niceness: int = 0,
    ) -> Worker:
        """The worker that a started process is, perhaps on another machine: `folder` and `kept_folder` are paths
        there. It is not among `all`, and the caller ends it."""
        metrics.WORKER_STARTS.inc()
        return Worker(
            process,
            folder,
            workspace,
            generation,
            self._calls,
            self._session_calls,
            kept.trial(),
            kept_folder,
            niceness,
        )

    def learn(self, modules: Collection[str]) -> None:
        """Let the template import the modules that a generation has imported, so that the next generation starts
        sooner."""
        if modules and self._template is not None:
            self._template.learn(list(modules))

    def of(self, workspace: str) -> list[Worker]:
        """The workers of a workspace."""
        return [worker for worker in self.all() if worker.workspace == workspace]

    def all(self) -> list[Worker]:
        """The workers whose processes have not ended, in the order of their start."""
        with self._changing:
            return sorted(self._workers, key=lambda worker: worker.process.started_at)

    def describe(self) -> list[WorkerInfo]:
        """All workers as `/health` shows them."""
        return [_described(worker) for worker in self.all()]

    def close(self) -> None:
        """End all workers and the template."""
        with self._changing:
            self._closing.set()
        for worker in self.all():
            worker.close()
        if self._template is not None:
            self._template.close()

    def _forget(self, worker: Worker) -> None:
        with self._changing:
            self._workers.discard(worker)

    def _end_idle(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            for worker in self.all():
                if worker.workspace not in self._lasting:
                    worker.end_if_idle(self._idle_seconds)


def _described(worker: Worker) -> WorkerInfo:
    used = worker.process.usage()
    started = datetime.fromtimestamp(worker.process.started_at, UTC).isoformat(timespec="milliseconds")
    return WorkerInfo(
        workspace=worker.workspace,
        generation=worker.generation,
        pid=worker.process.pid,
        state=worker.state,
        runs=worker.runs,
        memory_bytes=used.memory_bytes,
        cpu_seconds=used.cpu_seconds,
        started_at=started.replace("+00:00", "Z"),
        retired=worker.retired,
    )
