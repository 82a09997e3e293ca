"""The coder as a tool of other agents, in sessions that have files or variables."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.sdk import ApiModel, GuidedModel, ToolFailedError, code_session

from . import prompts
from .agent import Step
from .coder import Coder

CODER = "coder"
CODER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"task": {"type": "string", "minLength": 1}},
    "required": ["task"],
    "additionalProperties": False,
}
MOST_NAMES = 12
MOST_TRIES = 3
"""Maximum number of times that code is run for a task."""


class CoderTool:
    """Does tasks of one question with code. The runs of code are steps of the question's run."""

    def __init__(
        self, model: GuidedModel | ApiModel, question: str, history: Sequence[Mapping[str, str]] = ()
    ) -> None:
        self._coder = Coder(model, {}, max_steps=MOST_TRIES)
        self._question = question
        self._history = history
        self._steps: list[Step] = []
        session = code_session()
        names = [one["name"] for one in (*session.files, *session.variables)]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        self.description = prompts.CODER_TOOL.format(names=", ".join(names[:MOST_NAMES]) + more)

    def call(self, task: Any) -> str:
        """What the code gave. Raises `ToolFailedError` if the task is no text, or if no code succeeded."""
        if not isinstance(task, str):
            raise ToolFailedError("the task has to be a text.")
        result, steps = self._coder.work(task, self._history, code_session(), self._question)
        self._steps += steps
        if result.error is not None:
            raise ToolFailedError(f"the code failed {len(steps)} times. The last error: {result}")
        return str(result)

    def taken(self) -> list[Step]:
        """The runs of code since the last call of this method."""
        steps, self._steps = self._steps, []
        return steps
