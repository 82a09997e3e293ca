"""The agent that chooses another agent for each question."""

from collections.abc import Sequence
from dataclasses import asdict

from server.sdk import has_documents, usage

from . import prompts
from .agent import Agent, AgentResult, HistoryMessage
from .chat import Chat
from .conversation import Choice
from .documents import Documents
from .plan_execute import PlanExecute
from .react import CustomAgentGuidance
from .shown_tools import ShownTools

AGENTS: dict[str, type[Agent]] = {"chat": Chat, "react": CustomAgentGuidance, "plan_execute": PlanExecute}
WITH_DOCUMENTS: dict[str, type[Agent]] = {**AGENTS, "documents": Documents}


class Auto(Agent):
    """Lets the model choose one of `AGENTS`, or of `WITH_DOCUMENTS` where there are documents to read. `details` has
    the choice and its probability."""

    name = "auto"

    def __call__(self, question: str, history: Sequence[HistoryMessage] = ()) -> AgentResult:
        with usage.measured() as used:
            choice = self.choose(question, history)
            chosen = WITH_DOCUMENTS[choice.option](self.model, self.tools, self.max_steps, self.tool_seconds)
            result = chosen(question, history)
        shown = {"agent": choice.option, "probability": choice.probability}
        details = {"choice": shown, **result.details}
        return AgentResult(result.answer, result.function, result.steps, asdict(used), details, result.citations)

    def choose(self, question: str, history: Sequence[HistoryMessage] = ()) -> Choice:
        """The model's choice among the names of agents."""
        listed = ShownTools(self.model, self.tools, question, history).listed()
        agents, prompt = (
            (WITH_DOCUMENTS, prompts.CHOOSE_WITH_DOCUMENTS) if has_documents() else (AGENTS, prompts.CHOOSE)
        )
        conversation = self.open(prompts.conversation(prompt.format(tools=listed), question, history))
        return conversation.choose(list(agents))
