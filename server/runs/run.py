"""One question on its way."""

import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from server.runs.result import AgentResult

Outcome = Literal["done", "failed", "cancelled"]


@dataclass(eq=False)
class Run:
    """A question, and how far it has come. Times are seconds of `time.monotonic()`."""

    question: str
    workspace: str
    max_steps: int
    agent: str = "react"
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: Literal["queued", "running"] | Outcome = "queued"
    generation: str | None = None
    """The hash of the code that answers it; None before it is pinned."""
    model: str | None = None
    """The name of the model that it works with."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What else decides the answer, besides question and code; for asking the same again."""
    result: AgentResult | None = None
    not_reloaded: dict[str, Any] | None = None
    """Why code that has changed on disk did not answer it: `message` and `errors`."""
    error: dict[str, Any] | None = None
    """Why it has no result: `type` and `message`."""
    asked: float = field(default_factory=time.time)
    """Seconds since 1970."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set it, and the run stops at the model's next token."""
    arrived: float = field(default_factory=time.monotonic)
    started: float | None = None
    finished: float | None = None

    def start(self, generation: str, model: str, provenance: dict[str, Any]) -> None:
        """From waiting to working, with the code of `generation` and a model."""
        self.generation = generation
        self.model = model
        self.provenance = provenance
        self.started = time.monotonic()
        self.state = "running"

    def finish(self, outcome: Outcome) -> None:
        """The end, however it came about."""
        self.finished = time.monotonic()
        self.state = outcome

    @property
    def queued_seconds(self) -> float:
        """How long it waited, or has waited so far, before its code was pinned and its model free."""
        until = self.started or self.finished or time.monotonic()
        return until - self.arrived

    @property
    def seconds(self) -> float:
        """How long it has been there in all, waiting included."""
        return (self.finished or time.monotonic()) - self.arrived
