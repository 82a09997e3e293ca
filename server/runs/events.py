"""What happens in a run, in order, for any number of readers."""

import threading
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["queued", "started", "token", "step", "plan", "choice", "answer", "error"]
LAST: tuple[Kind, ...] = ("answer", "error")
"""After one of these nothing more happens."""


@dataclass(frozen=True)
class Event:
    """Something that happened. `number`: greater than that of every event before it. `data`: as JSON has it."""

    number: int
    kind: Kind
    data: dict[str, Any]


class _Text:
    """Pieces of text without anything else between them; each piece has a number. `tool`: whose text it is."""

    def __init__(self, first: int, tool: str | None) -> None:
        self.first = first
        self.tool = tool
        self.pieces: list[str] = []

    @property
    def last(self) -> int:
        return self.first + len(self.pieces) - 1

    def since(self, number: int) -> Event:
        text = "".join(self.pieces[max(0, number + 1 - self.first) :])
        return Event(self.last, "token", {"text": text, "tool": self.tool})


class Events:
    """The record of a run. Safe for any number of threads; no reader, however slow, holds the run up.

    A reader says up to which number it has read, and so may come back at any time, also after the end. Pieces of text
    that came since then are given as one event, and of several places in the queue only the latest: so whoever reads
    fast gets every piece when it is made, and whoever reads slowly gets few and long ones. The record is bounded by
    what bounds a run: its tokens and its steps.
    """

    def __init__(self) -> None:
        self._entries: list[Event | _Text] = []
        self._count = 0
        self._ended = False
        self._changed = threading.Condition()

    def tell(self, kind: Kind, data: dict[str, Any]) -> None:
        """Something happened. After the last event nothing is taken any more."""
        with self._changed:
            if self._ended:
                return
            if kind == "queued" and self._entries and self._kind_of_last() == "queued":
                self._entries.pop()
            self._count += 1
            self._entries.append(Event(self._count, kind, data))
            self._ended = kind in LAST
            self._changed.notify_all()

    def tell_text(self, text: str, tool: str | None) -> None:
        """The model wrote `text`, for the agent or, when `tool` is its name, for a tool that asked it."""
        with self._changed:
            if self._ended or not text:
                return
            last = self._entries[-1] if self._entries else None
            if not isinstance(last, _Text) or last.tool != tool:
                last = _Text(self._count + 1, tool)
                self._entries.append(last)
            last.pieces.append(text)
            self._count += 1
            self._changed.notify_all()

    def since(self, number: int, seconds: float = 0.0) -> list[Event]:
        """What happened after the event with that number (0: all). Waits up to `seconds` for something."""
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
        """Whether the last event was told."""
        return self._ended

    def _kind_of_last(self) -> Kind:
        last = self._entries[-1]
        return "token" if isinstance(last, _Text) else last.kind
