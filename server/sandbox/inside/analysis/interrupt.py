"""A limit of time for code of a library that never looks at a clock."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(BaseException):
    """The time is up. No Exception, because libraries catch these."""


@contextlib.contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raises `Interrupted` in Python code that is still running then.

    Outside of the main thread, and in code that is not Python, there is no limit but the sandbox's.
    """
    if threading.current_thread() is not threading.main_thread() or seconds <= 0:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, stop)
    # Again and again: code that is left by an error may catch this one.
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
