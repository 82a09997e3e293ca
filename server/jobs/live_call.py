"""A client's call of one tool, as MCP has it: in the live worker of the workspace, like an agent's call. It is no
job, and only its usage is saved. `server/jobs/trial.py` calls a tool in a process of its own."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from server.errors import HearthError, RunCancelledError, ToolNotFoundError, as_hearth_error
from server.reload import Workspace
from server.runs.fair_queue import FairQueue
from server.runs.run import Run
from server.sdk import context
from server.sdk.tool_content import ToolContent
from server.sdk.tool_error import ToolFailedError
from server.store.usage import Used
from server.workers.messages import Progress


class LiveCall:
    """The live generation when it starts runs it to its end. Safe for any number of threads."""

    def __init__(
        self,
        workspace: Workspace,
        tool: str,
        given: Mapping[str, Any],
        seconds: float,
        owner: str,
        key: str,
        fair_queue: FairQueue,
        when_ended: Callable[[], object],
    ) -> None:
        """`owner`: whom its model calls count for; `key`: the API key that asked, or empty.
        `when_ended` is called once, if it was started."""
        self._workspace = workspace
        self._tool = tool
        self._given = given
        self._seconds = seconds
        self._queue = fair_queue
        self._run = Run(f"the call of {tool}", workspace.name, 1, owner=owner)
        self._run.key = key
        self._when_ended = when_ended
        self._progress: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
        self._outcome: ToolContent | ToolFailedError | HearthError | None = None

    def start(self) -> None:
        """Let it run on a thread of its own."""
        threading.Thread(target=self._call, name=f"call of {self._tool}", daemon=True).start()

    def reports(self, seconds: float) -> Iterator[Progress | None]:
        """The tool's reports of its progress, until it has ended. None: there was none for so many `seconds`. One
        thread reads them."""
        while True:
            try:
                report = self._progress.get(timeout=seconds)
            except queue.Empty:
                yield None
                continue
            if report is None:
                return
            yield report

    def result(self) -> ToolContent:
        """The result of a call that has ended. Raises `ToolFailedError`, or the `HearthError` for which there is
        none: `ToolNotFoundError`, `RunCancelledError` after `stop`, and what `Generation.call_for_content` raises."""
        assert self._outcome is not None, "it has ended"
        if isinstance(self._outcome, ToolContent):
            return self._outcome
        raise self._outcome

    @property
    def used(self) -> Used:
        """What it has used so far."""
        run = self._run
        return Used(run.owner, run.key, run.model or "", tokens_processed=run.tokens_used, tokens_written=run.written)

    def stop(self, reason: str) -> None:
        """Ask the tool to end, and its calls of the model. Returns at once."""
        self._run.stop(RunCancelledError(f"The call was cancelled: {reason}."))

    def _call(self) -> None:
        try:
            with self._workspace.pin() as generation:
                if self._tool not in (generation.tools or {}):
                    raise ToolNotFoundError(f"The workspace {self._workspace.name!r} has no tool {self._tool!r}.")
                run = self._run
                with (
                    self._queue.lend(run) as run.turn,
                    context.scope(cancelled=run.cancelled, on_text=lambda text, usage: run.count(usage)),
                ):
                    self._outcome = generation.call_for_content(
                        self._tool, self._given, self._seconds, run, self._progress.put
                    )
        except ToolFailedError as error:
            self._outcome = error
        except Exception as error:  # boundary: the thread's end; the caller raises it
            self._outcome = as_hearth_error(error)
        finally:
            self._progress.put(None)
            self._when_ended()
