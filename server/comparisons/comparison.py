"""A comparison, its two sides, and its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

State = Literal["running", "done", "failed", "cancelled", "interrupted"]
"""`interrupted`: the server ended. `failed`: a bug of the server. These can be resumed, and so can `cancelled`."""
SideName = Literal["a", "b"]
CheckKind = Literal["equal", "contains", "tool", "model"]
PLACE = "{question}"
"""Where the question stands in a side's instructions."""

JUDGED_DIFFERENTLY, ANSWERS_DIFFER, SAME, WAITING = range(4)
"""The ranks of rows: those that a reader wants first have the lowest."""


@dataclass(frozen=True)
class SideChoice:
    """What a client asks for as one side. None: the live code, the default model."""

    workspace: str
    generation: str | None
    model: str | None
    agent: str
    max_steps: int
    instructions: str | None


@dataclass(frozen=True)
class Side:
    """One of the two versions. `generation`: a hash. `instructions`: text before the question; or, if it has
    `{question}`, text around it."""

    workspace: str
    generation: str
    model: str
    agent: str
    max_steps: int
    instructions: str | None

    def prompt(self, question: str) -> str:
        """The question as this side gets it."""
        if not self.instructions:
            return question
        if PLACE in self.instructions:
            return self.instructions.replace(PLACE, question)
        return f"{self.instructions}\n\n{question}"


@dataclass(frozen=True)
class CheckChoice:
    """How answers are judged. `tool`: the tool that judges. `judge`: the name of the model that does."""

    kind: CheckKind
    tool: str | None = None
    judge: str | None = None

    @property
    def needs_expected(self) -> bool:
        """Whether it can judge only answers to questions that have an expected one."""
        return self.kind in ("equal", "contains")


@dataclass(frozen=True)
class Cell:
    """What one side has answered. `answer` or `error` is None. `correct`: None if nothing has judged it. `score`: the
    number that a tool returned. `check_error`: why the check gave no result. `tokens`: read and written ones.
    `seconds`: from its turn of the model to its end."""

    run_id: str | None
    answer: str | None
    error: Mapping[str, str] | None = None
    correct: bool | None = None
    score: float | None = None
    check_error: Mapping[str, str] | None = None
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Row:
    """A question and what both sides have answered so far. `number`: from 1, in the client's order."""

    number: int
    question: str
    expected: str | None = None
    history: Sequence[Mapping[str, str]] = ()
    a: Cell | None = None
    b: Cell | None = None

    @property
    def rank(self) -> int:
        """Its place among the rows: see `JUDGED_DIFFERENTLY`. Two failures count as the same."""
        if self.a is None or self.b is None:
            return WAITING
        if None not in (self.a.correct, self.b.correct) and self.a.correct != self.b.correct:
            return JUDGED_DIFFERENTLY
        return SAME if _stripped(self.a.answer) == _stripped(self.b.answer) else ANSWERS_DIFFER

    @property
    def has_changed(self) -> bool | None:
        """Whether the answers differ, or only one side has one; None: not both have ended."""
        return None if self.a is None or self.b is None else _stripped(self.a.answer) != _stripped(self.b.answer)


@dataclass(frozen=True)
class Comparison:
    """`questions`: their number. `answered`: how many of them both sides have ended. `created`, `ended`: seconds
    since 1970. `is_here`: whether it is this server's."""

    id: str
    name: str
    workspace: str
    owner: str
    a: Side
    b: Side
    check: CheckChoice | None
    at_once: int
    questions: int
    state: State = "running"
    answered: int = 0
    created: float = 0.0
    ended: float | None = None
    error: Mapping[str, str] | None = None
    is_here: bool = True

    def side(self, name: SideName) -> Side:
        """That side."""
        return self.a if name == "a" else self.b

    def shown(self) -> dict[str, Any]:
        """It as the routes show it."""
        return {
            "comparison_id": self.id,
            "name": self.name,
            "workspace": self.workspace,
            "state": self.state,
            "a": asdict(self.a),
            "b": asdict(self.b),
            "check": None if self.check is None else asdict(self.check),
            "at_once": self.at_once,
            "questions": self.questions,
            "answered": self.answered,
            "created_at": _iso(self.created),
            "ended_at": None if self.ended is None else _iso(self.ended),
            "error": self.error,
        }


def _stripped(text: str | None) -> str | None:
    return None if text is None else text.strip()


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
