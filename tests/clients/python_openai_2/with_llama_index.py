"""llama-index-llms-openai-like: chat and completions, also as streams; a FunctionAgent; structured output.

It needs version 2 of `openai`.
"""

import asyncio
import os

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

asked: list[str] = []


class Sample(BaseModel):
    """A sample in a freezer."""

    number: int = Field(ge=0, le=99)
    frozen: bool


def calculator(expression: str) -> str:
    """Work out an arithmetic expression."""
    asked.append(expression)
    left, right = expression.split("*")
    return str(int(left) * int(right))


def model(**options: object) -> OpenAILike:
    return OpenAILike(
        model="hearth",
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        context_window=4096,
        temperature=0,
        max_tokens=200,
        **options,
    )


async def ask_agent() -> str:
    agent = FunctionAgent(tools=[calculator], llm=chat)
    return str(await agent.run("What is 37 * 52?"))


chat = model(is_chat_model=True, is_function_calling_model=True)
hello = [ChatMessage(role="user", content="hello")]
whole = chat.chat(hello).message.content
assert whole and "".join(part.delta or "" for part in chat.stream_chat(hello)) == whole
assert asyncio.run(ask_agent()) == "1924"
assert asked == ["37 * 52"], asked
sample = chat.as_structured_llm(Sample).complete("sample 7, frozen").raw
assert isinstance(sample, Sample), sample

completions = model(is_chat_model=False)
text = completions.complete("The sea").text
assert text and "".join(part.delta or "" for part in completions.stream_complete("The sea")) == text
