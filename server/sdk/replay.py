"""A run that continues another one: the steps that it replays from there."""

from dataclasses import dataclass
from typing import Any

from server.sdk import context


@dataclass(frozen=True)
class ReplayedStep:
    """A step of an earlier run. `written`: the text by which the model wrote it, which the next prompt has to repeat
    exactly; empty: a person has changed the step, and its text follows from its thought, tool and input.
    `runs_again`: the tool is to be called, and `observation` to be ignored."""

    thought: str
    tool: str
    input: dict[str, Any]
    observation: str
    error: str | None = None
    traceback: str | None = None
    written: str = ""
    runs_again: bool = False


def replayed_steps() -> tuple[ReplayedStep, ...]:
    """For agents: the steps that this run replays, in their order; mostly none. The agent acts as if it had just
    made them: it tells them with `tell_step`, and has them among its result's `steps`. Only an agent with the class
    attribute `replays = True` gets any."""
    return context.current().replayed
