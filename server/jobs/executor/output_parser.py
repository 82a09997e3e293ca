"""Reads what the agent's model has written: an action, or the final answer."""

import json
import re
from typing import Any

from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.runnables import RunnableConfig

from server.jobs.executor.prompts import FORMAT_INSTRUCTIONS, REPAIR

FINAL_ANSWER = "Final Answer"
_FENCE = re.compile(r"```[ \t]*(\w*)[ \t]*\n?\s*")


class StructuredChatOutputParser(BaseOutputParser[AgentAction | AgentFinish]):
    """Reads the first fenced block of JSON.

    - A list of actions counts as its first action.
    - The action "Final Answer" is the answer.
    - A text without a fence is the answer. So is one whose fences are all of other languages, such as ```python.
    - A text that is nothing but a JSON object with "action" needs no fence.

    Raises `OutputParserException` for anything else.
    """

    def get_format_instructions(self) -> str:
        """What the model must write; `{tool_names}` is left open."""
        return FORMAT_INSTRUCTIONS

    def parse(self, text: str) -> AgentAction | AgentFinish:
        """The action, or the answer as `return_values["output"]`."""
        found = _json_part(text)
        if found is None:
            return AgentFinish({"output": text.strip()}, text)
        try:
            # Models write line breaks inside of strings; the decoder also ignores what follows the value, so that an
            # answer may contain fences itself.
            value, _ = json.JSONDecoder(strict=False).raw_decode(found)
        except ValueError as error:
            raise _unreadable(text, f"the block is not JSON ({error}).") from error
        return _step(value, text)

    @property
    def _type(self) -> str:
        return "structured_chat"


class StructuredChatOutputParserWithRetries(BaseOutputParser[AgentAction | AgentFinish]):
    """The same, and lets a model repair a text that can't be read, at most `max_retries` times.

    Without `llm` nothing is repaired. Raises `OutputParserException` if the last text can't be read either.
    """

    base_parser: StructuredChatOutputParser = StructuredChatOutputParser()
    llm: BaseChatModel | None = None
    max_retries: int = 1

    @classmethod
    def from_llm(cls, llm: BaseChatModel, max_retries: int = 1) -> "StructuredChatOutputParserWithRetries":
        """A parser whose texts `llm` repairs."""
        return cls(llm=llm, max_retries=max_retries)

    def get_format_instructions(self) -> str:
        """What the model must write; `{tool_names}` is left open."""
        return self.base_parser.get_format_instructions()

    def parse(self, text: str, config: RunnableConfig | None = None) -> AgentAction | AgentFinish:
        """The action, or the answer as `return_values["output"]`. `config`: for the model that repairs."""
        retries = self.max_retries if self.llm is not None else 0
        while True:
            try:
                return self.base_parser.parse(text)
            except OutputParserException as error:
                if retries == 0 or self.llm is None:
                    raise
                retries -= 1
                instructions = self.get_format_instructions().format(tool_names="the tools that you know")
                prompt = REPAIR.format(problem=error.observation, instructions=instructions, text=text)
                text = self.llm.invoke(prompt, config).text

    @property
    def _type(self) -> str:
        return "structured_chat_with_retries"


def _json_part(text: str) -> str | None:
    """The text from the first fenced JSON on; None if there is none."""
    for fence in re.finditer(_FENCE, text):
        if fence[1].lower() == "json" or (not fence[1] and _opens_block(text, fence.start())):
            return text[fence.end() :]
    bare = text.strip()
    return bare if bare.startswith("{") and _is_action(bare) else None


def _opens_block(text: str, position: int) -> bool:
    """Whether the fence at `position` opens a block, and does not close one: fences alternate."""
    return text.count("```", 0, position) % 2 == 0


def _is_action(text: str) -> bool:
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        return False
    return isinstance(value, dict) and "action" in value


def _step(value: Any, text: str) -> AgentAction | AgentFinish:
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict) or not isinstance(value.get("action"), str):
        raise _unreadable(text, 'the JSON is no object with an "action".')
    given = value.get("action_input", {})
    if value["action"] == FINAL_ANSWER:
        answer = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        return AgentFinish({"output": answer}, text)
    if given is None:
        given = {}
    if not isinstance(given, str | dict):
        raise _unreadable(text, '"action_input" is neither an object nor a text.')
    return AgentAction(value["action"], given, text)


def _unreadable(text: str, problem: str) -> OutputParserException:
    return OutputParserException(f"Could not parse LLM output: {text}", observation=problem, llm_output=text)
