"""What workers usually do first, done once in the template, so that all workers have the imports and caches.

LangChain, pydantic and guidance import parts of themselves when they are first used.
"""

import asyncio  # noqa: F401  for asynchronous tools
import dataclasses
import json
import multiprocessing.pool  # noqa: F401
import pdb  # noqa: F401  with what tracebacks need
from typing import Any, Literal

import guidance
from guidance import gen, select
from guidance.library import capture
from langchain_core.language_models import BaseChatModel  # noqa: F401
from langchain_core.messages import AIMessage, HumanMessage, convert_to_openai_messages
from langchain_core.tools import BaseTool, StructuredTool, ToolException, tool

from server.sdk import Prepared, arguments_schema, describe_type, grammar_schema
from server.sdk.chat_model import ResidentChatModel


@dataclasses.dataclass
class _Row:
    text: str
    number: int = 0
    names: list[str] = dataclasses.field(default_factory=list)


class _Answers:
    def complete(self, messages: list[dict[str, str]], **_: Any) -> str:
        return "fine"


@tool
def _count(
    text: str, limit: int = 3, kind: Literal["words", "lines"] = "words", names: list[str] | None = None
) -> str:
    """Count the words of a text."""
    if not text:
        raise ToolException("there is nothing to count")
    return str(min(len(text.split()), limit))


async def _wait(seconds: float) -> dict[str, float]:
    """Wait."""
    return {"seconds": seconds}


def _warm_up() -> None:
    tools: list[BaseTool] = [_count, StructuredTool.from_function(coroutine=_wait)]
    _count.invoke({"text": "one two"})
    choices = []
    for number, one in enumerate(tools):
        arguments = arguments_schema(one)
        describe_type(arguments, {})
        schema = json.dumps(grammar_schema(arguments))
        choices.append(capture(guidance.string(one.name), "tool") + guidance.json(f"input_{number}", schema=schema))
    Prepared((gen("thought", regex=r"[^\n]+", max_tokens=9) + select(choices)).ll_grammar())
    ResidentChatModel(get_engine=_Answers).invoke([HumanMessage("hello")])
    convert_to_openai_messages([AIMessage("hello")])
    dataclasses.asdict(_Row("a"))


_warm_up()
