"""The resident model as a LangChain chat model, for tools that need one."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatResult


class CompletesChats(Protocol):
    """The interface that local and remote models share."""

    def complete(self, messages: list[dict[str, str]], *, max_tokens: int, stop: Sequence[str] | None = None) -> str:
        """The assistant's next message. Its usage counts for the run of the context."""
        ...


class ResidentChatModel(BaseChatModel):
    """Answers with the model that is resident at the time of a call, so a tool may hold it as long as it likes.

    Greedy decoding, at most `max_tokens`. A call's usage counts for the run of the calling tool.
    Raises what `get_engine` raises while no model is loaded.
    """

    get_engine: Callable[[], CompletesChats]
    max_tokens: int = 512

    @property
    def _llm_type(self) -> str:
        return "hearth-resident"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        conversation = convert_to_openai_messages(messages, text_format="string")
        reply = self.get_engine().complete(conversation, max_tokens=self.max_tokens, stop=stop)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(reply))])
