"""One thread for all workers, which reads their output and how they end."""

import contextlib
import heapq
import itertools
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

Call = Callable[[], None]


class EventLoop:
    """Calls functions, in its own thread, when a descriptor can be read or a time has come.

    A call that raises is logged, and the others are not affected. A call that waits makes all others wait.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._woken, self._waking = socket.socketpair()
        self._woken.setblocking(False)
        self._waking.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)
        self._calls: deque[Call] = deque()
        self._timers: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="worker event loop", daemon=True)
        self._thread.start()

    def call(self, call: Call) -> None:
        """Let the loop's thread call `call` soon. Any thread may use this; only the loop's thread uses `watch`,
        `forget` and `later`."""
        self._calls.append(call)
        with contextlib.suppress(OSError):  # full: the thread wakes up anyway; closed: nothing is called any more
            self._waking.send(b" ")

    def watch(self, descriptor: int, call: Call) -> None:
        """Call `call` each time that `descriptor` can be read, until `forget`."""
        self._selector.register(descriptor, selectors.EVENT_READ, call)

    def forget(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    def later(self, seconds: float, call: Call) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), call))

    def stop(self) -> None:
        """End the thread. What is still watched is forgotten."""
        self._stopped = True
        self.call(lambda: None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def _run(self) -> None:
        while not self._stopped:
            seconds = max(self._timers[0][0] - time.monotonic(), 0) if self._timers else None
            for key, _ in self._selector.select(seconds):
                # An earlier call of this round may have taken it away, and closed it.
                if self._selector.get_map().get(key.fd) is key:
                    self._do(key.data)
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._do(heapq.heappop(self._timers)[2])
            self._do_calls()
        self._do_calls()
        self._selector.close()
        self._woken.close()
        self._waking.close()

    def _do_calls(self) -> None:
        while self._calls:
            self._do(self._calls.popleft())

    @staticmethod
    def _do(call: Call) -> None:
        try:
            call()
        except Exception:  # boundary: this thread serves all workers
            log.exception("A call of the worker event loop failed")
