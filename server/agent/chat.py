"""The model alone, without tools."""

from collections.abc import Sequence
from dataclasses import asdict

from server.sdk import usage

from . import prompts
from .agent import Agent, AgentResult, Message

# The longest answer: tokens, or a share of the model's window if that is less.
ANSWER_TOKENS, ANSWER_SHARE = 1024, 1 / 4


class Chat(Agent):
    """Answers with what the model knows."""

    name = "chat"

    def __call__(self, question: str, history: Sequence[Message] = ()) -> AgentResult:
        with usage.measured() as used:
            conversation = self.open(prompts.conversation(prompts.CHAT, question, history))
            answer = conversation.write("", min(ANSWER_TOKENS, int(conversation.window * ANSWER_SHARE)))
        return AgentResult(answer, None, [], asdict(used))
