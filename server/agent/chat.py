"""The model alone, without tools."""

from collections.abc import Sequence
from dataclasses import asdict

from server.sdk import usage

from . import prompts
from .agent import Agent, AgentResult, HistoryMessage

# The maximum of an answer: tokens, or a share of the model's context length if that is less.
ANSWER_TOKENS, ANSWER_SHARE = 1024, 1 / 4


class Chat(Agent):
    """Answers from the model's own knowledge."""

    name = "chat"

    def __call__(self, question: str, history: Sequence[HistoryMessage] = ()) -> AgentResult:
        with usage.measured() as used:
            conversation = self.open(prompts.conversation(prompts.CHAT, question, history))
            answer = conversation.write("", min(ANSWER_TOKENS, int(conversation.window * ANSWER_SHARE)))
        return AgentResult(answer, None, [], asdict(used))
