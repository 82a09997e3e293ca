"""Tools that did not come back: given up, and named until their threads end."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.limited_thread import LimitedThread
from server.runs.run import current_run


@dataclass(frozen=True)
class AbandonedTool:
    """A tool that goes on though nobody waits for it. `seconds`: since it was given up."""

    tool: str
    workspace: str | None
    run_id: str | None
    seconds: float


class ToolThread(LimitedThread[Any]):
    """The thread of one call of a tool, for the run that it is made in."""

    def __init__(self, work: Callable[[], Any], tool: str) -> None:
        super().__init__(work, f"tool {tool}")
        run = current_run()
        self._tool = tool
        self._workspace = None if run is None else run.workspace
        self._run_id = None if run is None else run.id
        self._given_up_at: float | None = None

    def give_up(self) -> bool:
        given_up = super().give_up()
        if given_up:
            self._given_up_at = time.monotonic()
        return given_up

    @property
    def abandoned(self) -> AbandonedTool | None:
        """What is told about it; None unless it was given up."""
        if self._given_up_at is None:
            return None
        seconds = time.monotonic() - self._given_up_at
        return AbandonedTool(self._tool, self._workspace, self._run_id, seconds)


def abandoned_tools() -> list[AbandonedTool]:
    """Those of this process that go on, the longest given up first."""
    # The threads themselves are the list: none can be forgotten, and none stays that has ended.
    threads = [thread.abandoned for thread in threading.enumerate() if isinstance(thread, ToolThread)]
    return sorted((one for one in threads if one is not None), key=lambda one: -one.seconds)
