"""Work that may never end, on a thread of its own that can be given up."""

import contextvars
import ctypes
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

PEOPLES_CODE_SECONDS = 1.0
"""How long a thread that was given up is ended in people's code only; later in that of libraries as well."""
_LONGEST_PAUSE = 0.1  # seconds between two looks at a thread

_OWN_FOLDER = str(Path(__file__).parent) + os.sep
_HANDLES_LOCKS = re.compile("acquire|release|^__enter__$|^__exit__$")
_raise_in = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


class GivenUpError(SystemExit):
    """Raised inside a thread whose time is up.

    It is a `SystemExit` because `threading` lets that end a thread without a word.
    """


class LimitedThread(threading.Thread, Generic[T]):
    """Does `work` on a daemon thread; the context variables of whoever made it hold there too.

    Once `ended` is set, what came of it is in `outcome` (a tuple of one) or in `error`, which may be anything
    that can be raised. Work that was given up gets a `GivenUpError` raised inside it, once: as soon as it executes
    people's code, which loses no lock that it holds by `with`, and after a while in libraries' code as well (see
    `_hands_no_lock`). This ends any loop of Python code that does not catch it. It does not end a call into C that
    blocks before that call returns.
    """

    def __init__(self, work: Callable[[], T], name: str, when_late: Callable[[], None] = lambda: None) -> None:
        """`when_late` is called on the thread when work that was given up has ended after all."""
        super().__init__(name=name, daemon=True)
        self.ended = threading.Event()
        self.doing = name
        """What it is told to be doing, once it was given up."""
        self.outcome: tuple[T] | None = None
        self.error: BaseException | None = None
        self.given_up_at: float | None = None
        """When it was given up, by `time.monotonic()`; None unless it was."""
        self._work = work
        self._when_late = when_late
        self._context = contextvars.copy_context()
        self._verdict = threading.Lock()
        self._over = False

    def run(self) -> None:
        outcome: tuple[T] | None = None
        error: BaseException | None = None
        try:
            outcome = (self._context.run(self._work),)
        except BaseException as raised:  # boundary: the work may raise anything, and whoever waits is told
            error = raised
        try:
            with self._verdict:
                self._over = True
                if self.given_up_at is None:
                    self.outcome, self.error = outcome, error
                    self.ended.set()
                    return
            # What was raised inside the work and has not landed by now must not land in what follows. It can't be
            # taken back: Python would look for it for ever, at every turn of every loop.
            for _ in range(2):
                pass
        except GivenUpError:
            pass
        self._when_late()

    def give_up(self) -> bool:
        """Settle that the work counts as not done, unless it has ended by now. Returns whether that is so.

        It does not wait until the work is ended.
        """
        with self._verdict:
            if self.ended.is_set() or self.ident is None:
                return False
            if self.given_up_at is not None:
                return True
            self.given_up_at = time.monotonic()
        if not self.end_work():
            _ender.take(self)
        return True

    def end_work(self) -> bool:
        """Raise `GivenUpError` inside the work if it may land where the work is now.

        Returns whether nothing is left to do: it was raised, or the work is over.
        """
        from server.reload.naming import file_of  # it imports this module

        assert self.ident is not None and self.given_up_at is not None, "it was given up"
        anywhere = time.monotonic() - self.given_up_at > PEOPLES_CODE_SECONDS
        with self._verdict:
            if self._over:
                return True
            # While this thread has Python's lock, the other stays where it is seen.
            frame = self.frame
            if frame is None:
                return False
            peoples = file_of(frame.f_code.co_filename) is not None
            if not peoples and not (anywhere and _hands_no_lock(frame.f_code)):
                return False
            _raise_in(self.ident, GivenUpError)
            return True

    @property
    def frame(self) -> FrameType | None:
        """What it executes now."""
        return None if self.ident is None else sys._current_frames().get(self.ident)


def _hands_no_lock(code: CodeType) -> bool:
    """Whether an exception may be raised, from outside, in a thread whose innermost frame executes `code`, which is
    not people's.

    It lands behind the call, or at the turn of the loop, that is executed. Where a lock is taken or given back, that
    may be between the lock and the `try` that belongs to it. Then the lock is a dead thread's for good, and if it is
    that of the console's handler or of an import, the whole server waits for it. So it lands neither in code that
    names what handles locks nor in Hearth's own.
    """
    # Most threads that wait do so here, and it is made for exceptions that come while it waits.
    if code is threading.Condition.wait.__code__:
        return True
    names = (code.co_name, *code.co_names)
    return not code.co_filename.startswith(_OWN_FOLDER) and not any(map(_HANDLES_LOCKS.search, names))


class _Ender:
    """Ends the work of threads that were given up, on a thread of its own as long as there are such."""

    def __init__(self) -> None:
        self._threads: list[LimitedThread[Any]] = []
        self._lock = threading.Lock()
        self._at_work = False

    def take(self, thread: LimitedThread[Any]) -> None:
        """Look at `thread` until its work can be ended, or is over."""
        with self._lock:
            self._threads.append(thread)
            if not self._at_work:
                threading.Thread(target=self._look, name="hearth-ender", daemon=True).start()
                self._at_work = True

    def _look(self) -> None:
        while True:
            with self._lock:
                threads = list(self._threads)
            # Without the lock: whoever gives up another must not wait for this.
            done = {one for one in threads if one.end_work()}
            with self._lock:
                self._threads = [one for one in self._threads if one not in done]
                if not self._threads:
                    self._at_work = False
                    return
                latest = max(one.given_up_at or 0 for one in self._threads)
            # Often at first, and hardly ever at what has been blocking for long.
            time.sleep(min(max((time.monotonic() - latest) / 1000, 0.001), _LONGEST_PAUSE))


_ender = _Ender()
