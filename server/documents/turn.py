"""The order of threads that share something for a moment each."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turn:
    """One thread at a time: the urgent ones first, and of the others the one that has waited for longest. A lock
    would give it to the thread that has just had it, over and over."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_taken = False
        self._urgent: deque[object] = deque()
        self._others: deque[object] = deque()

    @contextmanager
    def of(self, is_urgent: bool = False) -> Iterator[None]:
        """Wait for the turn, and have it within this block."""
        ticket, line = object(), self._urgent if is_urgent else self._others
        with self._changed:
            line.append(ticket)
            try:
                self._changed.wait_for(lambda: not self._is_taken and (self._urgent or self._others)[0] is ticket)
            finally:
                line.remove(ticket)
            self._is_taken = True
        try:
            yield
        finally:
            with self._changed:
                self._is_taken = False
                self._changed.notify_all()
