"""The resident model as a LangChain chat model, for tools that need one."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatResult


class CompletesChats(Protocol):
    """What a model can do wherever it runs, here or behind an API."""

    def complete(self, messages: list[dict[str, str]], *, max_tokens: int, stop: Sequence[str] | None = None) -> str:
        """The assistant's next message. Its cost counts for the run of the context."""
        ...


class ResidentChatModel(BaseChatModel):
    """Answers with whatever model is resident when it is called, so a tool may keep it for as long as it likes.

    Greedy decoding, `max_tokens` at most. A call's cost counts for the run that the calling tool belongs to.
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
