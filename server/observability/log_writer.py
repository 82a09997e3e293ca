"""Writing the log without waiting for its reader."""

import logging
import os
import select
import threading
import time
from collections import deque

from server.bounds import shortened

MOST_WAITING = 4_000_000
"""Maximum number of characters that wait to be written. Further lines are left out."""
LONGEST_LINE = 20_000
FLUSH_SECONDS = 0.5
RETRY_SECONDS = 1.0


class LogHandler(logging.Handler):
    """Writes to a file descriptor, from a thread of its own.

    Records are formatted in the thread that logs, and without a lock, since somebody's `__str__` may take any time.
    If the descriptor takes no more, lines are left out, and a line says how many.
    """

    def __init__(self, descriptor: int) -> None:
        """Writes to a duplicate of `descriptor`, which others may close."""
        super().__init__()
        self._descriptor = os.dup(descriptor)
        self._waiting: deque[str] = deque()
        self._characters = 0
        self._left_out = 0
        self._is_writing = False
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()

    def createLock(self) -> None:
        """No lock is held while a record is formatted."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            line = self.format(record)
        except Exception as error:  # boundary: what is logged may be anybody's
            line = f"a line of {record.name} can't be formatted: {type(error).__name__}"
        self._put(shortened(line, LONGEST_LINE) + "\n")

    def flush(self) -> None:
        """Wait until all is written, a moment at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._is_writing, FLUSH_SECONDS)

    def _put(self, line: str) -> None:
        with self._changed:
            if self._characters + len(line) > MOST_WAITING:
                self._left_out += 1
                return
            self._waiting.append(line)
            self._characters += len(line)
            if self._thread is None:
                thread = threading.Thread(target=self._write_all, name="log", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no thread can be started now; the next line tries again
                    return
                self._thread = thread
            self._changed.notify_all()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                text = "".join(self._waiting)
                if self._left_out:
                    text += f"... {self._left_out:,} lines of the log are left out\n"
                self._waiting.clear()
                self._characters = self._left_out = 0
                self._is_writing = True
            self._write(text.encode(errors="backslashreplace"))

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                # Somebody has made it non-blocking: a terminal is shared with other programs.
                select.select([], [self._descriptor], [], RETRY_SECONDS)
            except OSError:
                # Nobody reads it any more, or the disk is full: there may be room later.
                time.sleep(RETRY_SECONDS)
                return
