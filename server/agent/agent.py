"""What every agent is: made for one run with a model and tools, called with a question.

An agent of one's own is one file in this folder, like

    from dataclasses import asdict

    from server.sdk import usage

    from . import prompts
    from .agent import Agent, AgentResult


    class Brief(Agent):
        name = "brief"

        def __call__(self, question, history=()):
            with usage.measured() as used:
                conversation = self.open(prompts.conversation("Answer in one word.", question, history))
                answer = conversation.write("", max_tokens=8)
            return AgentResult(answer, None, [], asdict(used))
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from langchain_core.tools import BaseTool

from server.sdk import ApiModel, GuidedModel

from .conversation import Conversation
from .guided import GuidedConversation
from .remote import RemoteConversation

Model = GuidedModel | ApiModel
"""The model that answers the run: resident, or behind an API."""
Message = Mapping[str, str]
"""A message of a conversation: its `role` and its `content`."""


@dataclass
class Step:
    """One call of a tool. `error` is the message where it failed; `observation` is what the model read."""

    thought: str
    tool: str
    input: dict[str, Any]
    observation: str
    error: str | None = None


@dataclass
class AgentResult:
    """An answer, and how it came about. `function` is the tool that was used last, None if none was.

    `usage` has the sums of `server.sdk.usage.Usage`; `details` what else there is to tell, as JSON has it.
    """

    answer: str
    function: str | None
    steps: list[Step]
    usage: dict[str, int]
    details: dict[str, Any] = field(default_factory=dict)


class Agent(ABC):
    """Answers one question with a model and tools."""

    name: ClassVar[str]
    """What a request calls it."""

    def __init__(
        self, model: Model, tools: Mapping[str, BaseTool], max_steps: int, tool_seconds: float = 30.0
    ) -> None:
        """`model` is the resident one; up to `max_steps` calls of `tools`, by name, of `tool_seconds` each."""
        self.model = model
        self.tools = tools
        self.max_steps = max_steps
        self.tool_seconds = tool_seconds

    @abstractmethod
    def __call__(self, question: str, history: Sequence[Message] = ()) -> AgentResult:
        """The answer to `question`, which comes after the messages of `history`."""

    def open(self, messages: list[dict[str, str]]) -> Conversation:
        """A conversation with the model, of which `messages` have been said; the next words are the model's."""
        if self.model.guided:
            return GuidedConversation(self.model, messages)
        return RemoteConversation(self.model, messages)
