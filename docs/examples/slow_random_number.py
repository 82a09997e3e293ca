"""A slow tool in the background: the agent answers at once, and is woken when the number is there.

Run it from the folder of Hearth: `.venv/bin/python -m docs.examples.slow_random_number`
"""

import random
import time

from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage

from server.jobs.executor import BaseParallelizableTool, initialize


class RandomNumberTool(BaseParallelizableTool):
    """Makes a random number, slowly."""

    name: str = "RandomNumber"
    description: str = "Make a random integer between a and b."
    is_parallelizable: bool = True

    def _run(self, a: int, b: int) -> str:
        time.sleep(1)
        return f"The random number is {random.randint(a, b)}."


def main(llm: BaseChatModel) -> None:
    """Ask for a number, and print what happens."""
    executor = initialize(llm=llm, tools=[RandomNumberTool()])
    for message in executor.run_once({"input": "Make a random number between 1 and 10."}):
        print(f"{message.who} ({message.type}): {message.outputs['output']}")


def make_llm() -> BaseChatModel:
    """Put any chat model of LangChain here, such as `init_chat_model("openai:gpt-5-mini")`.

    This one says what is written below, so that the example needs no key.
    """
    script = [
        '```json\n{"action": "RandomNumber", "action_input": {"a": 1, "b": 10}}\n```',
        "I have started it. You will hear from me.",
        "Your number is there.",
    ]
    return GenericFakeChatModel(messages=map(AIMessage, script))


if __name__ == "__main__":
    main(make_llm())
