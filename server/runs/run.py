"""One question on its way."""

import math
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from server.errors import HearthError, RunCancelledError, RunTimedOutError, ShuttingDownError, TokenLimitError
from server.runs.events import Events
from server.sdk.run import current_tool

if TYPE_CHECKING:
    from server.sdk.usage import Usage

Outcome = Literal["done", "failed", "cancelled"]
Priority = Literal["interactive", "batch"]


@dataclass(eq=False)
class Run:
    """A question, and how far it has come. Times are seconds of `time.monotonic()`.

    It ends once: with an answer, with an error of its own, or with the reason for which it was stopped. Whichever
    comes first holds, and a run that `stop` has taken never ends with an answer.
    """

    question: str
    workspace: str
    max_steps: int
    agent: str = "react"
    priority: Priority = "interactive"
    """Whose turn comes first: see `fair_queue`."""
    max_tokens: int | None = None
    """How many it may write; None: any number."""
    timeout: float | None = None
    """Seconds that it may take once it has its turn; None: as long as it takes."""
    history: Sequence[dict[str, str]] = ()
    """What was said before the question, as whoever asked tells it: turns with a `role` and a `content`."""
    recalled: Sequence[dict[str, str]] = ()
    """What it was shown of its session behind that."""
    session_id: str | None = None
    """The session of its workspace that the question belongs to."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: Literal["queued", "running"] | Outcome = "queued"
    position: int | None = None
    """Its place among those that wait, 1 is next; None before it waits."""
    generation: str | None = None
    """The hash of the code that answers it; None before it is pinned."""
    model: str | None = None
    """The name of the model that it works with."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What else decides the answer, besides question and code; for asking the same again."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """Those that are done, as the routes show them."""
    answer: dict[str, Any] | None = None
    """What it answers, as the routes show it; None before that, and when there is an error."""
    not_reloaded: dict[str, Any] | None = None
    """Why code that has changed on disk did not answer it: `message` and `errors`."""
    error: HearthError | None = None
    """Why it has no answer."""
    asked: float = field(default_factory=time.time)
    """Seconds since 1970."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set by `stop`; the engine looks at it before each token."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when it has ended, its record is kept, and its last event is told."""
    events: Events = field(default_factory=Events)
    arrived: float = field(default_factory=time.monotonic)
    started: float | None = None
    finished: float | None = None

    def __post_init__(self) -> None:
        self._settling = threading.Condition()
        self._has_turn = False
        self._reason: HearthError | None = None
        self._calls: dict[int, Usage] = {}

    def wait_at(self, position: int) -> None:
        """It waits for its turn; `position` 1 is next."""
        if self.position != position:
            self.position = position
            self.events.tell("queued", {"run_id": self.id, "position": position, "generation": self.generation})

    def have_turn(self) -> None:
        """Its turn has come."""
        with self._settling:
            self._has_turn = True
            self._settling.notify_all()

    def wait_for_turn(self) -> None:
        """Waits until its turn has come. Raises `RunCancelledError` when it is stopped before it goes on."""
        with self._settling:
            self._settling.wait_for(lambda: self._has_turn or self._reason is not None)
            self.check()

    def check(self) -> None:
        """Raises `RunCancelledError` when it is to stop, for what waits on its way."""
        if self._reason is not None:
            raise RunCancelledError(self._reason.message)

    def start(self, model: str, provenance: dict[str, Any]) -> None:
        """From waiting to working, with a model."""
        self.model = model
        self.provenance = provenance
        self.started = time.monotonic()
        self.state = "running"
        self.events.tell("started", {"run_id": self.id, "generation": self.generation, "model": model})

    def hear(self, text: str, call: "Usage") -> None:
        """The model wrote a piece of text, in a call of the engine that costs `call` in the end."""
        self._calls[id(call)] = call
        self.events.tell_text(text, current_tool())
        if self.max_tokens is not None and self.written > self.max_tokens:
            self.stop(
                TokenLimitError(
                    f"The run has written {self.max_tokens} tokens, and that is as many as it may. Ask for less at "
                    "once, or for more tokens: max_tokens, and HEARTH_MAX_TOKENS.",
                    limit=self.max_tokens,
                )
            )

    @property
    def seconds_left(self) -> float:
        """How long it may go on working."""
        if self.timeout is None or self.started is None:
            return math.inf
        return max(self.started + self.timeout - time.monotonic(), 0.0)

    def stop_if_late(self) -> None:
        """Let it end when none are left."""
        if not self.seconds_left:
            self.stop(
                RunTimedOutError(
                    f"The run took longer than {self.timeout:g} seconds. Ask for less at once, or for more time: "
                    "timeout, and HEARTH_RUN_TIMEOUT."
                )
            )

    def did_step(self, step: dict[str, Any]) -> None:
        """A step is done."""
        self.steps.append(step)
        self.events.tell("step", step)

    def stop(self, reason: HearthError) -> bool:
        """Let it end with `reason`, at the model's next token or at once where it waits. Gives whether it will end
        with that or an earlier reason; if not, it has ended."""
        with self._settling:
            if self.finished is not None:
                return False
            if self._reason is None:
                self._reason = reason
                self.cancelled.set()
                self._settling.notify_all()
            return True

    def settle(self, answer: dict[str, Any] | None, error: HearthError | None) -> None:
        """The end, with one of both, unless it was stopped: then that is how it ends, whatever came of it."""
        with self._settling:
            if self._reason is not None:
                answer, error = None, self._reason
                error.details.setdefault("steps", self.steps)
            self.answer, self.error = answer, error
            self.finished = time.monotonic()
            if error is None:
                self.state = "done"
            else:
                stopped = isinstance(error, RunCancelledError | ShuttingDownError)
                self.state = "cancelled" if stopped else "failed"

    def is_not_recorded(self, reason: HearthError) -> None:
        """Whoever reads its answer or its error reads there that no record of it is kept, and why."""
        told = {"type": reason.code, "message": reason.message}
        if self.error is not None:
            self.error.details["not_recorded"] = told
        elif self.answer is not None:
            self.answer["not_recorded"] = told

    def tell_the_end(self) -> None:
        """The last event, for all who follow it."""
        if self.error is not None:
            self.events.tell("error", {"status": self.error.status, **self.error.to_dict()["error"]})
        else:
            assert self.answer is not None, "it was settled"
            self.events.tell("answer", self.answer)
        self.ended.set()

    @property
    def queued_seconds(self) -> float:
        """How long it waited, or has waited so far, before it had its turn and a model."""
        until = self.started or self.finished or time.monotonic()
        return until - self.arrived

    @property
    def seconds(self) -> float:
        """How long it has been there in all, waiting included."""
        return (self.finished or time.monotonic()) - self.arrived

    @property
    def written(self) -> int:
        """Tokens of text so far."""
        return sum(call.completion_tokens + call.forced_tokens for call in list(self._calls.values()))

    @property
    def spent(self) -> int:
        """Tokens that the model has had to work on so far: text that was written, and prompts that it didn't hold."""
        usage = self.usage
        return self.written + usage["prompt_tokens"] - usage["cached_tokens"]

    @property
    def usage(self) -> dict[str, int]:
        """What it has cost so far, summed over all calls of the engine, its tools' own included."""
        names = ("prompt_tokens", "cached_tokens", "completion_tokens", "forced_tokens", "forward_passes")
        calls = list(self._calls.values())
        return {name: sum(getattr(call, name) for call in calls) for name in names}
