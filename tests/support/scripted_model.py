"""A chat model that says what a test has written down."""

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

Reply = str | Callable[[str], str]


def action(name: str, **arguments: Any) -> str:
    """A step as the agent's model writes it."""
    return f"I act.\n```json\n{json.dumps({'action': name, 'action_input': arguments})}\n```"


class ScriptedModel(BaseChatModel):
    """Gives one reply after the other; a function gets the last message's text. Afterwards it says `else_say`.

    `prompts` has the messages of each call.
    """

    replies: list[Reply]
    else_say: str = "Noted."
    _prompts: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @property
    def prompts(self) -> list[list[BaseMessage]]:
        return self._prompts

    @property
    def last_texts(self) -> list[str]:
        """The last message of each call."""
        return [prompt[-1].text for prompt in self._prompts]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: Sequence[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._lock:
            self._prompts.append(list(messages))
            reply = self.replies.pop(0) if self.replies else self.else_say
        text = reply if isinstance(reply, str) else reply(messages[-1].text)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])
