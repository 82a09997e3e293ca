"""A server's output as a pipe, whose reader stops reading when a test wants that."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK_BYTES = 1 << 16
END_SECONDS = 30.0


class LogPipe:
    """Copies what is written to `descriptor` into a file."""

    def __init__(self, file: Path) -> None:
        """Starts to read."""
        self._file = file
        self._from, self.descriptor = os.pipe()
        self._may_read = threading.Event()
        self._may_read.set()
        self._thread = threading.Thread(target=self._copy, name="log pipe", daemon=True)
        self._thread.start()

    @contextmanager
    def unread(self) -> Iterator[None]:
        """Within it nobody reads. The pipe is full as soon as the kernel's 64 KiB are."""
        self._may_read.clear()
        try:
            yield
        finally:
            self._may_read.set()

    def close(self) -> None:
        """After the server has ended: wait until all is in the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        self._thread.join(END_SECONDS)
        assert not self._thread.is_alive(), "somebody still has the server's output open"

    def _copy(self) -> None:
        with self._file.open("ab", buffering=0) as file:
            while data := os.read(self._from, CHUNK_BYTES):
                file.write(data)
                self._may_read.wait()
        os.close(self._from)
