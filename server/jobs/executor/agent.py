"""The agent: decides the next step, by a chat model."""

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.callbacks import Callbacks
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.tools import BaseTool

from server.jobs.executor import prompts
from server.jobs.executor.interactions import InteractionType
from server.jobs.executor.output_parser import StructuredChatOutputParserWithRetries
from server.jobs.executor.tools import is_parallel

Step = tuple[AgentAction, str]
"""An action, and its observation."""


class ConcurrentStructuredChatAgent:
    """Writes its actions as JSON in fenced blocks, so that every chat model can be used. It has no state.

    `prompt` and `system_prompt` are the last message of a user's turn, and of a system turn: templates with `{input}`
    and `{scratchpad}`. `instructions` is the first message.
    """

    def __init__(
        self,
        llm: BaseChatModel,
        instructions: str,
        output_parser: BaseOutputParser[AgentAction | AgentFinish],
        prompt: str = prompts.USER_PROMPT,
        system_prompt: str = prompts.SYSTEM_PROMPT,
    ) -> None:
        self.llm = llm
        self.instructions = instructions
        self.output_parser = output_parser
        self.prompt = prompt
        self.system_prompt = system_prompt

    @classmethod
    def from_llm_and_tools(
        cls,
        llm: BaseChatModel,
        tools: Sequence[BaseTool],
        *,
        prefix: str = prompts.PREFIX,
        suffix: str = prompts.SUFFIX,
        output_parser: BaseOutputParser[AgentAction | AgentFinish] | None = None,
        **options: Any,
    ) -> "ConcurrentStructuredChatAgent":
        """An agent whose instructions name `tools`. `options`: see the class."""
        parser = output_parser or StructuredChatOutputParserWithRetries.from_llm(llm)
        names = ", ".join(tool.name for tool in tools)
        format_instructions = prompts.FORMAT_INSTRUCTIONS.format(tool_names=names)
        parts = (prefix, "\n".join(map(describe_tool, tools)), format_instructions, suffix)
        return cls(llm, "\n\n".join(parts), parser, **options)

    def plan(
        self,
        intermediate_steps: Sequence[Step],
        interaction_type: InteractionType = InteractionType.User,
        *,
        input: str,
        chat_history: Sequence[BaseMessage] = (),
        callbacks: Callbacks = None,
    ) -> AgentAction | AgentFinish:
        """The next step of a turn. Raises `OutputParserException`, and what the model raises."""
        messages = [
            SystemMessage(self.instructions),
            *chat_history,
            self.last_message(interaction_type, input, intermediate_steps),
        ]
        text = self.llm.invoke(messages, {"callbacks": callbacks}).text
        return self.output_parser.parse(text)

    def last_message(
        self, interaction_type: InteractionType, input: str, intermediate_steps: Sequence[Step] = ()
    ) -> HumanMessage:
        """The message that the turn answers."""
        template = self.prompt if interaction_type is InteractionType.User else self.system_prompt
        steps = "\n".join(
            prompts.STEP.format(log=action.log.strip(), observation=observation)
            for action, observation in intermediate_steps
        )
        scratchpad = prompts.SCRATCHPAD.format(steps=steps) if steps else ""
        return HumanMessage(template.format(input=input, scratchpad=scratchpad))


def describe_tool(tool: BaseTool) -> str:
    """A line of the instructions."""
    note = f" {prompts.BACKGROUND_NOTE}" if is_parallel(tool) else ""
    return f"- {tool.name}: {tool.description}{note} Arguments: {json.dumps(tool.args, ensure_ascii=False)}"
