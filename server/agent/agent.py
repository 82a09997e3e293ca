"""The base class of agents: made for one run, with a model and tools, and called with a question.

Your own agent is one file in this folder, like

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
"""The model of the run: resident or remote."""
HistoryMessage = Mapping[str, str]
"""An earlier message of the conversation: `role` and `content`."""


@dataclass
class Step:
    """One tool call. `error`: the message, if it failed. `observation`: what the model read. `traceback`: for people,
    if the tool raised an unexpected error."""

    thought: str
    tool: str
    input: dict[str, Any]
    observation: str
    error: str | None = None
    traceback: str | None = None


@dataclass(frozen=True)
class Citation:
    """Words of a document that a sentence of the answer rests on. `page`: its index, from 0; `page_label`: as
    printed, None if the document has no pages. `quote` stands in the document's text from `start` to `end`, in
    characters. `score`: of the passage in its search. `at`: the place in the answer where its sentence ends."""

    document: str
    document_id: str
    page: int
    page_label: str | None
    quote: str
    start: int
    end: int
    score: float
    at: int = 0


@dataclass
class AgentResult:
    """An answer with its steps. `function`: the last tool that was called; None if none was.

    `usage`: the fields of `server.sdk.usage.Usage`. `details`: further results, as JSON values. `citations`: what
    code has found in documents.
    """

    answer: str
    function: str | None
    steps: list[Step]
    usage: dict[str, int]
    details: dict[str, Any] = field(default_factory=dict)
    citations: list[Citation] = field(default_factory=list)


class Agent(ABC):
    """Answers one question with a model and tools."""

    name: ClassVar[str]
    """Its name in requests."""
    replays: ClassVar[bool] = False
    """Whether it replays the steps of `server.sdk.replayed_steps`, so that its runs can be forked at any step."""

    def __init__(
        self, model: Model, tools: Mapping[str, BaseTool], max_steps: int, tool_seconds: float = 30.0
    ) -> None:
        """`tools`: by name. `max_steps`: maximum number of tool calls. `tool_seconds`: time limit of each call."""
        self.model = model
        self.tools = tools
        self.max_steps = max_steps
        self.tool_seconds = tool_seconds

    @abstractmethod
    def __call__(self, question: str, history: Sequence[HistoryMessage] = ()) -> AgentResult:
        """The answer to `question`, which follows the messages of `history`."""

    def open(self, messages: list[dict[str, str]]) -> Conversation:
        """A conversation with the model that begins with `messages`. The model writes the next message."""
        if self.model.guided:
            return GuidedConversation(self.model, messages)
        return RemoteConversation(self.model, messages)
