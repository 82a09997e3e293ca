"""A tool's exception: the sentence that the model reads about it, and the traceback that people read."""

import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from server.sdk.tool_result import encodable

MOST_PROBLEMS = 5
"""Maximum number of mistakes in a tool's input, of notes, and of exceptions in a group, that the model reads."""
DEEPEST = 5
"""Maximum number of exceptions that led to one another."""
LONGEST_SENTENCE = 4_000
"""Characters of a sentence that the tool did not choose."""
_CALLERS = ("asyncio", "concurrent", "contextvars", "langchain_core", "pydantic", "server", "threading")
"""Packages whose frames come before those of the tool."""
_SQLITE_HINT = (
    "Each call of a tool runs on a thread of its own. Connect with sqlite3.connect(path, check_same_thread=False), "
    'and guard the connection with a lock: see "Connections" in docs/tools-and-agents.md.'
)


class ToolFailedError(Exception):
    """A tool gave no result. The message is a sentence for the model. `traceback` is for people: None where the tool
    said itself that the call can't be done, or took too long."""

    def __init__(self, message: str, traceback: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback


def as_sentence(error: BaseException) -> str:
    """What the model reads: the sentence that the tool chose (`ToolException`), or the kind of the error and its
    message, with its notes, the exceptions of a group, and those that it was raised from, shortened."""
    from langchain_core.tools import ToolException

    sentence = encodable(_sentence(error, DEEPEST))
    if isinstance(error, ToolException) or len(sentence) <= LONGEST_SENTENCE:
        return sentence
    return sentence[:LONGEST_SENTENCE] + " ..."


def is_expected(error: BaseException) -> bool:
    """Whether the error is no mistake in the tool: it says itself that the call can't be done, or the input does not
    fit its arguments."""
    from langchain_core.tools import ToolException

    return isinstance(error, ToolException) or (_is_of_pydantic(error) and not _own(error.__traceback__))


def add_hint(error: BaseException) -> None:
    """Add a note to an error that has a known remedy."""
    if type(error).__name__ == "ProgrammingError" and "SQLite objects created in a thread" in _message(error):
        error.add_note(_SQLITE_HINT)


def traceback_of(error: BaseException) -> str:
    """The traceback, from the tool's first frame on."""
    frames = _own(error.__traceback__) or error.__traceback__
    return encodable("".join(traceback.format_exception(type(error), error, frames)))


def _sentence(error: BaseException, depth: int) -> str:
    from langchain_core.tools import ToolException

    message = _message(error)
    notes = "".join(f" {note}" for note in getattr(error, "__notes__", [])[:MOST_PROBLEMS])
    if isinstance(error, ToolException) and message:
        return message + notes
    if _is_of_pydantic(error):
        problems: Any = error
        sentence = _problems(problems.errors())
        if _own(error.__traceback__):
            sentence = f"{type(error).__name__}: {sentence}"
    else:
        sentence = f"{type(error).__name__}: {message}" if message else type(error).__name__
    sentence += notes
    if depth == 0:
        return sentence
    if isinstance(error, BaseExceptionGroup):
        inner = [_sentence(one, depth - 1) for one in error.exceptions[:MOST_PROBLEMS]]
        sentence += f": {'; '.join(inner)}"
    if error.__cause__ is not None:
        sentence += f" (caused by {_sentence(error.__cause__, depth - 1)})"
    return sentence


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # boundary: an exception class may be anybody's
        return ""


def _is_of_pydantic(error: BaseException) -> bool:
    """Whether it is a ValidationError, of pydantic's first or second version."""
    kind = type(error)
    return kind.__name__ == "ValidationError" and kind.__module__.partition(".")[0] in ("pydantic", "pydantic_core")


def _problems(problems: Sequence[Any]) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems[:MOST_PROBLEMS]) + "."


def _own(frames: TracebackType | None) -> TracebackType | None:
    """The frames from the first one of the tool's own on; None where there is none."""
    while frames is not None:
        module = str(frames.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _CALLERS or module.startswith(("server.tools", "server.agent")):
            return frames
        frames = frames.tb_next
    return None
