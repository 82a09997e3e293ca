"""openai-agents: a tool, a handoff and a structured answer, by responses and by chat completions; streamed too.

`set_tracing_disabled(True)`: it sends traces to OpenAI otherwise.
"""

import asyncio
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

QUESTION = "What is 37 * 52?"
NEXT = "What is 9 * 9?"
GREEDY = ModelSettings(temperature=0)
asked: list[str] = []


@function_tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression."""
    asked.append(expression)
    left, right = expression.split("*")
    return str(int(left) * int(right))


class Sample(BaseModel):
    """A sample in a freezer."""

    number: int = Field(ge=0, le=99)
    frozen: bool


async def main() -> None:
    set_tracing_disabled(True)  # the traces would go to OpenAI
    client = AsyncOpenAI()
    models: list[Any] = [OpenAIResponsesModel("hearth", client), OpenAIChatCompletionsModel("hearth", client)]
    for model in models:
        agent: Any = Agent(name="Reckoner", model=model, tools=[calculator], model_settings=GREEDY)
        answer = await Runner.run(agent, QUESTION)
        assert (asked, answer.final_output) == (["37 * 52"], "1924"), (asked, answer.final_output)
        streamed = Runner.run_streamed(agent, QUESTION)
        items = [event.item.type async for event in streamed.stream_events() if event.type == "run_item_stream_event"]
        assert streamed.final_output == "1924", streamed.final_output
        assert [one for one in items if one != "reasoning_item"] == [
            "tool_call_item",
            "tool_call_output_item",
            "message_output_item",
        ], items

        # What was said before is sent back, or the saved response stands for it.
        again = await Runner.run(agent, [*answer.to_input_list(), {"role": "user", "content": NEXT}])
        assert again.final_output == "81", again.final_output
        if isinstance(model, OpenAIResponsesModel):
            saved = await Runner.run(agent, NEXT, previous_response_id=answer.last_response_id)
            assert saved.final_output == "81", saved.final_output
        asked.clear()

        structured: Any = Agent(name="Reader", model=model, output_type=Sample, model_settings=GREEDY)
        assert isinstance((await Runner.run(structured, "sample 7, frozen")).final_output, Sample)

        # A handoff is a call without arguments; the other agent answers. The embedded model repeats its result.
        must = ModelSettings(temperature=0, tool_choice="required")
        desk: Any = Agent(name="Desk", model=model, handoffs=[agent], model_settings=must)
        handed = await Runner.run(desk, QUESTION)
        assert handed.last_agent.name == "Reckoner" and handed.final_output, handed
        asked.clear()


asyncio.run(main())
