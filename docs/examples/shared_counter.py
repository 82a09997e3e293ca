"""Several jobs, each a process of its own, count together: the global context.

Run it from the folder of Hearth: `.venv/bin/python -m docs.examples.shared_counter`
"""

import json

from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage

from server.jobs.executor import BaseParallelizableTool, initialize


class CountTool(BaseParallelizableTool):
    """Counts in its job."""

    name: str = "Count"
    description: str = "Count the cells of a plate."
    is_parallelizable: bool = True

    def _run(self, plate: str, cells: int) -> int:
        for _ in range(cells):
            self.global_context.increment("cells")
        # The function is called in this process, and again if another job has written meanwhile.
        self.global_context.update("plates", lambda plates: [*plates, plate], default=[])
        return cells


def main(llm: BaseChatModel) -> None:
    """Let the agent start three jobs, and print what they have counted together."""
    executor = initialize(llm=llm, tools=[CountTool()])
    for message in executor.run_once({"input": "Count the plates A, B and C."}):
        print(f"{message.who} ({message.type}): {message.outputs['output']}")
    print(f"{executor.global_context['cells']} cells on {sorted(executor.global_context['plates'])}")


def make_llm() -> BaseChatModel:
    """Put any chat model of LangChain here, such as `init_chat_model("openai:gpt-5-mini")`.

    This one says what is written below, so that the example needs no key.
    """
    plates = {"A": 120, "B": 80, "C": 100}
    actions = [
        {"action": "Count", "action_input": {"plate": plate, "cells": cells}} for plate, cells in plates.items()
    ]
    script = [f"```json\n{json.dumps(action)}\n```" for action in actions]
    # The jobs may end together or one after the other: up to three messages of the system.
    script += ["All three are being counted.", *["There are results."] * 3]
    return GenericFakeChatModel(messages=map(AIMessage, script))


if __name__ == "__main__":
    main(make_llm())
