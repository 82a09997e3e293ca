"""Calling a tool: within its time, on a thread of its own, so that none can hold a run or its neighbours up."""

import asyncio
import json
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from server import counts
from server.engine import cancellation
from server.runs.abandoned import RunThread
from server.runs.run import current_run, within_tool

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

NOTICE_SECONDS = 0.1
"""How soon a cancelled run turns away from a tool that is still at work."""

MOST_PROBLEMS = 5
"""How many of the mistakes in a tool's input the model is told."""


class ToolFailedError(Exception):
    """A tool gave no result. The message is a sentence for the model."""


def call_tool(tool: "BaseTool", arguments: Mapping[str, Any], seconds: float) -> str:
    """What `tool` gives for `arguments`, as text; what is no string is written as JSON where it can be.

    Synchronous and asynchronous tools alike: the latter get an event loop of their own. Raises
    `ToolFailedError` when the tool raises anything at all, gives something that is no text, or has not ended
    after `seconds`, and `RunCancelledError` when the run is cancelled meanwhile; such a tool is given up (see
    `LimitedThread`), and is among the `abandoned_tools` until it ends.
    """
    began = time.monotonic()
    try:
        return _call(tool, arguments, seconds)
    except ToolFailedError:
        counts.TOOL_FAILURES.labels(tool.name).inc()
        raise
    finally:
        counts.TOOL_SECONDS.labels(tool.name).observe(time.monotonic() - began)


def _call(tool: "BaseTool", arguments: Mapping[str, Any], seconds: float) -> str:
    with within_tool(tool.name):
        thread = RunThread(
            lambda: _invoke(tool, dict(arguments)), f"tool {tool.name}", current_run(), doing=tool.name
        )
    thread.start()
    waited = 0.0
    try:
        while not thread.ended.wait(min(NOTICE_SECONDS, max(seconds - waited, 0))) and waited < seconds:
            waited += NOTICE_SECONDS
            cancellation.check()
    finally:
        given_up = thread.give_up()
    cancellation.check()
    if given_up:
        raise ToolFailedError(f"the tool did not answer within {seconds:g} seconds.")
    if thread.error is not None:
        raise ToolFailedError(_told(thread.error)) from thread.error
    assert thread.outcome is not None, "it ended, and not with an error"
    return _written(thread.outcome[0])


def _invoke(tool: "BaseTool", arguments: dict[str, Any]) -> Any:
    only_async = getattr(tool, "coroutine", None) is not None and getattr(tool, "func", None) is None
    if only_async:
        work: Coroutine[Any, Any, Any] = tool.ainvoke(arguments)
        return asyncio.run(work)
    return tool.invoke(arguments)


def _told(error: BaseException) -> str:
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


def _written(result: Any) -> str:
    if isinstance(result, str):
        return _encodable(result)
    try:
        return _encodable(json.dumps(result, ensure_ascii=False, default=str))
    except Exception as error:  # boundary: a result may be anything, with a `__str__` that raises
        raise ToolFailedError(f"the tool gave a {type(result).__name__}, which is no text: {_told(error)}") from error


def _encodable(text: str) -> str:
    """`text` without halves of surrogate pairs, which nothing can send on."""
    return text.encode("utf-8", "replace").decode()
