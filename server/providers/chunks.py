"""Reading an asynchronous stream from a thread that may stop at any time."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

NOTICE_SECONDS = 0.1
"""Interval of the checks whether the stream is still wanted."""


class SilentError(Exception):
    """Nothing has come within the time limit."""


def read(stream: Callable[[], AsyncIterator[T]], seconds: float, check: Callable[[], None]) -> Iterator[T]:
    """The items of `stream()`, as they come.

    Raises the stream's errors, `SilentError` if nothing has come for `seconds`, and what `check` raises, which is
    called ten times a second. In every case the stream and its connection are closed at the end.
    """
    received: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()

    async def pump() -> None:
        try:
            async for chunk in stream():
                received.put((chunk,))
            received.put(None)
        except Exception as error:  # boundary: the task's end; the reader gets the error
            received.put(error)

    check()
    task = asyncio.run_coroutine_threadsafe(pump(), _loop())
    silent = 0.0
    try:
        while True:
            check()
            try:
                item = received.get(timeout=NOTICE_SECONDS)
            except Empty:
                silent += NOTICE_SECONDS
                if silent >= seconds:
                    raise SilentError from None
                continue
            silent = 0.0
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        task.cancel()


def close_later(closing: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `closing()`, which closes connections of streams, in the event loop that opened them. Does not wait for
    it."""
    loop = _loop()
    loop.call_soon_threadsafe(lambda: loop.create_task(closing()))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all streams. The packages share connections between models, and these belong to one loop."""
    loop = asyncio.new_event_loop()

    def run(*_: Any) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    threading.Thread(target=run, name="providers", daemon=True).start()
    return loop
