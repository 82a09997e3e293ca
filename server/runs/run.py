"""A run: one question and its state."""

import math
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from server.errors import HearthError, RunCancelledError, RunTimedOutError, ShuttingDownError, TokenLimitError
from server.runs.events import Events
from server.runs.trace import Trace
from server.sdk import context

if TYPE_CHECKING:
    from server.images.image_part import ImagePart
    from server.images.shown import ShownImage
    from server.runs.fair_queue import Turn
    from server.runs.fork import Fork
    from server.sdk.model_call import ModelCall
    from server.sdk.usage import Usage

Outcome = Literal["done", "failed", "cancelled"]
Priority = Literal["interactive", "batch"]
LOAD_QUESTION = 200
"""Maximum length of a question in a sample of the server's load, in characters."""


@dataclass(eq=False)
class Run:
    """A question and its state. Times are seconds of `time.monotonic()`.

    It ends once: with an answer, with an error, or with the reason that was passed to `stop`. The first one counts. A
    run that was stopped never ends with an answer.
    """

    question: str
    workspace: str
    max_steps: int
    agent: str = "react"
    priority: Priority = "interactive"
    """Its class in the queue; see `fair_queue`."""
    max_tokens: int | None = None
    """Maximum number of tokens that it may write; None: unlimited."""
    timeout: float | None = None
    """Time limit in seconds, from its start; None: unlimited."""
    history: Sequence[dict[str, str]] = ()
    """Earlier messages that the client sent, each with a `role` and a `content`."""
    recalled: Sequence[dict[str, str]] = ()
    """Messages from its session that the agent was shown, after `history`."""
    session_id: str | None = None
    """The session of its workspace that the question belongs to."""
    images: "dict[str, ImagePart]" = field(default_factory=dict)
    """Pictures that its question and its history name, and those that its agent has looked at, by their keys."""
    shown_images: "dict[str, ShownImage]" = field(default_factory=dict)
    """How its model got them; empty before it has a model."""
    reported_jobs: set[str] = field(default_factory=set)
    """Ended jobs that its agent has read of: they need not wake its session any more."""
    fork: "Fork | None" = None
    """The run that it continues; None: it begins with its question."""
    wake: "Callable[[], str] | None" = None
    """For a run that was woken by jobs: makes its question when its turn in the session has come. Raises
    `RunCancelledError` if there is nothing left to tell."""
    owner: str = ""
    """The person whom its usage and its place count for; empty: the workspace's name."""
    key: str = ""
    """The API key that asked; empty: none."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: Literal["queued", "running"] | Outcome = "queued"
    position: int | None = None
    """Its position in the queue, 1 is next; None before it waits."""
    generation: str | None = None
    """The hash of its generation; None before it is pinned."""
    model: str | None = None
    """The name of its model."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What else determines the answer, besides question and code; needed for a replay."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """Finished steps, as the routes show them."""
    step_ends: list[float] = field(default_factory=list)
    """When each of them was done, in seconds after the start."""
    trace: Trace = field(default_factory=Trace)
    """Its model calls; emptied when they are saved."""
    tools_shown: list[str] = field(default_factory=list)
    """The tools that the model was shown, in this order; empty: all of them, or none."""
    answer: dict[str, Any] | None = None
    """The answer, as the routes show it; None before the end, and if there is an error."""
    not_reloaded: dict[str, Any] | None = None
    """Why changed code on disk was not used: `message` and `errors`."""
    error: HearthError | None = None
    """The error, if it failed or was stopped."""
    asked: float = field(default_factory=time.time)
    """Seconds since 1970."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set by `stop`; the engine checks it before each token."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when it has ended, its record is saved, and its last event is published."""
    events: Events = field(default_factory=Events)
    arrived: float = field(default_factory=time.monotonic)
    started: float | None = None
    turn: "Turn | None" = None
    """Its turn of the model, from its start on."""
    finished: float | None = None

    def __post_init__(self) -> None:
        self.owner = self.owner or self.workspace
        self._settling = threading.Condition()
        self._has_turn = False
        self._reason: HearthError | None = None
        self._calls: dict[int, Usage] = {}

    def wait_at(self, position: int) -> None:
        """Set its position in the queue, before it has started; 1 is next."""
        if self.position != position and self.started is None:
            self.position = position
            self.events.publish("queued", {"run_id": self.id, "position": position, "generation": self.generation})

    def give_turn(self) -> None:
        """Its turn in the queue has come."""
        with self._settling:
            self._has_turn = True
            self._settling.notify_all()

    @property
    def has_turn(self) -> bool:
        """Whether it may use the model."""
        return self._has_turn

    def lose_turn(self) -> None:
        """Its turn was taken back, for a while or at its end."""
        with self._settling:
            self._has_turn = False

    def wait_for_turn(self) -> None:
        """Wait for its turn. Raises `RunCancelledError` if it is stopped or ends meanwhile."""
        with self._settling:
            self._settling.wait_for(lambda: self._has_turn or self._reason is not None or self.finished is not None)
            self.check()
            if not self._has_turn:
                # Code of it is still running, on a thread that it has left.
                raise RunCancelledError("The run has ended, so it has no turn of the model any more.")

    def check(self) -> None:
        """Raises `RunCancelledError` if it was stopped. For code that waits on behalf of the run."""
        if self._reason is not None:
            raise RunCancelledError(self._reason.message)

    def start(self, model: str, provenance: dict[str, Any]) -> None:
        """Start it with a model: from queued to running."""
        self.model = model
        self.provenance = provenance
        self.started = time.monotonic()
        self.state = "running"
        self.events.publish("started", {"run_id": self.id, "generation": self.generation, "model": model})

    def count(self, call: "Usage") -> None:
        """Count the usage of an engine call, which keeps counting."""
        self._calls[id(call)] = call

    def on_text(self, text: str, call: "Usage") -> None:
        """The model wrote a chunk of text. `call`: the usage of the engine call, which keeps counting."""
        self.count(call)
        self.events.publish_text(text, context.current().tool)
        if self.max_tokens is not None and self.written > self.max_tokens:
            self.stop(
                TokenLimitError(
                    f"The run has reached its limit of {self.max_tokens} tokens. Shorten the question, or raise "
                    "max_tokens or HEARTH_MAX_TOKENS.",
                    limit=self.max_tokens,
                )
            )

    @property
    def seconds_left(self) -> float:
        """The rest of its time limit."""
        if self.timeout is None or self.started is None:
            return math.inf
        return max(self.started + self.timeout - time.monotonic(), 0.0)

    def stop_if_late(self) -> None:
        """Stop it if its time limit has passed."""
        if not self.seconds_left:
            self.stop(
                RunTimedOutError(
                    f"The run took longer than {self.timeout:g} seconds. Shorten the question, or raise timeout or "
                    "HEARTH_RUN_TIMEOUT."
                )
            )

    def add_step(self, step: dict[str, Any]) -> None:
        """Add a finished step."""
        self.step_ends.append(0.0 if self.started is None else time.monotonic() - self.started)
        self.steps.append(step)
        self.events.publish("step", step)

    def on_model_call(self, call: "ModelCall") -> None:
        """A model call has ended. It belongs to the step that is being made."""
        tool = context.current().tool
        self.trace.add(call, len(self.steps) + 1, tool)
        if self.fork is not None and tool is None:
            self.fork.compare(call.prompt)

    def add_tools_shown(self, names: Sequence[str]) -> None:
        """The model was shown these tools, and not all. An agent may show others later."""
        self.tools_shown = list(dict.fromkeys([*self.tools_shown, *names]))

    def add_images(self, parts: "Iterable[ImagePart]") -> None:
        """Add pictures that came with its question. Called before it starts."""
        self.images |= {part.key: part for part in parts}

    def add_image(self, shown: "ShownImage") -> None:
        """Its model gets this picture in this way. An agent may look at others later."""
        self.images[shown.part.key] = shown.part
        self.shown_images[shown.part.key] = shown

    def with_images(self, text: str) -> str:
        """`text` as its model reads it: with what was read of the pictures that the model does not see."""
        if not self.shown_images:
            return text
        from server.images.shown import with_text

        return with_text(text, self.shown_images)

    def images_as_json(self) -> list[dict[str, Any]]:
        """Its pictures, as answers and records have them."""
        return [
            self.shown_images[key].as_json() if key in self.shown_images else part.as_json()
            for key, part in list(self.images.items())
        ]

    def stop(self, reason: HearthError) -> bool:
        """Stop it with `reason`: at the model's next token, or at once while it waits. Returns False if it has ended
        already. The first reason counts."""
        with self._settling:
            if self.finished is not None:
                return False
            if self._reason is None:
                self._reason = reason
                self.cancelled.set()
                self._settling.notify_all()
            return True

    def settle(self, answer: dict[str, Any] | None, error: HearthError | None) -> None:
        """End it, with an answer or an error. If it was stopped, it ends with that reason instead."""
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
            self._settling.notify_all()

    def mark_not_recorded(self, reason: HearthError) -> None:
        """Note in its answer or its error that its record was not saved, and why."""
        note = {"type": reason.code, "message": reason.message}
        if self.error is not None:
            self.error.details["not_recorded"] = note
        elif self.answer is not None:
            self.answer["not_recorded"] = note

    def publish_end(self) -> None:
        """Publish its last event."""
        if self.error is not None:
            self.events.publish("error", {"status": self.error.status, **self.error.to_dict()["error"]})
        else:
            assert self.answer is not None, "it was settled"
            self.events.publish("answer", self.answer)
        self.ended.set()

    def as_load(self) -> dict[str, Any]:
        """What others may see of it while it is in flight, and its question, which only its owner may see."""
        return {
            "run_id": self.id,
            "owner": self.owner,
            "workspace": self.workspace,
            "session_id": self.session_id,
            "agent": self.agent,
            "model": self.model,
            "priority": self.priority,
            "question": self.question[:LOAD_QUESTION],
            "state": self.state,
            "position": self.position if self.started is None else None,
            "seconds": round(self.seconds, 2),
            "steps": len(self.steps),
            "tokens": self.written,
        }

    @property
    def queued_seconds(self) -> float:
        """How long it has waited for its turn and its model."""
        until = self.started or self.finished or time.monotonic()
        return until - self.arrived

    @property
    def seconds(self) -> float:
        """How long it has taken since its arrival, waiting included."""
        return (self.finished or time.monotonic()) - self.arrived

    @property
    def written(self) -> int:
        """Tokens of text so far, chosen by the model or forced by a grammar."""
        return sum(call.completion_tokens + call.forced_tokens for call in list(self._calls.values()))

    @property
    def tokens_used(self) -> int:
        """Tokens that the model has processed so far: written text, and prompts without their cached tokens."""
        usage = self.usage
        return self.written + usage["prompt_tokens"] - usage["cached_tokens"]

    @property
    def usage(self) -> dict[str, int]:
        """Its usage so far, summed over all engine calls, those of its tools included."""
        names = ("prompt_tokens", "cached_tokens", "completion_tokens", "forced_tokens", "forward_passes")
        calls = list(self._calls.values())
        return {name: sum(getattr(call, name) for call in calls) for name in names}
