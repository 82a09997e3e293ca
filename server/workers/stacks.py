"""Reading faulthandler's output: which line of people's code a thread is in."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$')
HEADING = re.compile(r"^(Current thread|Thread|Stack) .*\(most recent call first\):$")
ESCAPED = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")

IDLE_FILES = {"threading.py", "queue.py", "selectors.py", "socket.py", "connection.py", "thread.py"}
"""A thread whose innermost frame is in one of these waits for others."""


@dataclass
class Stack:
    current: bool
    """The thread that received the signal."""
    frames: list[tuple[str, int, str]] = field(default_factory=list)
    """File, line and function, innermost first."""

    def place(self, folder: str) -> tuple[str, int] | None:
        """The innermost frame whose file is below the folder."""
        below = folder.rstrip(os.sep) + os.sep
        return next(((file, line) for file, line, _ in self.frames if file.startswith(below)), None)

    @property
    def is_idle(self) -> bool:
        return not self.frames or os.path.basename(self.frames[0][0]) in IDLE_FILES


def parse(text: str) -> Iterator[Stack]:
    """The stacks in what faulthandler wrote."""
    stack: Stack | None = None
    for line in text.splitlines():
        if heading := HEADING.match(line):
            if stack is not None:
                yield stack
            stack = Stack(heading[1] != "Thread")
        elif stack is not None and (frame := FRAME.match(line)):
            stack.frames.append((_unescaped(frame[1]), int(frame[2]), frame[3]))
    if stack is not None:
        yield stack


def crash_place(text: str, folder: str | None) -> tuple[str, int] | None:
    """File and line below `folder` where the thread that crashed was; None if unknown. Other threads are not to
    blame."""
    if folder is None:
        return None
    stacks = list(parse(text))
    crashed = [stack for stack in stacks if stack.current] or stacks
    return next((place for stack in crashed if (place := stack.place(folder))), None)


def work_place(text: str, folder: str | None) -> tuple[str, int] | None:
    """File and line below `folder` where a thread works, or otherwise where one waits. The main thread, which loads
    code and receives signals, is preferred."""
    if folder is None:
        return None
    for stack in sorted(parse(text), key=lambda stack: (stack.is_idle, not stack.current)):
        if place := stack.place(folder):
            return place
    return None


def _unescaped(name: str) -> str:
    """faulthandler writes ASCII only."""
    return ESCAPED.sub(lambda found: chr(int(found[1] or found[2] or found[3], 16)), name)
