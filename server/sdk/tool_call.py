"""Calling a tool within its time limit.

A tool that does not end can't be stopped from within its process. The run continues without it, and the worker is
replaced: see `server/workers/`.
"""

import asyncio
import contextvars
import json
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from server.sdk import cancellation
from server.sdk.run import listener, within_tool

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

NOTICE_SECONDS = 0.1
"""Interval at which a waiting call checks whether its run was cancelled."""

MOST_PROBLEMS = 5
"""Maximum number of mistakes in a tool's input that the model reads."""


class ToolFailedError(Exception):
    """A tool gave no result. The message is a sentence for the model."""


def call_tool(tool: "BaseTool", arguments: Mapping[str, Any], seconds: float) -> str:
    """The result of `tool` for `arguments`, as text; a value that is no string is written as JSON if possible.

    A synchronous tool runs on a thread of its own. All asynchronous tools of a process share one event loop, so that
    a client or a semaphore that a module holds works over any number of calls. Raises `ToolFailedError` if the tool
    raises anything, returns something that can't be text, or has not ended after `seconds`, and `RunCancelledError`
    if the run is cancelled meanwhile.
    """
    began, failed, run_listener = time.monotonic(), True, listener()
    number = run_listener.tool_began(tool.name, seconds) if run_listener is not None else 0
    try:
        text = _call(tool, arguments, seconds)
        failed = False
        return text
    finally:
        if run_listener is not None:
            run_listener.tool_ended(number, time.monotonic() - began, failed)


def _call(tool: "BaseTool", arguments: Mapping[str, Any], seconds: float) -> str:
    time_is_up = threading.Event()
    with within_tool(tool.name), cancellation.time_limit(time_is_up):
        work = _begin(tool, dict(arguments))
    deadline = time.monotonic() + seconds
    try:
        while not work.ended.wait(max(min(NOTICE_SECONDS, deadline - time.monotonic()), 0.0)):
            cancellation.check()
            if time.monotonic() >= deadline:
                raise ToolFailedError(f"the tool did not answer within {seconds:g} seconds.")
        cancellation.check()
    finally:
        if not work.ended.is_set():
            time_is_up.set()
            work.cancel()
            if (current := listener()) is not None:
                current.still_running(f"tool {tool.name}", work.ended.is_set)
    if work.error is not None:
        raise ToolFailedError(_as_sentence(work.error)) from work.error
    return _as_text(work.value)


class _Work:
    """A running call. After `ended` is set, its outcome is in `value` or in `error`."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self.cancel: Callable[[], object] = lambda: None
        """Ask it to end. A coroutine ends at its next `await`, a thread never."""


def _begin(tool: "BaseTool", arguments: dict[str, Any]) -> _Work:
    only_async = getattr(tool, "coroutine", None) is not None and getattr(tool, "func", None) is None
    if only_async:
        return _event_loop.begin(lambda: tool.ainvoke(arguments))
    work, context = _Work(), contextvars.copy_context()

    def invoke() -> None:
        try:
            work.value = context.run(tool.invoke, arguments)
        except BaseException as error:  # boundary: a tool may raise anything
            work.error = error
        work.ended.set()

    threading.Thread(target=invoke, name=f"tool {tool.name}", daemon=True).start()
    return work


class _EventLoop:
    """One event loop for all asynchronous tools, on a thread that begins with the first call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beginning = threading.Lock()
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> _Work:
        """Let the loop run what `make` makes, in a copy of this context."""
        with self._beginning:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="event loop of tools", daemon=True).start()
        loop, work, context = self._loop, _Work(), contextvars.copy_context()

        async def run() -> None:
            try:
                work.value = await make()
            except BaseException as error:  # boundary: a tool may raise anything
                work.error = error

        def ended(task: "asyncio.Task[None]") -> None:
            running.discard(task)
            work.ended.set()

        def start() -> None:
            task = loop.create_task(run(), context=context)
            running.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(ended)
            work.cancel = lambda: loop.call_soon_threadsafe(task.cancel)

        running = self._running
        loop.call_soon_threadsafe(start)
        return work


_event_loop = _EventLoop()


def _as_sentence(error: BaseException) -> str:
    """What the model reads about `error`: a sentence that the tool chose, or what kind of error it was."""
    from langchain_core.tools import ToolException
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems[:MOST_PROBLEMS]) + "."
    try:
        message = _encodable(str(error))
    except Exception:  # boundary: an exception class may be anybody's
        message = ""
    if isinstance(error, ToolException) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _as_text(result: Any) -> str:
    if isinstance(result, str):
        return _encodable(result)
    try:
        return _encodable(json.dumps(result, ensure_ascii=False, default=str))
    except Exception as error:  # boundary: a result may be anything, with a `__str__` that raises
        raise ToolFailedError(
            f"the tool gave a {type(result).__name__}, which is no text: {_as_sentence(error)}"
        ) from error


def _encodable(text: str) -> str:
    """`text` without halves of surrogate pairs, which nothing can send on."""
    return text.encode("utf-8", "replace").decode()
