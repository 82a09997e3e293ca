"""The server's load: sampled once for all who watch it, with the last hour's tokens a second."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from server.runs.events import Events

SAMPLE_SECONDS = 1.0
"""Interval of samples while somebody watches."""
HISTORY_SECONDS = 10.0
"""Interval of the points of the last hour."""
POINTS = 360


class Load:
    """Samples of the server's load, as events. They don't end. Safe for any number of threads."""

    def __init__(self, written: Callable[[], int], sample: Callable[[], dict[str, Any]]) -> None:
        """`written` returns the number of tokens that were written since the server's start, `sample` what else a
        sample has. Both may be called from any thread."""
        self._written = written
        self._sample = sample
        self._history: deque[dict[str, float]] = deque(maxlen=POINTS)
        self._watchers = 0
        self._last = (time.monotonic(), 0)
        self._point = self._last
        self._closed = False
        self._changed = threading.Condition()
        # Higher than the numbers before a restart.
        self.events = Events(last=(), first=int(time.time() * 1000))

    def open(self) -> None:
        """Begin to sample."""
        threading.Thread(target=self._run, name="load", daemon=True).start()

    def close(self) -> None:
        """Stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def watch(self) -> None:
        """Somebody reads the samples, until `unwatch`."""
        with self._changed:
            self._watchers += 1
            self._changed.notify_all()

    def unwatch(self) -> None:
        """Undo `watch`."""
        with self._changed:
            self._watchers -= 1

    def now(self) -> dict[str, Any]:
        """A sample for one reader."""
        with self._changed:
            rate = self._history[-1]["tokens_per_second"] if self._history else 0.0
        return {"time": time.time(), "tokens_per_second": rate, **self._sample()}

    def history(self) -> list[dict[str, float]]:
        """The points of the last hour, the oldest first: `time` in seconds since 1970, `tokens_per_second`."""
        with self._changed:
            return list(self._history)

    def _run(self) -> None:
        while True:
            with self._changed:
                watched = bool(self._watchers)
                if watched:
                    self._changed.wait_for(lambda: self._closed, timeout=SAMPLE_SECONDS)
                else:
                    # Without watchers only the points of the history are taken.
                    self._changed.wait_for(lambda: self._closed or self._watchers, timeout=HISTORY_SECONDS)
                    watched = bool(self._watchers)
                if self._closed:
                    return
            now, written = time.monotonic(), self._written()
            if now - self._point[0] >= HISTORY_SECONDS:
                with self._changed:
                    self._history.append({"time": time.time(), "tokens_per_second": _rate(self._point, now, written)})
                self._point = (now, written)
            if watched:
                rate = _rate(self._last, now, written)
                self.events.publish("sample", {"time": time.time(), "tokens_per_second": rate, **self._sample()})
            self._last = (now, written)


def _rate(since: tuple[float, int], now: float, written: int) -> float:
    return round((written - since[1]) / max(now - since[0], 1e-3), 1)
