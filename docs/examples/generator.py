"""A tool that reports while it works: its `_run` is a generator.

Run it from the folder of Hearth: `.venv/bin/python -m docs.examples.generator`
"""

import time
from collections.abc import Generator
from typing import Any

from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage

from server.jobs.executor import BaseParallelizableTool, initialize


class TitrationTool(BaseParallelizableTool):
    """Each value that it yields is a report. What it returns is the result."""

    name: str = "Titration"
    description: str = "Measure the pH after each of several drops."
    is_parallelizable: bool = True

    def _run(self, drops: int) -> Generator[str, None, dict[str, float]]:
        ph = 2.0
        for drop in range(1, drops + 1):
            time.sleep(0.2)
            ph += 1.5
            yield f"drop {drop}: pH {ph}"
        return {"drops": drops, "ph": ph}


def main(llm: BaseChatModel) -> None:
    """Print each message as it comes, by a callback."""
    executor = initialize(llm=llm, tools=[TitrationTool()])

    @executor.on_message
    def show(who: str, type: str, outputs: dict[str, Any]) -> None:
        print(f"{who} ({type}): {outputs['output']}")

    for _ in executor.run_once({"input": "Titrate with 3 drops."}):
        pass


def make_llm() -> BaseChatModel:
    """Put any chat model of LangChain here, such as `init_chat_model("openai:gpt-5-mini")`.

    This one says what is written below, so that the example needs no key.
    """
    script = [
        '```json\n{"action": "Titration", "action_input": {"drops": 3}}\n```',
        "The titration is running.",
        "After 3 drops the pH is 6.5.",
    ]
    return GenericFakeChatModel(messages=map(AIMessage, script))


if __name__ == "__main__":
    main(make_llm())
