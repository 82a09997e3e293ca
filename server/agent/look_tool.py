"""Looking at pictures, as a tool of the agents where the question or its session has some."""

from typing import Any

from server.sdk import ApiModel, GuidedModel, ToolFailedError, image_names, look_at

from . import prompts
from .chat import Chat

LOOK = "look_at_image"
LOOK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "question": {"type": "string"}},
    "required": ["name", "question"],
    "additionalProperties": False,
}
MOST_NAMES = 12


class LookTool:
    """Asks the run's model about a picture, on its own. A model that takes no images reads the text and the facts of
    it instead, and the tool says so."""

    def __init__(self, model: GuidedModel | ApiModel) -> None:
        self._model = model
        names = image_names()
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        self.description = prompts.LOOK_TOOL.format(names=", ".join(names[:MOST_NAMES]) + more)

    def call(self, name: Any, question: Any) -> str:
        """What the model sees, or what was read. Raises `ToolFailedError`, and what the model raises."""
        if not isinstance(name, str) or not isinstance(question, str):
            raise ToolFailedError("name and question have to be texts.")
        looked = look_at(name)
        if not looked.seen:
            return looked.text
        asked = prompts.LOOK.format(picture=looked.mark, question=question.strip() or prompts.DESCRIBE)
        return Chat(self._model, {}, 0)(asked).answer
