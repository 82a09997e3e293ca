"""One turn of the agent: steps, until it answers."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import BaseMessage
from langchain_core.tools import BaseTool

from server.bounds import shortened
from server.jobs.executor import prompts
from server.jobs.executor.agent import ConcurrentStructuredChatAgent, Step
from server.jobs.executor.global_context import GlobalContext
from server.jobs.executor.interactions import InteractionType
from server.jobs.executor.job_tools import LONGEST_RESULT
from server.jobs.executor.tools import call, is_parallel
from server.sdk.tool_result import as_text

UNREADABLE_TOOL = "_Exception"
"""The name of a step that could not be read."""

StartJob = Callable[[BaseTool, str | dict[str, Any]], str]
"""Starts a job, and returns the observation."""


class Conversation:
    """What the turns of one conversation share: whether it was `abandoned`, by `stop` or `reset`."""

    def __init__(self) -> None:
        self.abandoned = threading.Event()


class Turns:
    """Answers messages, one at a time."""

    def __init__(
        self,
        agent: ConcurrentStructuredChatAgent,
        tools: Mapping[str, BaseTool],
        context: GlobalContext,
        max_iterations: int,
        report: Callable[[str, str], object],
    ) -> None:
        """`report(tool, text)` gets what a generator yields in the foreground."""
        self._agent = agent
        self._tools = tools
        self._context = context
        self._max_iterations = max_iterations
        self._report = report

    def answer(
        self,
        conversation: Conversation,
        kind: InteractionType,
        text: str,
        history: Sequence[BaseMessage],
        start_job: StartJob,
    ) -> tuple[str, list[Step]]:
        """The answer, and the steps before it. Of no use if the conversation was abandoned. Raises what the model
        raises."""
        steps: list[Step] = []
        while len(steps) < self._max_iterations and not conversation.abandoned.is_set():
            try:
                step = self._agent.plan(steps, kind, input=text, chat_history=history)
            except OutputParserException as error:
                problem = prompts.UNREADABLE.format(problem=error.observation or error)
                steps.append((AgentAction(UNREADABLE_TOOL, "", error.llm_output or ""), problem))
                continue
            if isinstance(step, AgentFinish):
                return str(step.return_values["output"]), steps
            if conversation.abandoned.is_set():
                break
            observation = self._act(step, start_job)
            steps.append((step, observation))
            tool = self._tools.get(step.tool)
            if tool is not None and tool.return_direct and not is_parallel(tool):
                return observation, steps
        return prompts.GAVE_UP.format(steps=len(steps)), steps

    def _act(self, action: AgentAction, start_job: StartJob) -> str:
        """The observation: a result, an error, or the name of a job."""
        tool = self._tools.get(action.tool)
        if tool is None:
            return prompts.INVALID_TOOL.format(tool=action.tool, names=", ".join(self._tools))
        try:
            if is_parallel(tool):
                return start_job(tool, action.tool_input)
            result = call(tool, action.tool_input, self._context, lambda text: self._report(tool.name, text))
            return shortened(as_text(result), LONGEST_RESULT)
        except Exception as error:  # boundary: a tool may raise anything
            return f"Error: {type(error).__name__}: {error}"
