"""The agent that chooses another agent for each question."""

from collections.abc import Sequence
from dataclasses import asdict

from server.sdk import usage

from . import prompts
from .agent import Agent, AgentResult, HistoryMessage
from .chat import Chat
from .conversation import Choice
from .plan_execute import PlanExecute
from .react import CustomAgentGuidance
from .shown_tools import ShownTools

AGENTS: dict[str, type[Agent]] = {"chat": Chat, "react": CustomAgentGuidance, "plan_execute": PlanExecute}


class Auto(Agent):
    """Lets the model choose one of `AGENTS`. `details` has the choice and its probability."""

    name = "auto"

    def __call__(self, question: str, history: Sequence[HistoryMessage] = ()) -> AgentResult:
        with usage.measured() as used:
            choice = self.choose(question, history)
            chosen = AGENTS[choice.option](self.model, self.tools, self.max_steps, self.tool_seconds)
            result = chosen(question, history)
        shown = {"agent": choice.option, "probability": choice.probability}
        return AgentResult(
            result.answer, result.function, result.steps, asdict(used), {"choice": shown, **result.details}
        )

    def choose(self, question: str, history: Sequence[HistoryMessage] = ()) -> Choice:
        """The model's choice among the names of `AGENTS`."""
        listed = ShownTools(self.model, self.tools, question, history).listed()
        conversation = self.open(prompts.conversation(prompts.CHOOSE.format(tools=listed), question, history))
        return conversation.choose(list(AGENTS))
