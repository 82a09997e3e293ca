"""What did not come back: tools, agents and the loading of code, given up, and named until their threads end."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from server.limited_thread import LimitedThread
from server.runs.run import Run

T = TypeVar("T")


@dataclass(frozen=True)
class AbandonedTool:
    """Work that goes on though nobody waits for it. `tool`: which tool it is, or what else, as in `agent react`.
    `seconds`: since it was given up."""

    tool: str
    workspace: str | None
    run_id: str | None
    seconds: float


class RunThread(LimitedThread[T]):
    """A thread that works for `run`, as its agent or with a tool."""

    def __init__(self, work: Callable[[], T], name: str, run: Run | None, doing: str) -> None:
        super().__init__(work, name)
        self.doing = doing
        self.workspace = None if run is None else run.workspace
        self.run_id = None if run is None else run.id


def abandoned_tools() -> list[AbandonedTool]:
    """What of this process goes on though it was given up, the longest given up first."""
    # The threads themselves are the list: none can be forgotten, and none stays that has ended.
    found = [_told(thread) for thread in threading.enumerate() if isinstance(thread, LimitedThread)]
    return sorted((one for one in found if one is not None), key=lambda one: -one.seconds)


def _told(thread: LimitedThread[Any]) -> AbandonedTool | None:
    """What is told about `thread`; None unless it was given up."""
    if thread.given_up_at is None:
        return None
    workspace, run_id = (thread.workspace, thread.run_id) if isinstance(thread, RunThread) else (None, None)
    return AbandonedTool(thread.doing, workspace, run_id, time.monotonic() - thread.given_up_at)
