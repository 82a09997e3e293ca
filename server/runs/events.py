"""The events of a run, in order, for any number of readers."""

import threading
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["queued", "started", "token", "step", "plan", "choice", "answer", "error"]
LAST: tuple[Kind, ...] = ("answer", "error")
"""The kinds of the last event."""


@dataclass(frozen=True)
class Event:
    """An event. `number`: greater than those of all earlier events. `data`: a JSON object."""

    number: int
    kind: Kind
    data: dict[str, Any]


class _Text:
    """Chunks of text with no other event between them; each has a number. `tool`: the tool that asked for it."""

    def __init__(self, first: int, tool: str | None) -> None:
        self.first = first
        self.tool = tool
        self.chunks: list[str] = []

    @property
    def last(self) -> int:
        return self.first + len(self.chunks) - 1

    def since(self, number: int) -> Event:
        text = "".join(self.chunks[max(0, number + 1 - self.first) :])
        return Event(self.last, "token", {"text": text, "tool": self.tool})


class Events:
    """The events of one run. Safe for any number of threads. A slow reader never blocks the run.

    A reader passes the number of the last event that it has read, so it may reconnect at any time, also after the
    end. Chunks of text since then are merged into one event, and only the latest position in the queue is reported.
    So a fast reader gets each chunk at once, and a slow reader gets few long ones. The limits of a run, its tokens
    and its steps, also limit its events.
    """

    def __init__(self) -> None:
        self._entries: list[Event | _Text] = []
        self._count = 0
        self._ended = False
        self._changed = threading.Condition()

    def publish(self, kind: Kind, data: dict[str, Any]) -> None:
        """Add an event. Events after the last one are ignored."""
        with self._changed:
            if self._ended:
                return
            if kind == "queued" and self._entries and self._kind_of_last() == "queued":
                self._entries.pop()
            self._count += 1
            self._entries.append(Event(self._count, kind, data))
            self._ended = kind in LAST
            self._changed.notify_all()

    def publish_text(self, text: str, tool: str | None) -> None:
        """Add text that the model wrote for the agent or, if `tool` is given, for that tool."""
        with self._changed:
            if self._ended or not text:
                return
            last = self._entries[-1] if self._entries else None
            if not isinstance(last, _Text) or last.tool != tool:
                last = _Text(self._count + 1, tool)
                self._entries.append(last)
            last.chunks.append(text)
            self._count += 1
            self._changed.notify_all()

    def since(self, number: int, seconds: float = 0.0) -> list[Event]:
        """The events after the one with that number (0: all). Waits up to `seconds` for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._count > number, timeout=seconds)
            found: list[Event] = []
            for entry in reversed(self._entries):
                if isinstance(entry, _Text):
                    if entry.last <= number:
                        break
                    found.append(entry.since(number))
                elif entry.number <= number:
                    break
                else:
                    found.append(entry)
        return found[::-1]

    @property
    def ended(self) -> bool:
        """Whether the last event was published."""
        return self._ended

    def _kind_of_last(self) -> Kind:
        last = self._entries[-1]
        return "token" if isinstance(last, _Text) else last.kind
