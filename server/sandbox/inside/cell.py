"""Running one cell of code."""

import ast
import linecache
import traceback
from dataclasses import dataclass
from typing import Any

from . import display

LONGEST_TRACEBACK = 8000
LONGEST_MESSAGE = 2000


@dataclass
class Outcome:
    """The end of a cell. `result`: what the last expression's value looks like; see `display.shown`. `error`: type,
    message, traceback and line; None: it has ended by itself."""

    result: dict[str, Any] | None
    error: dict[str, Any] | None


class Cell:
    """Code that runs once, as in a notebook: the value of a last line that is an expression is shown."""

    def __init__(self, code: str, number: int) -> None:
        self._code = code
        self._file = f"<cell {number}>"
        # So that tracebacks, and `inspect`, have the lines.
        linecache.cache[self._file] = (len(code), None, code.splitlines(keepends=True), self._file)

    def run(self, names: dict[str, Any]) -> Outcome:
        """Run it with these variables. Raises nothing but a KeyboardInterrupt that comes too late for the cell."""
        try:
            tree = ast.parse(self._code, self._file)
            last = tree.body[-1] if tree.body else None
            if not isinstance(last, ast.Expr):
                exec(compile(tree, self._file, "exec", dont_inherit=True), names)
                return Outcome(None, None)
            tree.body.pop()
            exec(compile(tree, self._file, "exec", dont_inherit=True), names)
            value = eval(compile(ast.Expression(last.value), self._file, "eval", dont_inherit=True), names)
            if value is None:
                return Outcome(None, None)
            names["_"] = value
            return Outcome(display.shown(value), None)
        except BaseException as error:  # boundary: a cell's code, which may also exit
            return Outcome(None, self._described(error))

    def interrupted(self) -> Outcome:
        """The outcome of a cell that was interrupted at its very end."""
        return Outcome(None, {"type": "KeyboardInterrupt", "message": "", "traceback": "", "line": None})

    def _described(self, error: BaseException) -> dict[str, Any]:
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == self._file else None
        kind = type(error)
        try:
            message = str(error)
            # Without the frames of this file.
            shown = traceback.TracebackException(
                kind, error, error.__traceback__ and error.__traceback__.tb_next, limit=-30, compact=True
            )
            text = "".join(shown.format())
            for frame in shown.stack:
                if frame.filename == self._file:
                    line = frame.lineno
        except BaseException as worse:  # boundary: an error of people's code may fail when it is shown
            message, text = f"(its message can't be shown: {type(worse).__name__})", ""
        return {
            "type": kind.__name__[:200],
            "message": message[:LONGEST_MESSAGE],
            "traceback": text if len(text) <= LONGEST_TRACEBACK else "…" + text[-LONGEST_TRACEBACK:],
            "line": line,
        }
