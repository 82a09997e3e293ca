"""The run that people's code works for: who follows it is sent each step and plan as they are done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from json import dumps, loads  # people's code may put something else in the place of `json.dumps`
from typing import Any, Protocol


class Listener(Protocol):
    """What a worker does with what happens in a run. Called from any thread."""

    def step(self, step: dict[str, Any]) -> None:
        """A step is done."""

    def plan(self, steps: list[dict[str, Any]]) -> None:
        """The plan has changed."""

    def tool_began(self, tool: str, seconds: float) -> int:
        """A call of a tool began, which may take so many seconds. Gives the call's number."""

    def tool_ended(self, call: int, seconds: float, failed: bool) -> None:
        """It ended, or its time is up."""

    def still_running(self, what: str, ended: Callable[[], bool]) -> None:
        """The run has turned away from `what` (`tool shout`), which has not ended by itself."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_tool: ContextVar[str | None] = ContextVar("tool", default=None)


@contextmanager
def scope(listener: Listener) -> Iterator[None]:
    """Within it, on this thread and in copies of its context, `listener` is sent what happens."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Listener | None:
    """Who is sent what happens in this context."""
    return _listener.get()


@contextmanager
def within_tool(name: str) -> Iterator[None]:
    """Within it, text of the model is that tool's."""
    token = _tool.set(name)
    try:
        yield
    finally:
        _tool.reset(token)


def current_tool() -> str | None:
    """The tool that this context works for; None where it is the agent itself."""
    return _tool.get()


def tell_step(step: Any) -> None:
    """For agents: send `step`, which is done, to everybody who follows the run.

    `step` is what the agent will have among its result's `steps`: a dataclass with `thought`, `tool`, `input`,
    `observation` and `error`. Outside of a run it does nothing. An agent that doesn't call it works as well: then its
    steps are sent at its end, and a run that is stopped before has none to show.
    """
    if (current := _listener.get()) is not None:
        current.step(as_json(step))


def tell_plan(steps: list[dict[str, Any]]) -> None:
    """For agents: send the plan, and how far it is, to everybody who follows the run. Outside of a run it does
    nothing."""
    if (current := _listener.get()) is not None:
        current.plan(loads(dumps(steps)))


def as_json(step: Any) -> dict[str, Any]:
    """A step as the routes show it, in plain values only. Raises `TypeError` or `ValueError` for one that is no
    JSON."""
    shown = {name: value for name, value in asdict(step).items() if name != "error" or value is not None}
    plain: dict[str, Any] = loads(dumps(shown))
    return plain
