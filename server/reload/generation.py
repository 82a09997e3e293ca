"""One generation: the whole reloadable code of a workspace at one moment, and the worker that runs it."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from server.errors import ReloadFailedError
from server.reload.changes import ToolInfo
from server.reload.snapshot import Snapshot
from server.runs import AgentResult, Run
from server.sdk.tool_content import ToolContent
from server.workers.failure import LoadError
from server.workers.messages import Progress
from server.workers.worker import NotStartedError, Worker

if TYPE_CHECKING:
    from server.models.resident import ResidentModel

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Exponential backoff in seconds before a worker that could not be started is tried again."""
TRIES = 5
"""Maximum number of ended workers that a question tries before it fails."""


class Generation:
    """Code that has been loaded. Its worker is started again whenever there is none: after a crash, after it was
    retired, or after it has been idle. Safe for any number of threads.

    The workspace counts `pins`: one for being live, and one for each run that uses it.
    """

    def __init__(
        self, snapshot: Snapshot, write: Callable[[], Path], start: Callable[[Path], Worker], seconds: float
    ) -> None:
        """`write` writes the snapshot's files into a folder, unless they are there. Starts a worker with `start` and
        loads them, within so many `seconds`. Raises `LoadError`, `WorkerUnavailableError`, `StoreError`."""
        self.snapshot = snapshot
        self.pins = 0
        self.tools: dict[str, ToolInfo] | None = None
        """By name; None before `build_tools`."""
        self.imports: list[str] = []
        """Modules of installed packages that the code imports."""
        self.warnings: list[dict[str, str]] = []
        """What `build_tools` found that may not be what its author meant: each a `file` and a `message`."""
        self.absent: list[dict[str, str]] = []
        """Tools that this server can't offer: each a `name` and a `reason`."""
        self._mcp_tools: list[dict[str, Any]] = []
        """What the workspace's MCP servers have listed."""
        self._write = write
        self._start = lambda: start(self.folder)
        self._seconds = seconds
        self._is_live = False
        self._closed = False
        self._starting = threading.Lock()
        self._failure: LoadError | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._worker = self._start()
        try:
            loaded = self._worker.load(seconds)
        except BaseException:
            self._worker.close()
            raise
        self.agents: list[str] = loaded.agents
        """Their names."""
        self.imports = loaded.imports

    @property
    def folder(self) -> Path:
        """The folder of its files, which are written again if they were removed: a folder that no worker has used for
        long is. Raises `StoreError`."""
        return self._write()

    @property
    def hash(self) -> str:
        """The first 12 hexadecimal digits that name this content."""
        return self.snapshot.hash

    def build_tools(self) -> None:
        """Build and check the tools. Raises `LoadError`, `ReloadFailedError`; `tools` are then as before."""
        tools: dict[str, ToolInfo] | None = None

        def build(worker: Worker) -> None:
            nonlocal tools
            built = worker.build(self._seconds)
            tools = {
                one.name: ToolInfo(
                    one.name,
                    one.description,
                    one.args_schema,
                    one.sources,
                    one.is_background,
                    one.is_idempotent,
                    one.resources,
                    one.title,
                    one.annotations,
                )
                for one in built.tools
            }
            self.imports = built.imports
            self.warnings = [one.model_dump() for one in built.warnings]
            self.absent = [one.model_dump() for one in built.absent]
            self._mcp_tools = built.mcp_tools

        self._with_worker(build)
        self.tools = tools

    def go_live(self) -> None:
        """From now on the values of `keep` in its workers are saved."""
        self._is_live = True
        self._worker.kept.commit()

    def answer(
        self, run: Run, model: "ResidentModel", turns: list[dict[str, Any]], tool_seconds: float, most_tools: int
    ) -> AgentResult:
        """The result of the run's agent. Raises what `Worker.answer` raises, and `ReloadFailedError` if no worker can
        be started any more."""
        return self._with_worker(lambda worker: worker.answer(run, model, turns, tool_seconds, most_tools))

    def call_tool(self, tool: str, given: Mapping[str, Any], seconds: float) -> str:
        """A tool's result, as text. Raises what `Worker.call_tool` raises."""
        return self._with_worker(lambda worker: worker.call_tool(tool, given, seconds))

    def call_for_content(
        self,
        tool: str,
        given: Mapping[str, Any],
        seconds: float,
        run: Run,
        on_progress: Callable[[Progress], object],
    ) -> ToolContent:
        """A tool's result as content blocks; of a tool for the background in a worker of its own. Raises what
        `Worker.call_for_content` raises."""
        if not (self.tools or {})[tool].is_background:
            return self._with_worker(lambda worker: worker.call_for_content(tool, given, seconds, run, on_progress))
        worker = self.start_worker()
        try:
            return worker.call_for_content(tool, given, seconds, run, on_progress)
        finally:
            worker.close()

    def write_note(self, record: Mapping[str, Any], seconds: float) -> Any:
        """The result of the code's `write_note` for a run's record. Raises what `Worker.write_note` raises."""
        return self._with_worker(lambda worker: worker.write_note(record, seconds))

    def start_worker(self, start: Callable[[], Worker] | None = None) -> Worker:
        """A worker for one call alone, with the tools built. The caller closes it. `start` starts one on another
        machine, whose values of `keep` are not saved. Raises `ReloadFailedError`, `WorkerUnavailableError`, and what
        `start` raises."""
        try:
            worker = self._started(start or self._start)
        except LoadError as failure:
            raise self._refusal(failure) from None
        if self._is_live and start is None:
            worker.kept.commit()
        return worker

    def close(self) -> None:
        """End its worker."""
        self._closed = True
        self._worker.close()

    def _with_worker(self, work: Callable[[Worker], T]) -> T:
        for _ in range(TRIES):
            try:
                return work(self._ready_worker())
            except NotStartedError as error:
                last = error
        raise ReloadFailedError(f"The workers of generation {self.hash} end before they can be asked: {last}")

    def _ready_worker(self) -> Worker:
        """One that can be asked; another one where the last has ended."""
        with self._starting:
            if self._worker.retired is None and self._worker.state != "ended":
                return self._worker
            if self._failure is not None and time.monotonic() < self._retry_at:
                raise self._refusal(self._failure)
            try:
                worker = self._started(self._start)
            except LoadError as failure:
                self._failures += 1
                pause = min(FIRST_PAUSE * 2 ** (self._failures - 1), LONGEST_PAUSE)
                self._failure, self._retry_at = failure, time.monotonic() + pause
                raise self._refusal(failure) from None
            self._failure, self._failures = None, 0
            self._worker = worker
            if self._is_live:
                worker.kept.commit()
            if self._closed:
                worker.close()
            return worker

    def _started(self, start: Callable[[], Worker]) -> Worker:
        """A new worker, made by `start`, that has loaded the code. Raises `LoadError` where two fail in a row: code
        that was loaded before may fail once for want of memory, or since somebody has killed its process."""
        for is_last in (self._failures > 0, True):
            worker = start()
            try:
                worker.load(self._seconds)
                if self.tools is not None:
                    worker.rebuild(self._seconds, self._mcp_tools)
            except LoadError:
                worker.close()
                if is_last:
                    raise
            except BaseException:
                worker.close()
                raise
            else:
                return worker
        raise AssertionError("the last one was started, or failed")

    def _refusal(self, failure: LoadError) -> ReloadFailedError:
        first = failure.errors[0]
        seconds = max(self._retry_at - time.monotonic(), 0.0)
        return ReloadFailedError(
            f"Generation {self.hash} was loaded before and can't be loaded now. {first['type']}: {first['message']}. "
            f"It is tried again in {seconds:.0f} s at the earliest.",
            errors=failure.errors,
            generation=self.hash,
        )
