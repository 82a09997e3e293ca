"""Work that may never end, on a thread of its own that can be given up."""

import contextvars
import ctypes
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Generic, TypeVar

T = TypeVar("T")


class GivenUpError(SystemExit):
    """Raised inside a thread whose time is up.

    It is a `SystemExit` because `threading` lets that end a thread without a word.
    """


class LimitedThread(threading.Thread, Generic[T]):
    """Does `work` on a daemon thread; the context variables of whoever made it hold there too.

    Once `ended` is set, what came of it is in `outcome` (a tuple of one) or in `error`, which may be anything
    that can be raised. Work that was given up gets a `GivenUpError` raised inside it. This ends any loop of
    Python code that does not catch it. It does not end a call into C that blocks before that call returns.
    """

    def __init__(self, work: Callable[[], T], name: str, when_late: Callable[[], None] = lambda: None) -> None:
        """`when_late` is called on the thread when work that was given up has ended after all."""
        super().__init__(name=name, daemon=True)
        self.ended = threading.Event()
        self.outcome: tuple[T] | None = None
        self.error: BaseException | None = None
        self._work = work
        self._when_late = when_late
        self._context = contextvars.copy_context()
        self._verdict = threading.Lock()
        self._given_up = False

    def run(self) -> None:
        outcome: tuple[T] | None = None
        error: BaseException | None = None
        try:
            outcome = (self._context.run(self._work),)
        except BaseException as raised:  # boundary: the work may raise anything, and whoever waits is told
            error = raised
        with self._verdict:
            if not self._given_up:
                self.outcome, self.error = outcome, error
                self.ended.set()
                return
        self._when_late()

    def give_up(self) -> bool:
        """Settle that the work counts as not done, unless it has ended by now. Returns whether that is so."""
        with self._verdict:
            if self.ended.is_set() or self.ident is None:
                return False
            self._given_up = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(GivenUpError))
        return True

    @property
    def frame(self) -> FrameType | None:
        """What it executes now."""
        return None if self.ident is None else sys._current_frames().get(self.ident)
