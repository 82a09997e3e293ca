"""Loading code within a time limit."""

from collections.abc import Callable
from typing import TypeVar

from server.limited_thread import LimitedThread
from server.reload.failure import ErrorReport, LoadError, describe, describe_hang

T = TypeVar("T")


def run_with_deadline(work: Callable[[], T], seconds: float, undo: Callable[[], None]) -> T:
    """Call `work` on a thread of its own and give its result; the caller's context variables hold there too.

    Raises `LoadError` when `work` raises anything at all, `SystemExit` and `KeyboardInterrupt` included, or
    when it has not ended after `seconds`: then the report names the line that it hangs at, as the thread's
    `doing` does until it ends, and the result that it may still come to is thrown away. Wherever no result is
    given, `undo` is called, and once more when work that was given up does end after all.
    """
    loader = LimitedThread(work, "hearth-loader", when_late=undo)
    loader.start()
    try:
        loader.ended.wait(seconds)
    finally:
        hang = describe_hang(loader.frame, seconds) if not loader.ended.is_set() else None
        if hang is not None:
            loader.doing = _told(hang)
        given_up = loader.give_up()
        if loader.outcome is None:
            undo()
    if loader.outcome is not None:
        return loader.outcome[0]
    if isinstance(loader.error, LoadError):
        raise loader.error
    if loader.error is not None:
        raise LoadError([describe(loader.error)])
    assert given_up and hang is not None, "it has no outcome, no error, and so it hung"
    raise LoadError([hang])


def _told(hang: ErrorReport) -> str:
    """What code is doing that does not come to an end of loading."""
    return "loading code" if hang["file"] is None else f"loading {hang['file']}, line {hang['line']}"
