"""One task of the server in a worker: it reports what happens to its run or its job."""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from server.sdk.tool_error import traceback_of
from server.sdk.tool_result import encodable
from server.workers.failure import CodeFiles
from server.workers.inside.server_end import ServerEnd

REPORT_SECONDS = 0.1
"""Minimum interval of a tool's reports of its progress."""
STOP_SECONDS = 3.0
"""Maximum time for a tool to end after its run no longer waits for it. Then the server is asked to replace this
worker."""


class Task:
    """A task that the server asked for, and the `Listener` of its run."""

    def __init__(self, number: int, server: ServerEnd, files: CodeFiles | None = None) -> None:
        """`files` are those of the code; None before it is loaded."""
        self.id = number
        self.cancelled = threading.Event()
        self.has_steps = False
        self._server = server
        self._files = files
        self._calls = 0
        self._reported = float("-inf")
        self._counting = threading.Lock()

    def step(self, step: dict[str, Any]) -> None:
        """See `Listener`."""
        self.has_steps = True
        self._server.send("step", task=self.id, step=step)

    def plan(self, steps: list[dict[str, Any]]) -> None:
        """See `Listener`."""
        self._server.send("plan", task=self.id, steps=steps)

    def progress(self, done: float, total: float | None, message: str) -> None:
        """See `Listener`. Reports soon after another one are dropped, but for the last step."""
        if (now := time.monotonic()) - self._reported >= REPORT_SECONDS or done == total:
            self._reported = now
            self._server.send("progress", task=self.id, done=done, total=total, message=message)

    def ask(self, what: str, do: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """See `Listener`."""
        return self._server.ask(what, do=do, **given)

    def tools_shown(self, names: list[str]) -> None:
        """See `Listener`."""
        self._server.send("tools_shown", task=self.id, tools=names)

    def tool_began(self, tool: str, seconds: float) -> int:
        """See `Listener`."""
        with self._counting:
            self._calls += 1
            call = self._calls
        self._server.send("tool_began", task=self.id, call=call, tool=tool, seconds=float(seconds))
        return call

    def tool_ended(self, call: int, seconds: float, failed: bool) -> None:
        """See `Listener`."""
        self._server.send("tool_ended", task=self.id, call=call, seconds=seconds, failed=failed)

    def tool_failed(self, tool: str, error: BaseException) -> str:
        """See `Listener`."""
        text = traceback_of(error) if self._files is None else encodable(self._files.describe(error)["traceback"])
        with suppress(Exception):  # people's code may have replaced or closed it
            print(f"The tool {tool} failed.\n{text}", end="", file=sys.stderr, flush=True)
        return text

    def still_running(self, what: str, ended: Callable[[], bool]) -> None:
        """See `Listener`."""

        def look() -> None:
            until = time.monotonic() + STOP_SECONDS
            while not ended() and time.monotonic() < until:
                time.sleep(0.05)
            if not ended():
                self._server.send("stuck", task=self.id, what=what)

        threading.Thread(target=look, name=f"{what} is stopped", daemon=True).start()
