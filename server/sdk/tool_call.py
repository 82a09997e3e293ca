"""Calling a tool within its time limit.

A tool that does not end can't be stopped from within its process. The run continues without it, and the worker is
replaced: see `server/workers/`.
"""

import asyncio
import contextvars
import inspect
import re
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from server.sdk import context
from server.sdk.injection import call_input
from server.sdk.jobs import call_as_job, runs_as_job
from server.sdk.tool_error import MOST_PROBLEMS, ToolFailedError, add_hint, as_sentence, is_expected, traceback_of
from server.sdk.tool_result import as_text
from server.sdk.tool_schema import arguments_schema

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

T = TypeVar("T")

NOTICE_SECONDS = 0.1
"""Interval at which a waiting call checks whether its run was cancelled."""


def call_tool(tool: "BaseTool", arguments: Mapping[str, Any], seconds: float) -> str:
    """The result of `tool` for `arguments`, as text: see `server.sdk.tool_result`.

    The tool's own types check the arguments; if it has a JSON schema instead of types, they are checked by that.
    A synchronous tool runs on a thread of its own. All asynchronous tools of a process share one event loop, so that
    a client or a semaphore that a module holds works over any number of calls. Raises `ToolFailedError` if the tool
    raises anything, returns something that can't be text, or has not ended after `seconds`, and `RunCancelledError`
    if the run is cancelled meanwhile. The traceback of an unexpected error is logged as well.

    A tool for the background runs as a job, without this limit: the text has the job's name. So does one that is
    isolated, and is waited for.
    """
    return call_and_show(tool, arguments, seconds, as_text)


def call_and_show(
    tool: "BaseTool", arguments: Mapping[str, Any], seconds: float, show: Callable[[Any], T]
) -> T | str:
    """The same with `show` in the place of `as_text`. It runs on the tool's thread or event loop. What runs as a job
    is text already. Raises what `call_tool` raises."""
    from server.sdk.job_control import JobTool

    if isinstance(tool, JobTool):
        return tool.call(arguments)
    if runs_as_job(tool):
        check_arguments(arguments_schema(tool), arguments)
        return call_as_job(tool, arguments)
    began, failed, run_listener = time.monotonic(), True, context.current().listener
    number = run_listener.tool_began(tool.name, seconds) if run_listener is not None else 0
    try:
        shown = _call(tool, arguments, seconds, number, show)
        failed = False
        return shown
    finally:
        if run_listener is not None:
            run_listener.tool_ended(number, time.monotonic() - began, failed)


def _call(tool: "BaseTool", arguments: Mapping[str, Any], seconds: float, number: int, show: Callable[[Any], T]) -> T:
    if isinstance(tool.args_schema, dict):
        check_arguments(arguments_schema(tool), arguments)
    time_is_up = threading.Event()
    with context.scope(tool=tool.name, tool_call=number, time_is_up=time_is_up):
        work = _begin(tool, dict(arguments), show)
    deadline = time.monotonic() + seconds
    try:
        while not work.ended.wait(max(min(NOTICE_SECONDS, deadline - time.monotonic()), 0.0)):
            context.check_cancelled()
            if time.monotonic() >= deadline:
                raise ToolFailedError(f"the tool did not answer within {seconds:g} seconds.")
        context.check_cancelled()
    finally:
        if not work.ended.is_set():
            time_is_up.set()
            work.cancel()
            if (current := context.current().listener) is not None:
                current.still_running(f"tool {tool.name}", work.ended.is_set)
    if work.error is not None:
        raise _failure(tool, work.error) from work.error
    return cast(T, work.shown)


def _failure(tool: "BaseTool", error: BaseException) -> ToolFailedError:
    add_hint(error)
    if isinstance(error, _NoTextError):
        sentence, error = str(error), error.__cause__ or error
    else:
        sentence = as_sentence(error)
    if is_expected(error):
        return ToolFailedError(sentence)
    current = context.current().listener
    traceback = traceback_of(error) if current is None else current.tool_failed(tool.name, error)
    return ToolFailedError(sentence, traceback)


class _NoTextError(Exception):
    """A result can't become text."""


def check_arguments(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Raises `ToolFailedError` for arguments that do not fit a JSON schema. LangChain hands them on unchecked if a
    tool has only a schema; and a job should not begin with them."""
    from jsonschema import Draft202012Validator

    try:
        problems = list(Draft202012Validator(schema).iter_errors(arguments))
    except re.error:  # Python's own regular expressions are others than those of JSON schemas
        return
    if problems:
        texts = (f"{'.'.join(map(str, one.absolute_path))}: {one.message[:200]}" for one in problems[:MOST_PROBLEMS])
        raise ToolFailedError("; ".join(text.removeprefix(": ") for text in texts) + ".")


class _Work:
    """A running call. After `ended` is set, its outcome is in `shown` or in `error`."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.shown: Any = None
        self.error: BaseException | None = None
        self.cancel: Callable[[], object] = lambda: None
        """Ask it to end. A coroutine ends at its next `await`, a thread never."""


def _begin(tool: "BaseTool", arguments: dict[str, Any], show: Callable[[Any], object]) -> _Work:
    if getattr(tool, "coroutine", None) is not None and getattr(tool, "func", None) is None:
        return _event_loop.begin(lambda: tool.ainvoke(call_input(tool, arguments)), show)
    work, copied = _Work(), contextvars.copy_context()

    def invoke() -> None:
        try:
            work.shown = copied.run(lambda: _shown(tool.invoke(call_input(tool, arguments)), show))
        except BaseException as error:  # boundary: a tool may raise anything
            if _is_async_only(tool, error):
                copied.run(go_on)
                return
            work.error = error
        work.ended.set()

    def go_on() -> None:
        other = _event_loop.begin(lambda: tool.ainvoke(call_input(tool, arguments)), show)

        def cancel() -> None:
            other.cancel()  # which the loop sets in a moment

        work.cancel = cancel
        other.ended.wait()
        work.shown, work.error = other.shown, other.error
        work.ended.set()

    threading.Thread(target=invoke, name=f"tool {tool.name}", daemon=True).start()
    return work


def _is_async_only(tool: "BaseTool", error: BaseException) -> bool:
    """Whether `error` says that the tool's class has only `_arun`: its `_run` itself raised NotImplementedError."""
    from langchain_core.tools import BaseTool

    if not isinstance(error, NotImplementedError) or type(tool)._arun is BaseTool._arun:
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    run = inspect.unwrap(type(tool)._run)
    return last is not None and last.tb_frame.f_code is getattr(run, "__code__", None)


def _shown(result: Any, show: Callable[[Any], T]) -> T:
    try:
        return show(result)
    except Exception as error:  # boundary: a result may be anything, with a `__str__` that raises
        kind = type(result).__name__
        raise _NoTextError(f"the tool gave a {kind}, which is no text: {as_sentence(error)}") from error


class _EventLoop:
    """One event loop for all asynchronous tools, on a thread that begins with the first call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beginning = threading.Lock()
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, make: Callable[[], Coroutine[Any, Any, Any]], show: Callable[[Any], object]) -> _Work:
        """Let the loop run what `make` makes, in a copy of this context."""
        with self._beginning:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="event loop of tools", daemon=True).start()
        loop, work, copied = self._loop, _Work(), contextvars.copy_context()

        async def run() -> None:
            try:
                work.shown = _shown(await make(), show)
            except BaseException as error:  # boundary: a tool may raise anything
                work.error = error

        def ended(task: "asyncio.Task[None]") -> None:
            running.discard(task)
            work.ended.set()

        def start() -> None:
            task = loop.create_task(run(), context=copied)
            running.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(ended)
            work.cancel = lambda: loop.call_soon_threadsafe(task.cancel)

        running = self._running
        loop.call_soon_threadsafe(start)
        return work


_event_loop = _EventLoop()
