"""What a fork of a run takes from there, and what is changed in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Fork:
    """A run continues the run `run_id` at `step`: `replayed` are the steps before, as `ReplayedStep` has them.

    `edited`: the names of what was changed. `beginning`: the text with which the agent's first model call has to
    begin. `sampling`: the sampling parameters of the agent's model calls, as far as they are changed. `prompt`: that
    of the same step in the earlier run; None if it made no model call.
    """

    run_id: str
    step: int
    replayed: Sequence[dict[str, Any]] = ()
    edited: Sequence[str] = ()
    beginning: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    same_prompt: bool | None = None
    """Whether the first model call has had exactly this prompt; None before it, and where there is none."""

    def take_beginning(self) -> str:
        """`beginning`, once."""
        taken, self.beginning = self.beginning, ""
        return taken

    def compare(self, prompt: str) -> None:
        """The agent's first model call has ended, which had this prompt."""
        if self.prompt is not None and self.same_prompt is None:
            self.same_prompt = prompt == self.prompt

    def as_json(self) -> dict[str, Any]:
        """As answers and records have it."""
        shown: dict[str, Any] = {"run_id": self.run_id, "step": self.step, "edited": list(self.edited)}
        shown["same_prompt"] = self.same_prompt
        return {**shown, "sampling": dict(self.sampling)} if self.sampling else shown
