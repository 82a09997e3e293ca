"""All workers of the server: starting them, listing them, ending those that nobody uses."""

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
from server.workers.processes import Template, WorkerStartError
from server.workers.worker import State, Worker

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often idle workers are looked for."""


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
        *,
        niceness: int = 0,
        memory_bytes: int | None = None,
        idle_seconds: float = float("inf"),
        lasting: Collection[str] = (),
        hidden: Collection[str] = (),
        method: Literal["fork", "spawn"] | None = None,
    ) -> None:
        """Starts nothing yet: the template, which imports for seconds, starts with the first worker.

        `niceness` is added to the server's once code is loaded. Workers that are idle for `idle_seconds` end, but for
        those of the workspaces `lasting`. `hidden`: environment variables that workers don't get.
        """
        self.memory_bytes = memory_bytes
        self._calls = calls
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
        """A worker for the code in `folder`, which is not loaded yet. Raises `WorkerUnavailableError`,
        `ShuttingDownError`."""
        with self._changing:
            if self._closing.is_set():
                raise ShuttingDownError("The server is shutting down and loads no more code.")
            template = self._template = self._template or self._make_template()
        try:
            process = template.spawn()
        except WorkerStartError as error:
            raise WorkerUnavailableError(f"No worker can be started: {error}") from error
        worker = Worker(
            process, str(folder), workspace, generation, self._calls, kept.trial(), kept.folder, self._niceness
        )
        metrics.WORKER_STARTS.inc()
        with self._changing:
            self._workers.add(worker)
        process.on_end(lambda _: self._forget(worker))
        return worker

    def learn(self, modules: Collection[str]) -> None:
        """Have the template import what a generation has imported, so that the next one need not."""
        if modules and self._template is not None:
            self._template.learn(list(modules))

    def of(self, workspace: str) -> list[Worker]:
        """The workers of a workspace."""
        return [worker for worker in self.all() if worker.workspace == workspace]

    def all(self) -> list[Worker]:
        """Those whose processes have not ended, in the order of their start."""
        with self._changing:
            return sorted(self._workers, key=lambda worker: worker.process.started_at)

    def describe(self) -> list[WorkerInfo]:
        """The same, as `/health` shows them."""
        return [_described(worker) for worker in self.all()]

    def close(self) -> None:
        """End all of them, and the template."""
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
