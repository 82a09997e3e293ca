"""What is told about code that could not be loaded."""

import importlib
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TypedDict

from server.reload.naming import file_of, readable

_OWN_FOLDER = str(Path(__file__).parent)
_IMPORT_SYSTEM = ("<frozen importlib", str(Path(importlib.__file__).parent))
_LONGEST_TRACEBACK = 20_000  # characters


class ErrorReport(TypedDict):
    """One error of a reload.

    `file` is like `server/tools/calculator.py`; it and `line` are None where no place in the reloadable code
    can be named. `traceback` holds only frames of that code and of what it called, with the lines as
    executed.
    """

    file: str | None
    line: int | None
    type: str
    message: str
    traceback: str


class LoadError(Exception):
    """Code could not be loaded; `errors` says all that is known about why.

    `left_behind` says what it did to the process meanwhile (see `residue`).
    """

    def __init__(self, errors: Sequence[ErrorReport]) -> None:
        super().__init__("; ".join(f"{error['file']}: {error['message']}" for error in errors))
        self.errors = list(errors)
        self.left_behind: list[str] = []


def problem(file: str | None, line: int | None, kind: str, message: str) -> ErrorReport:
    """A report about something that no exception of the reloadable code stands for."""
    place = "" if file is None else f'  File "{file}"' + ("" if line is None else f", line {line}") + "\n"
    return ErrorReport(file=file, line=line, type=kind, message=message, traceback=f"{place}{kind}: {message}\n")


def describe(error: BaseException) -> ErrorReport:
    """A report about an exception that reloadable code raised, at import or later.

    The place is the innermost line of reloadable code in its traceback.
    """
    summary = traceback.TracebackException.from_exception(error, compact=True)
    _strip(summary)
    file, line = _innermost(summary.stack)
    return ErrorReport(
        file=file,
        line=line,
        type=type(error).__name__,
        message=readable(str(summary)) or type(error).__name__,
        traceback=readable(_shortened("".join(summary.format()))),
    )


def describe_syntax_error(error: SyntaxError | ValueError, file: str, data: bytes) -> ErrorReport:
    """A report about a file that does not compile. `data` is what the file held."""
    if not isinstance(error, SyntaxError):
        error = SyntaxError(str(error))
    line = error.lineno or None
    error.filename = file
    if error.text is None and line is not None:
        # The compiler's later stages look for the text on disk, under a name that is not there.
        lines = data.decode("utf-8", errors="replace").splitlines()
        error.text = lines[line - 1] if line <= len(lines) else None
    return ErrorReport(
        file=file,
        line=line,
        type=type(error).__name__,
        message=error.msg,
        traceback="".join(traceback.format_exception_only(error)),
    )


def describe_hang(frame: FrameType | None, seconds: float) -> ErrorReport:
    """A report about a thread that did not finish within `seconds`. `frame` is what it executes now."""
    stack = traceback.StackSummary.extract(reversed(list(traceback.walk_stack(frame)))) if frame else None
    shown = _stripped(stack or traceback.StackSummary())
    file, line = _innermost(shown)
    message = (
        f"loading did not finish within {seconds:g} seconds and was given up. "
        "Move slow work out of the module's top level, into the function that needs it."
    )
    heading = "Traceback (most recent call last):\n" if shown else ""
    text = heading + _shortened("".join(shown.format())) + f"TimeoutError: {message}\n"
    return ErrorReport(file=file, line=line, type="TimeoutError", message=message, traceback=readable(text))


def _strip(summary: traceback.TracebackException) -> None:
    """Take the frames of the loading itself out of an exception and out of what led to it."""
    pending = [summary]
    while pending:
        one = pending.pop()
        one.stack = _stripped(one.stack)
        pending += [other for other in (one.__cause__, one.__context__, *(one.exceptions or ())) if other]


def _stripped(stack: traceback.StackSummary) -> traceback.StackSummary:
    first = next((i for i, frame in enumerate(stack) if file_of(frame.filename)), len(stack))
    return traceback.StackSummary.from_list(
        [frame for frame in stack[first:] if not frame.filename.startswith((*_IMPORT_SYSTEM, _OWN_FOLDER))]
    )


def _innermost(stack: traceback.StackSummary) -> tuple[str | None, int | None]:
    for frame in reversed(stack):
        if file := file_of(frame.filename):
            return file, frame.lineno
    return None, None


def _shortened(text: str) -> str:
    """Without the middle of what a runaway recursion leaves."""
    if len(text) <= _LONGEST_TRACEBACK:
        return text
    half = _LONGEST_TRACEBACK // 2
    return f"{text[:half]}\n  [... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
