"""How many slow requests may wait at once, so that a thread is always left for the quick ones."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from constants import Settings
from server.errors import QueueFullError

RETRY_AFTER_SECONDS = 5
MOST_PLACES = 64


def places(settings: Settings) -> int:
    """How many requests of one kind may wait at once, besides those that wait for their runs."""
    return min(settings.MAX_RUNS, MOST_PLACES)


class WaitingRoom:
    """Holds a bounded number of requests that wait."""

    def __init__(self, size: int, what_they_do: str) -> None:
        """`what_they_do` ends the sentence `64 requests ...` that turns others away."""
        self._size = size
        self._what_they_do = what_they_do
        self._free = threading.BoundedSemaphore(size)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place within this context. Raises `QueueFullError` when there is none."""
        if not self._free.acquire(blocking=False):
            raise QueueFullError(
                f"{self._size} requests {self._what_they_do}. Ask again in a moment.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        try:
            yield
        finally:
            self._free.release()
