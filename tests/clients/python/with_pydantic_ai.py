"""pydantic-ai-slim: tools, `run_stream` and structured output, by chat completions and by responses."""

import asyncio

from pydantic import BaseModel, Field
from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

QUESTION = "What is 37 * 52?"


class Sample(BaseModel):
    """A sample in a freezer."""

    number: int = Field(ge=0, le=99)
    frozen: bool


async def check(model: Model) -> None:
    asked: list[str] = []
    agent = Agent(model, model_settings={"temperature": 0})

    @agent.tool_plain
    def calculator(expression: str) -> str:
        """Work out an arithmetic expression."""
        asked.append(expression)
        left, right = expression.split("*")
        return str(int(left) * int(right))

    first = await agent.run(QUESTION)
    assert (asked, first.output) == (["37 * 52"], "1924"), (asked, first.output)
    async with agent.run_stream(QUESTION) as stream:
        texts = [text async for text in stream.stream_text()]
    assert (asked, texts[-1]) == (["37 * 52"] * 2, "1924"), (asked, texts)
    # The calls, results and thoughts of an earlier run are sent back.
    again = await agent.run("What is 9 * 9?", message_history=first.all_messages())
    assert again.output == "81", again.output

    structured = Agent(model, output_type=Sample, model_settings={"temperature": 0})
    assert isinstance((await structured.run("sample 7, frozen")).output, Sample)
    async with structured.run_stream("sample 7, frozen") as sample:
        assert isinstance(await sample.get_output(), Sample)


async def main() -> None:
    await check(OpenAIChatModel("hearth"))
    await check(OpenAIResponsesModel("hearth"))


asyncio.run(main())
