"""The spans of a task's tool calls. A worker exports nothing: it reports when each call begins and ends."""

import json
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from server.observability import semantic_conventions as names
from server.observability import tracing
from server.sdk import context

if TYPE_CHECKING:
    from opentelemetry.trace import Span

MOST = 256
"""Maximum number of a task's calls that have a span at the same time. People's code may report any number."""


class ToolSpans:
    """Safe for any number of threads: a task may end while its worker still reports."""

    def __init__(self) -> None:
        """The calls belong to the span of this context."""
        self._parent: Span | None = context.current().span
        self._open: dict[int, Span] = {}
        self._ended: dict[int, tuple[str, Span, float]] = {}
        """Calls that have ended, and whose step, which has their input and result, was not reported yet."""
        self._closed = self._parent is None
        self._changing = threading.Lock()

    def begin(self, call: int, tool: str) -> None:
        """A call began."""
        if self._parent is None:
            return
        attributes = {
            names.OPERATION: "execute_tool",
            names.TOOL: tool,
            names.TOOL_TYPE: "function",
            names.TOOL_CALL: str(call),
        }
        with self._changing:
            if self._closed or len(self._open) >= MOST or call in self._open:
                return
            made = tracing.begin(f"execute_tool {tool}", attributes, parent=self._parent)
            if made is not None:
                self._open[call] = made

    def end(self, call: int, tool: str, failed: bool) -> None:
        """A call ended."""
        with self._changing:
            if (made := self._open.pop(call, None)) is None:
                return
            if failed:
                tracing.fail(made, "tool_failed")
            if len(self._ended) >= MOST:
                self._finish(next(iter(self._ended)))
            self._ended[call] = (tool, made, time.time())

    def step(self, step: Mapping[str, Any]) -> None:
        """A step was reported: that of the first call of its tool that has ended."""
        with self._changing:
            call = next((call for call, (tool, *_) in self._ended.items() if tool == step.get("tool")), None)
            if call is None:
                return
            tracing.content(
                self._ended[call][1],
                lambda: {
                    names.TOOL_ARGUMENTS: json.dumps(step.get("input")),
                    names.TOOL_RESULT: str(step.get("observation", "")),
                },
            )
            self._finish(call)

    def parent_of(self, call: int | None) -> "Span | None":
        """The span of a tool call, to which belongs what the tool asks for; else the task's own."""
        return self._parent if call is None else self._open.get(call, self._parent)

    def close(self) -> None:
        """The task has ended. A call that has not ended is cut off here."""
        with self._changing:
            self._closed = True
            for call in list(self._ended):
                self._finish(call)
            for made in self._open.values():
                tracing.fail(made, "not_ended")
                tracing.end(made)
            self._open.clear()

    def _finish(self, call: int) -> None:
        """With the lock held."""
        _, made, ended = self._ended.pop(call)
        tracing.end(made, ended)
