"""Reports about code that could not be loaded."""

import importlib
import traceback
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TypedDict

from server.workers.stacks import parse

_OWN_FOLDER = str(Path(__file__).parent)
_IMPORT_SYSTEM = ("<frozen importlib", str(Path(importlib.__file__).parent))
_LONGEST_TRACEBACK = 20_000  # characters


class ErrorReport(TypedDict):
    """One error of a reload.

    `file` is like `server/tools/calculator.py`; it and `line` are None where no place in the reloadable code
    can be named. `traceback` holds only frames of that code and of what it called.
    """

    file: str | None
    line: int | None
    type: str
    message: str
    traceback: str


class LoadError(Exception):
    """Code could not be loaded; `errors` has a report for each reason."""

    def __init__(self, errors: Sequence[ErrorReport]) -> None:
        super().__init__("; ".join(f"{error['file']}: {error['message']}" for error in errors))
        self.errors = list(errors)


def problem(file: str | None, line: int | None, kind: str, message: str) -> ErrorReport:
    """A report about a mistake for which the reloadable code raised no exception."""
    place = "" if file is None else f'  File "{file}"' + ("" if line is None else f", line {line}") + "\n"
    return ErrorReport(file=file, line=line, type=kind, message=message, traceback=f"{place}{kind}: {message}\n")


class CodeFiles:
    """The files of a generation, and the names by which people know them.

    They are below `folder`, as `<folder>/server/tools/calculator.py`; people know `server/tools/calculator.py`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder.rstrip("/")
        self._beginning = f"{self.folder}/"

    def name(self, filename: str) -> str | None:
        """`server/tools/x.py` for the path of a file of the generation; None for any other path."""
        return filename.removeprefix(self._beginning) if filename.startswith(self._beginning) else None

    def readable(self, text: str) -> str:
        """`text`, a message or a traceback, with the names that people know."""
        return text.replace(self._beginning, "")

    def describe(self, error: BaseException) -> ErrorReport:
        """A report about an exception that people's code raised. The place is the innermost line of the generation
        in its traceback."""
        summary = traceback.TracebackException.from_exception(error, compact=True)
        self._strip(summary)
        file, line = self._innermost(summary.stack)
        return ErrorReport(
            file=file,
            line=line,
            type=type(error).__name__,
            message=self.readable(str(summary)) or type(error).__name__,
            traceback=self.readable(_shortened("".join(summary.format()))),
        )

    def running(self, stacks: str) -> str:
        """The stacks of the threads that are in the generation's code, as tracebacks: working threads before idle
        ones. `stacks` is what faulthandler wrote. Empty if no thread is in that code."""
        shown = ""
        for stack in sorted(parse(stacks), key=lambda one: (one.is_idle, not one.current)):
            frames = self._stripped(
                traceback.StackSummary.from_list(
                    [
                        # With the text, so that this process remembers no files for it.
                        traceback.FrameSummary(file, line, function, line=_text(file, line))
                        for file, line, function in reversed(stack.frames)
                    ]
                )
            )
            if frames:
                shown += "Traceback (most recent call last):\n" + "".join(frames.format())
        return self.readable(_shortened(shown))

    def describe_syntax_error(self, error: SyntaxError | ValueError, file: str, data: bytes) -> ErrorReport:
        """A report about a file that does not compile. `data` is the file's content."""
        if not isinstance(error, SyntaxError):
            error = SyntaxError(str(error))
        line = error.lineno or None
        error.filename = file
        if error.text is None and line is not None:
            # The compiler's later stages give no text.
            lines = data.decode("utf-8", errors="replace").splitlines()
            error.text = lines[line - 1] if line <= len(lines) else None
        return ErrorReport(
            file=file,
            line=line,
            type=type(error).__name__,
            message=error.msg,
            traceback="".join(traceback.format_exception_only(error)),
        )

    def _strip(self, summary: traceback.TracebackException) -> None:
        """Remove the loader's own frames from an exception, its causes and its contexts."""
        pending = [summary]
        while pending:
            one = pending.pop()
            one.stack = self._stripped(one.stack)
            pending += [other for other in (one.__cause__, one.__context__, *(one.exceptions or ())) if other]

    def _stripped(self, stack: traceback.StackSummary) -> traceback.StackSummary:
        first = next((i for i, frame in enumerate(stack) if self.name(frame.filename)), len(stack))
        return traceback.StackSummary.from_list(
            [frame for frame in stack[first:] if not frame.filename.startswith((*_IMPORT_SYSTEM, _OWN_FOLDER))]
        )

    def _innermost(self, stack: traceback.StackSummary) -> tuple[str | None, int | None]:
        for frame in reversed(stack):
            if file := self.name(frame.filename):
                return file, frame.lineno
        return None, None


def _text(file: str, line: int) -> str:
    """A line of a file; empty where there is none."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            return next(islice(lines, line - 1, None), "").strip()
    except (OSError, ValueError):
        return ""


def _shortened(text: str) -> str:
    """`text` without its middle, if it is as long as after an endless recursion."""
    if len(text) <= _LONGEST_TRACEBACK:
        return text
    half = _LONGEST_TRACEBACK // 2
    return f"{text[:half]}\n  [... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
