"""The agent that chooses another agent, question by question."""

from collections.abc import Sequence
from dataclasses import asdict

from server.sdk import arguments_schema, usage

from . import prompts
from .agent import Agent, AgentResult, Message
from .chat import Chat
from .conversation import Choice
from .plan_execute import PlanExecute
from .react import CustomAgentGuidance

AGENTS: dict[str, type[Agent]] = {"chat": Chat, "react": CustomAgentGuidance, "plan_execute": PlanExecute}


class Auto(Agent):
    """Lets the model choose who answers, among `AGENTS`. `details` has the choice and its probability."""

    name = "auto"

    def __call__(self, question: str, history: Sequence[Message] = ()) -> AgentResult:
        with usage.measured() as used:
            choice = self.choose(question, history)
            chosen = AGENTS[choice.option](self.model, self.tools, self.max_steps, self.tool_seconds)
            result = chosen(question, history)
        shown = {"agent": choice.option, "probability": choice.probability}
        return AgentResult(
            result.answer, result.function, result.steps, asdict(used), {"choice": shown, **result.details}
        )

    def choose(self, question: str, history: Sequence[Message] = ()) -> Choice:
        """One of the names of `AGENTS`."""
        listed = prompts.list_tools(
            (tool.name, tool.description, arguments_schema(tool)) for tool in self.tools.values()
        )
        conversation = self.open(prompts.conversation(prompts.CHOOSE.format(tools=listed), question, history))
        return conversation.choose(list(AGENTS))
