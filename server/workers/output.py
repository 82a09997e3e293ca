"""What a worker writes to standard output and error, in the server's log: by line, and bounded."""

import logging
import time
from collections import deque

log = logging.getLogger("worker")

LINE_CHARACTERS = 2000
LINE_BYTES = 4 * LINE_CHARACTERS
LINES_A_SECOND = 200
CHUNK_BYTES = 1 << 16
BYTES_A_SECOND = 4 << 20
"""How fast a worker's output is read. A worker that writes faster waits; the server doesn't."""
READ_SECONDS = 0.005
FLOOD_SECONDS = 0.05
"""The pauses between two reads: many small writes are read together. The longer one while lines are left out."""
TAIL_LINES = 20


class OutputLog:
    """One worker's lines, from the bytes of its pipe. Used by one thread."""

    def __init__(self, label: str, level: int = logging.INFO) -> None:
        self.label = label
        self._level = level
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        """The last lines, also those that were not logged."""
        self._partial = b""
        self._window = 0.0
        self._logged = 0
        self._left_out = 0

    def feed(self, data: bytes) -> float:
        """Log `data`, which was read. Returns the number of seconds to wait before the next read."""
        self._new_window()
        first, newline, rest = data.partition(b"\n")
        if not newline:
            self._partial = _bounded(self._partial + data)
            return self._pause(data)
        self._line(_bounded(self._partial + first))
        whole, _, partial = rest.rpartition(b"\n")
        self._partial = _bounded(partial)
        if whole:
            self._lines(whole)
        return self._pause(data)

    def end(self) -> None:
        """Log the last line, if it has no end of line."""
        if self._partial:
            self._line(self._partial)
            self._partial = b""
        self.report_left_out()

    @property
    def has_left_out(self) -> bool:
        return self._left_out > 0

    def report_left_out(self) -> None:
        """Log how many lines were not logged since the last report."""
        if self._left_out:
            log.log(self._level, "[%s] ... %s lines left out", self.label, f"{self._left_out:,}")
            self._left_out = 0

    def _pause(self, data: bytes) -> float:
        return max(len(data) / BYTES_A_SECOND, FLOOD_SECONDS if self._left_out else READ_SECONDS)

    def _new_window(self) -> None:
        if (now := time.monotonic()) - self._window >= 1:
            self._window = now
            self._logged = 0

    def _lines(self, whole: bytes) -> None:
        """Log as many as this second has room for. The others are counted, and the last of them are in `tail`."""
        count = whole.count(b"\n") + 1
        room = max(LINES_A_SECOND - self._logged, 0)
        if count <= room + TAIL_LINES:
            for line in whole.split(b"\n"):
                self._line(line)
            return
        *lines, rest = whole.split(b"\n", room)
        for line in lines:
            self._line(line)
        self._left_out += count - room - TAIL_LINES
        for line in rest.rsplit(b"\n", TAIL_LINES)[1:]:
            self._line(line)

    def _line(self, data: bytes) -> None:
        text = _text(data)
        if not text:
            return
        self.tail.append(text)
        if self._logged < LINES_A_SECOND:
            self._logged += 1
            log.log(self._level, "[%s] %s", self.label, text)
        else:
            self._left_out += 1


def _bounded(data: bytes) -> bytes:
    """The beginning of a line. Of a progress bar, which goes back to the start of its line, only the last state."""
    if b"\r" in data:
        data = data.rstrip(b"\r").rpartition(b"\r")[2]
    return data[:LINE_BYTES]


def _text(data: bytes) -> str:
    text = _bounded(data).decode(errors="replace").rstrip()
    return text if len(text) <= LINE_CHARACTERS else text[:LINE_CHARACTERS] + "..."
