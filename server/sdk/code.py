"""Code in the session's sandbox, for tools and agents.

The sandbox is a Python process without a network and with the session's files, whose variables last from call to
call. Code that a model wrote belongs there, and never into `exec`.
"""

from dataclasses import dataclass, field
from typing import Any

from server.sdk import context


@dataclass(frozen=True)
class CodeResult:
    """What a cell of code gave. `output`: what it printed. `result`: the text of its last line's value; None: it has
    none. `error`: type, message, traceback, line; None: it succeeded. `figures`, `files`: names of files in the
    session."""

    output: str
    result: str | None
    error: dict[str, Any] | None
    figures: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    variables: list[dict[str, Any]] = field(default_factory=list)
    session_id: str = ""

    def __str__(self) -> str:
        """What a model reads of it."""
        parts = [self.output.rstrip(), self.result or ""]
        parts += [f"(figure: {name})" for name in self.figures]
        if self.error is not None:
            parts.append(self.error["traceback"] or f"{self.error['type']}: {self.error['message']}")
        return "\n".join(part for part in parts if part) or "(no output)"


@dataclass(frozen=True)
class CodeSession:
    """What code finds in the session. `files`: name, bytes, kind, profile. `variables`: name, type, shape, ….
    `blocked_imports`: modules that this box's owner does not want used."""

    files: list[dict[str, Any]]
    variables: list[dict[str, Any]]
    blocked_imports: list[str]
    model: str
    """The name of the run's model."""


def run_code(code: str, seconds: float | None = None, name: str = "cell") -> CodeResult:
    """Run Python in the session's sandbox, after earlier calls there, with their variables.

    `seconds`: time limit; None: HEARTH_SANDBOX_TIMEOUT, which is the maximum. `name`: of the file in which the code
    is saved. What goes wrong in the code is in the result. Raises `SandboxUnavailableError`, `QueueFullError`, and
    `InvalidRequestError` outside of a run.
    """
    reply = _ask("run", code=code, seconds=None if seconds is None else float(seconds), name=name)
    shown = reply.get("result")
    return CodeResult(
        reply["output"],
        None if shown is None else shown["text"],
        reply.get("error"),
        [one["png"] for one in reply["figures"] if "png" in one],
        reply["files"],
        reply["variables"],
        reply["session_id"],
    )


def code_session() -> CodeSession:
    """The session's files and variables. Raises what `run_code` raises."""
    reply = _ask("describe")
    return CodeSession(reply["files"], reply["variables"], reply["blocked_imports"], reply["model"])


def has_code() -> bool:
    """Whether the run's session has files or variables, so that code may be of use."""
    return context.current().has_code


def _ask(do: str, **given: Any) -> dict[str, Any]:
    listener = context.current().listener
    if listener is None:
        raise RuntimeError("The sandbox belongs to a run, and this code runs outside of one.")
    return listener.ask("code", do, given)
