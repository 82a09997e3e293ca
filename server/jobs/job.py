"""A job as the database has it and as the routes show it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "lost"]
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled", "lost")


@dataclass(frozen=True)
class Job:
    """One call of a tool, in a process of its own. Times are seconds since 1970."""

    id: str
    """Two words, such as `brave-otter`."""
    workspace: str
    owner: str
    generation: str
    tool: str
    input: Mapping[str, Any]
    timeout: float
    """Time limit in seconds."""
    session_id: str | None = None
    """The session whose values it shares."""
    wakes: bool = False
    """Whether its end wakes that session."""
    run_id: str | None = None
    """The run that started it."""
    agent: str = "react"
    """The agent that is woken."""
    model: str | None = None
    """The model of that agent; None: the default one."""
    priority: int = 0
    """Among the jobs of its owner; the higher is next."""
    idempotent: bool = False
    """Whether it may be started again if the server ended while it ran."""
    retry_of: str | None = None
    traceparent: str | None = None
    """The span that started it; see `server.observability.tracing`."""
    state: State = "queued"
    tries: int = 0
    """How often it was started."""
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    progress: Mapping[str, Any] | None = None
    """`done`, and perhaps `total` and `message`."""
    result: str | None = None
    error: Mapping[str, Any] | None = None
    """`type`, `message`, and perhaps `traceback`, `signal`, ..."""

    @property
    def has_ended(self) -> bool:
        """Whether its state is final."""
        return self.state in ENDED

    def shown(self) -> dict[str, Any]:
        """It as the routes show it."""
        optional = {
            "session_id": self.session_id,
            "run_id": self.run_id,
            "retry_of": self.retry_of,
            "started_at": _iso(self.started),
            "ended_at": _iso(self.ended),
            "progress": self.progress,
            "result": self.result,
            "error": self.error,
        }
        return {
            "job_id": self.id,
            "workspace": self.workspace,
            "generation": self.generation,
            "tool": self.tool,
            "input": dict(self.input),
            "state": self.state,
            "priority": self.priority,
            "timeout_seconds": self.timeout,
            "tries": self.tries,
            "created_at": _iso(self.created),
            **{name: value for name, value in optional.items() if value is not None},
        }


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
