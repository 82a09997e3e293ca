"""The default agent: it repeats thought, action and observation until the answer (ReAct,
https://arxiv.org/abs/2210.03629).

Grammars constrain everything that has a fixed form: the tool's name, and its input, which fits the tool's schema.
Thoughts and the answer are free text of bounded length.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from langchain_core.tools import BaseTool

from server.sdk import PromptTooLongError, ToolFailedError, replayed_steps, shown_tools, tell_step, usage

from . import prompts
from .agent import Agent, AgentResult, HistoryMessage, Model, Step
from .conversation import Act, Bounds, Conversation, shortened
from .shown_tools import ShownTools

# The maximum of each part: tokens, or a share of the model's context length if that is less.
THOUGHT_TOKENS, THOUGHT_SHARE = 160, 1 / 16
INPUT_TOKENS, INPUT_SHARE = 768, 1 / 8
ANSWER_TOKENS, ANSWER_SHARE = 1024, 1 / 8
# Tokens for the fixed words of a step, and the minimum for an observation.
MARKS_TOKENS = 48
LEAST_OBSERVATION_TOKENS = 64


class CustomAgentGuidance(Agent):
    """Answers with tools, one call after the other."""

    name = "react"
    replays = True

    def __init__(
        self, model: Model, tools: Mapping[str, BaseTool], max_steps: int, tool_seconds: float = 30.0
    ) -> None:
        super().__init__(model, tools, max_steps, tool_seconds)
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

    def __call__(self, question: str, history: Sequence[HistoryMessage] = ()) -> AgentResult:
        """The answer to `question`.

        The model reads the errors of tools. The result of a tool with `return_direct` is the answer. If the model
        wants another tool call after `max_steps`, it has to answer with what it knows, and `details` has
        `out_of_steps`. Of many tools it is shown some, and can find others: see `ShownTools`. Finding tools counts as
        a tool call. Raises `PromptTooLongError` if question, history and the list of tools don't fit the model's
        context length, and what the model raises.
        """
        return self.answer(question, history, ShownTools(self.model, self.tools, question, history))

    def answer(self, question: str, history: Sequence[HistoryMessage], shown: ShownTools) -> AgentResult:
        """The same with these tools."""
        steps: list[Step] = []
        details: dict[str, Any] = {}
        with usage.measured() as used:
            conversation = self._begin(question, history, shown)
            answer = self._replay(conversation, shown, steps)
            while answer is None:
                may_call = len(steps) < self.max_steps and self._room(conversation) >= self._call_tokens
                lead = prompts.NEXT_THOUGHT if steps else prompts.THOUGHT
                act = conversation.act(lead, shown.schemas, may_call, self._bounds)
                if act.answer is not None:
                    answer = act.answer
                    break
                if act.tool is None or act.input is None:
                    answer = conversation.write(prompts.OUT_OF_STEPS, self._bounds.answer)
                    answer += prompts.OUT_OF_STEPS_NOTE.format(steps=len(steps))
                    details["out_of_steps"] = True
                    break
                step, result = self._call(conversation, shown, act.thought, act.tool, act.input)
                answer = self._finish(conversation, steps, [*shown.inner_steps(), step], result)
        return AgentResult(answer, steps[-1].tool if steps else None, steps, asdict(used), details)

    def _replay(self, conversation: Conversation, shown: ShownTools, steps: list[Step]) -> str | None:
        """Replay the steps of an earlier run: append them to the conversation and to `steps`. Returns the answer
        if the last of them is the answer."""
        answer = None
        for given in replayed_steps():
            lead = prompts.NEXT_THOUGHT if steps else prompts.THOUGHT
            written = json.dumps(given.input, ensure_ascii=False)
            conversation.repeat(lead, Act(given.thought, given.tool, written), given.written, shown.schemas)
            if given.runs_again:
                step, result = self._call(conversation, shown, given.thought, given.tool, written)
            else:
                observed = (given.observation, given.error, given.traceback)
                step = Step(given.thought, given.tool, given.input, *observed)
                result = given.observation if given.error is None else None
                if given.tool == shown_tools.FIND_TOOLS and given.error is None:
                    shown.find(given.input.get("query"))  # the model was shown what it had found
            answer = self._finish(conversation, steps, [*shown.inner_steps(), step], result)
        return answer

    def _finish(
        self, conversation: Conversation, steps: list[Step], made: list[Step], result: str | None
    ) -> str | None:
        """Add to `steps` those that were `made`, of which the last one had that `result`; None: it failed. Returns
        the answer if the result is the answer."""
        steps += made
        step = made[-1]
        tell_step(step)
        if result is not None and step.tool in self.tools and self.tools[step.tool].return_direct:
            return result
        conversation.add(prompts.OBSERVATION + step.observation)
        return None

    def _begin(self, question: str, history: Sequence[HistoryMessage], shown: ShownTools) -> Conversation:
        """The conversation before the model's first step."""
        conversation = self.open(prompts.messages(shown.described(), question, history))
        limit = conversation.window - self._answer_tokens - self._call_tokens
        if conversation.length > limit:
            raise PromptTooLongError(
                f"The question and the list of tools are {conversation.length} tokens long. For this model the limit "
                f"is {limit}, to leave room for an answer. Ask a shorter question, or load a model with a larger "
                "context length.",
                tokens=conversation.length,
                limit=limit,
            )
        return conversation

    def _room(self, conversation: Conversation) -> int:
        """The tokens that are left for tool calls before the answer."""
        return conversation.window - conversation.length - self._answer_tokens

    def _call(
        self, conversation: Conversation, shown: ShownTools, thought: str, tool: str, written: str
    ) -> tuple[Step, str | None]:
        """Call a tool with the input that the model wrote. The model reads an error as the observation. Returns the
        step, and the whole result; None if the call failed."""
        given, result, error, traceback = {}, None, None, None
        try:
            given = read_input(written)
            result = observation = shown.call(tool, given, self.tool_seconds)
        except (InputError, ToolFailedError) as failure:
            error, traceback = str(failure), getattr(failure, "traceback", None)
            observation = prompts.FAILED.format(message=error)
        # Half of the room, to leave some for later observations.
        most = max(self._room(conversation) // 2, LEAST_OBSERVATION_TOKENS) - MARKS_TOKENS
        return Step(thought, tool, given, shortened(conversation, observation, most), error, traceback), result


class InputError(ValueError):
    """The input that the model wrote can't be used for a call."""


def read_input(written: str) -> dict[str, Any]:
    """The arguments in `written`. Raises `InputError`: the grammar guarantees JSON, but the text may be cut off at
    its limit, or have a number or a character that Python or JSON can't represent."""
    try:
        given: dict[str, Any] = json.loads(written)
        json.dumps(given, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise InputError(f"the input can't be used: {error}.") from error
    return given
