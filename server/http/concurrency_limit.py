"""A limit for slow requests, so that threads are left for quick ones."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from constants import Settings
from server.errors import QueueFullError

RETRY_AFTER_SECONDS = 5
MAX_WAITING = 64


def max_waiting(settings: Settings) -> int:
    """Maximum number of waiting requests of one kind, besides those that wait for their runs."""
    return min(settings.MAX_RUNS, MAX_WAITING)


class ConcurrencyLimit:
    """Limits the number of requests that wait at the same time."""

    def __init__(self, size: int, what_they_do: str) -> None:
        """`what_they_do` completes the sentence `64 requests ...` of the error message."""
        self._size = size
        self._what_they_do = what_they_do
        self._free = threading.BoundedSemaphore(size)

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Count this request within the context. Raises `QueueFullError` at the limit."""
        if not self._free.acquire(blocking=False):
            raise QueueFullError(
                f"{self._size} requests {self._what_they_do}. Ask again in a moment.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        try:
            yield
        finally:
            self._free.release()
