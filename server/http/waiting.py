"""How many slow requests may wait at once, so that a thread is always left for the quick ones."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import QueueFullError

RETRY_AFTER_SECONDS = 5


class WaitingRoom:
    """Holds up to `places` requests that wait for a model, for tools, or for a reload."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._free = threading.BoundedSemaphore(places)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place within this context. Raises `QueueFullError` when there is none."""
        if not self._free.acquire(blocking=False):
            raise QueueFullError(
                f"{self._places} requests wait for a model, tools or a reload. Ask again in a moment.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        try:
            yield
        finally:
            self._free.release()
