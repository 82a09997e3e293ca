"""The run that people's code works for: its readers get each step and plan as they are done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from json import dumps, loads  # people's code may put something else in the place of `json.dumps`
from typing import Any, Protocol


class Listener(Protocol):
    """Gets the events of a run in a worker. Called from any thread."""

    def step(self, step: dict[str, Any]) -> None:
        """A step is done."""

    def plan(self, steps: list[dict[str, Any]]) -> None:
        """The plan has changed."""

    def tool_began(self, tool: str, seconds: float) -> int:
        """A tool call with that time limit began. Returns the number of the call."""

    def tool_ended(self, call: int, seconds: float, failed: bool) -> None:
        """The call ended, or its time is up."""

    def still_running(self, what: str, ended: Callable[[], bool]) -> None:
        """The run no longer waits for `what` (`tool shout`), which has not ended."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_tool: ContextVar[str | None] = ContextVar("tool", default=None)


@contextmanager
def scope(listener: Listener) -> Iterator[None]:
    """In this context and in copies of it, `listener` gets the events."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Listener | None:
    """The listener of this context."""
    return _listener.get()


@contextmanager
def within_tool(name: str) -> Iterator[None]:
    """In this context, text of the model belongs to that tool."""
    token = _tool.set(name)
    try:
        yield
    finally:
        _tool.reset(token)


def current_tool() -> str | None:
    """The tool of this context; None for the agent itself."""
    return _tool.get()


def tell_step(step: Any) -> None:
    """For agents: send `step`, which is done, to the readers of the run.

    `step` is what the agent will have among its result's `steps`: a dataclass with `thought`, `tool`, `input`,
    `observation` and `error`. Outside of a run it does nothing. An agent that doesn't call it works as well: then its
    steps are sent at its end, and a run that is stopped before has none to show.
    """
    if (current := _listener.get()) is not None:
        current.step(as_json(step))


def tell_plan(steps: list[dict[str, Any]]) -> None:
    """For agents: send the plan and its state to the readers of the run. Outside of a run it does nothing."""
    if (current := _listener.get()) is not None:
        current.plan(loads(dumps(steps)))


def as_json(step: Any) -> dict[str, Any]:
    """A step as the routes show it, in plain values only. Raises `TypeError` or `ValueError` for one that is no
    JSON."""
    shown = {name: value for name, value in asdict(step).items() if name != "error" or value is not None}
    plain: dict[str, Any] = loads(dumps(shown))
    return plain
