"""The default agent: thought, action, observation, and again, to an answer (ReAct, https://arxiv.org/abs/2210.03629).

Whatever has a fixed form is constrained by a grammar: the tool is one of the tools, its input fits the tool's
schema. Thoughts and the answer are free text of bounded length.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from langchain_core.tools import BaseTool

from server.sdk import PromptTooLongError, ToolFailedError, arguments_schema, call_tool, tell_step, usage

from . import prompts
from .agent import Agent, AgentResult, Message, Model, Step
from .conversation import Bounds, Conversation, shortened

# The longest of each: tokens, or a share of the model's window if that is less.
THOUGHT_TOKENS, THOUGHT_SHARE = 160, 1 / 16
INPUT_TOKENS, INPUT_SHARE = 768, 1 / 8
ANSWER_TOKENS, ANSWER_SHARE = 1024, 1 / 8
# For a turn's fixed words, and an observation of at least this much.
MARKS_TOKENS = 48
LEAST_OBSERVATION_TOKENS = 64


class CustomAgentGuidance(Agent):
    """Answers with tools, one call after the other."""

    name = "react"

    def __init__(
        self, model: Model, tools: Mapping[str, BaseTool], max_steps: int, tool_seconds: float = 30.0
    ) -> None:
        super().__init__(model, tools, max_steps, tool_seconds)
        self._schemas = {name: arguments_schema(tool) for name, tool in tools.items()}
        window = model.context_length
        self._bounds = Bounds(
            thought=min(THOUGHT_TOKENS, int(window * THOUGHT_SHARE)),
            input=min(INPUT_TOKENS, int(window * INPUT_SHARE)),
            answer=min(ANSWER_TOKENS, int(window * ANSWER_SHARE)),
        )
        self._answer_tokens = self._bounds.thought + self._bounds.answer + MARKS_TOKENS
        """Maximum tokens of the step with the answer."""
        self._call_tokens = self._bounds.thought + self._bounds.input + MARKS_TOKENS + LEAST_OBSERVATION_TOKENS
        """Maximum tokens of a step with a tool call and a short observation."""

    def __call__(self, question: str, history: Sequence[Message] = ()) -> AgentResult:
        """The answer to `question`.

        The model reads a tool's error. Where all steps are used and the model wants another, it answers
        with what it knows, and `details` has `out_of_steps`. Raises `PromptTooLongError` when question, history and
        the list of tools don't fit the model's window, and what the model raises.
        """
        steps: list[Step] = []
        details: dict[str, Any] = {}
        with usage.measured() as used:
            conversation = self._begin(question, history)
            while True:
                may_call = len(steps) < self.max_steps and self._room(conversation) >= self._call_tokens
                lead = prompts.NEXT_THOUGHT if steps else prompts.THOUGHT
                act = conversation.act(lead, self._schemas, may_call, self._bounds)
                if act.answer is not None:
                    answer = act.answer
                    break
                if act.tool is None or act.input is None:
                    answer = conversation.write(prompts.OUT_OF_STEPS, self._bounds.answer)
                    answer += prompts.OUT_OF_STEPS_NOTE.format(steps=len(steps))
                    details["out_of_steps"] = True
                    break
                steps.append(self._call(conversation, act.thought, act.tool, act.input))
                tell_step(steps[-1])
                conversation.add(prompts.OBSERVATION + steps[-1].observation)
        return AgentResult(answer, steps[-1].tool if steps else None, steps, asdict(used), details)

    def _begin(self, question: str, history: Sequence[Message]) -> Conversation:
        """The conversation up to where the model begins to write."""
        listed = [(tool.name, tool.description, self._schemas[tool.name]) for tool in self.tools.values()]
        conversation = self.open(prompts.messages(listed, question, history))
        limit = conversation.window - self._answer_tokens - self._call_tokens
        if conversation.length > limit:
            raise PromptTooLongError(
                f"The question and the list of tools are {conversation.length} tokens long, and for this model "
                f"{limit} are the most that leave room for an answer. Ask a shorter question, or load a model with a "
                "longer window.",
                tokens=conversation.length,
                limit=limit,
            )
        return conversation

    def _room(self, conversation: Conversation) -> int:
        """The tokens that are left before the step with the answer must begin."""
        return conversation.window - conversation.length - self._answer_tokens

    def _call(self, conversation: Conversation, thought: str, tool: str, written: str) -> Step:
        """Call a tool with the input that the model has written; whatever goes wrong the model reads."""
        given, error = {}, None
        try:
            given = read_input(written)
            observation = call_tool(self.tools[tool], given, self.tool_seconds)
        except (InputError, ToolFailedError) as failure:
            error = str(failure)
            observation = prompts.FAILED.format(message=error)
        # Half of the room, so that there is some for the observations to come.
        most = max(self._room(conversation) // 2, LEAST_OBSERVATION_TOKENS) - MARKS_TOKENS
        return Step(thought, tool, given, shortened(conversation, observation, most), error)


class InputError(ValueError):
    """What the model wrote can't be handed to a tool."""


def read_input(written: str) -> dict[str, Any]:
    """The arguments that `written` stands for. Raises `InputError`: the grammar makes it JSON, but it may be cut
    off at its bound, or hold a number or a character that Python or JSON has no place for."""
    try:
        given: dict[str, Any] = json.loads(written)
        json.dumps(given, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise InputError(f"the input can't be used: {error}.") from error
    return given
