"""Events in order, for any number of readers: of a run, of a job, of a session."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from server.bounds import characters

Kind = Literal[
    "queued", "started", "token", "step", "plan", "choice", "answer", "error",
    "state", "progress", "log", "end", "message", "job", "sample",
]  # fmt: skip
"""Those of a run, and then those of jobs, sessions and the server's load."""
LAST: tuple[Kind, ...] = ("answer", "error")
"""The kinds of a run's last event."""
LATEST_ONLY: tuple[Kind, ...] = ("queued", "progress", "sample")
"""Of several in a row, only the last one counts."""


@dataclass(frozen=True)
class Event:
    """An event. `number`: greater than those of all earlier events. `data`: a JSON object."""

    number: int
    kind: Kind
    data: dict[str, Any]

    @property
    def characters(self) -> int:
        """How much text it has."""
        return characters(self.data)


class _Text:
    """Chunks of text with no other event between them; each has a number. `tool`: the tool that asked for it."""

    def __init__(self, first: int, kind: Kind, tool: str | None) -> None:
        self.first = first
        self.kind = kind
        self.tool = tool
        self.chunks: list[str] = []

    @property
    def last(self) -> int:
        return self.first + len(self.chunks) - 1

    @property
    def characters(self) -> int:
        return sum(map(len, self.chunks))

    def since(self, number: int) -> Event:
        text = "".join(self.chunks[max(0, number + 1 - self.first) :])
        return Event(
            self.last, self.kind, {"text": text, "tool": self.tool} if self.kind == "token" else {"text": text}
        )


class Events:
    """The events of one run, job or session. Safe for any number of threads. A slow reader never blocks what is read.

    A reader passes the number of the last event that it has read, so it may reconnect at any time, also after the
    end. Chunks of text since then are merged into one event, and only the latest position in the queue is reported.
    So a fast reader gets each chunk at once, and a slow reader gets few long ones. The limits of a run, its tokens
    and its steps, also limit its events.
    """

    def __init__(
        self, last: tuple[Kind, ...] = LAST, text: Kind = "token", first: int = 1, longest: int | None = None
    ) -> None:
        """`last`: the kinds that end them; none: they don't end. `text`: the kind of `publish_text`. `first`: the
        number of the first event. `longest`: only the last events of so many characters are kept; None: all."""
        self._last = last
        self._text = text
        self._longest = longest
        self._entries: list[Event | _Text] = []
        self._count = first - 1
        self.characters = 0
        """How much text they have."""
        self._ended = False
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], object]] = []

    def listen(self, listener: Callable[[], object]) -> None:
        """Call `listener`, which returns at once, at each new event until `unlisten`. For a reader of several."""
        with self._changed:
            self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], object]) -> None:
        """Undo `listen`."""
        with self._changed:
            self._listeners.remove(listener)

    def _notify(self) -> None:
        self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def publish(self, kind: Kind, data: dict[str, Any]) -> None:
        """Add an event. Events after the last one are ignored."""
        with self._changed:
            if self._ended:
                return
            if kind in LATEST_ONLY and self._entries and self._entries[-1].kind == kind:
                self.characters -= self._entries.pop().characters
            self._count += 1
            self.characters += characters(data)
            self._entries.append(Event(self._count, kind, data))
            while self._longest is not None and self.characters > self._longest and len(self._entries) > 1:
                self.characters -= self._entries.pop(0).characters
            self._ended = kind in self._last
            self._notify()

    def publish_text(self, text: str, tool: str | None) -> None:
        """Add text that the model wrote for the agent or, if `tool` is given, for that tool."""
        with self._changed:
            if self._ended or not text:
                return
            last = self._entries[-1] if self._entries else None
            if not isinstance(last, _Text) or last.tool != tool:
                last = _Text(self._count + 1, self._text, tool)
                self._entries.append(last)
            last.chunks.append(text)
            self._count += 1
            self.characters += len(text)
            self._notify()

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
