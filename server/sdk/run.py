"""The run that people's code works for: its readers get each step and plan as they are done."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from json import dumps, loads  # people's code may put something else in the place of `json.dumps`
from typing import Any, Protocol

from server.bounds import bounded
from server.sdk import context


class Listener(Protocol):
    """Gets the events of a run in a worker. Called from any thread."""

    def step(self, step: dict[str, Any]) -> None:
        """A step is done."""

    def plan(self, steps: list[dict[str, Any]]) -> None:
        """The plan has changed."""

    def progress(self, done: float, total: float | None, message: str) -> None:
        """The tool that runs alone reports how far it is."""

    def ask(self, what: str, do: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the server about `jobs` and shared values, for `code` in the sandbox, or about `images`. Raises what it
        replies."""

    def tools_shown(self, names: list[str]) -> None:
        """The model was shown these tools, and not all."""

    def tool_began(self, tool: str, seconds: float) -> int:
        """A tool call with that time limit began. Returns the number of the call."""

    def tool_ended(self, call: int, seconds: float, failed: bool) -> None:
        """The call ended, or its time is up."""

    def tool_failed(self, tool: str, error: BaseException) -> str:
        """A tool raised an unexpected error: log it. Returns the traceback as people read it."""

    def still_running(self, what: str, ended: Callable[[], bool]) -> None:
        """The run no longer waits for `what` (`tool shout`), which has not ended."""


def tell_step(step: Any) -> None:
    """For agents: send `step`, which is done, to the readers of the run.

    `step` is what the agent will have among its result's `steps`: a dataclass with `thought`, `tool`, `input`,
    `observation`, `error` and `traceback`. Outside of a run it does nothing. An agent that doesn't call it works as
    well: then its steps are sent at its end, and a run that is stopped before has none to show.
    """
    if (listener := context.current().listener) is not None:
        listener.step(as_json(step))


def tell_plan(steps: list[dict[str, Any]]) -> None:
    """For agents: send the plan and its state to the readers of the run. Outside of a run it does nothing."""
    if (listener := context.current().listener) is not None:
        listener.plan(loads(dumps(steps)))


def as_json(step: Any) -> dict[str, Any]:
    """A step as the routes show it, in plain values only, with its texts shortened. Raises `TypeError` or
    `ValueError` for one that is no JSON."""
    optional = ("error", "traceback")
    shown = {name: value for name, value in asdict(step).items() if name not in optional or value is not None}
    plain: dict[str, Any] = loads(dumps(bounded(shown)))
    return plain
