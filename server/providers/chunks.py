"""An asynchronous stream, read by a thread that may leave it at any time."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

NOTICE_SECONDS = 0.1
"""How soon it is noticed that nobody wants it any more."""


class SilentError(Exception):
    """Nothing came."""


def read(stream: Callable[[], AsyncIterator[T]], seconds: float, check: Callable[[], None]) -> Iterator[T]:
    """What `stream()` gives, as it comes.

    Raises what it raises, `SilentError` when nothing has come for `seconds`, and what `check` raises, which is called
    ten times a second. However it ends, the stream is closed, and with it the connection that it reads from.
    """
    told: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()

    async def pump() -> None:
        try:
            async for chunk in stream():
                told.put((chunk,))
            told.put(None)
        except Exception as error:  # boundary: the task's end; whoever reads is told
            told.put(error)

    check()
    task = asyncio.run_coroutine_threadsafe(pump(), _loop())
    silent = 0.0
    try:
        while True:
            check()
            try:
                item = told.get(timeout=NOTICE_SECONDS)
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


def let_go(closing: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs `closing()`, which closes connections that streams were read from, where they were opened. Does not wait
    for it."""
    loop = _loop()
    loop.call_soon_threadsafe(lambda: loop.create_task(closing()))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all streams: the packages share connections between models, and those belong to one loop."""
    loop = asyncio.new_event_loop()

    def run(*_: Any) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    threading.Thread(target=run, name="providers", daemon=True).start()
    return loop
