"""The default agent: thought, action, observation, and again, to an answer (ReAct, https://arxiv.org/abs/2210.03629).

Whatever has a fixed form is constrained by a grammar: the tool is one of the tools, its input fits the tool's
schema. Thoughts and the answer are free text of bounded length.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import guidance
from guidance import gen, select
from guidance._ast import GrammarNode
from guidance.library import capture
from guidance.models import Model
from langchain_core.tools import BaseTool

from server.engine import GuidedEngine, usage
from server.errors import PromptTooLongError
from server.runs.step import tell_step
from server.runs.tool_call import ToolFailedError, call_tool
from server.tool_schema import arguments_schema

from . import prompts

# The longest of each: tokens, or a share of the model's window if that is less.
THOUGHT_TOKENS, THOUGHT_SHARE = 160, 1 / 16
INPUT_TOKENS, INPUT_SHARE = 768, 1 / 8
ANSWER_TOKENS, ANSWER_SHARE = 1024, 1 / 8
# For a turn's fixed words, and an observation of at least this much.
MARKS_TOKENS = 48
LEAST_OBSERVATION_TOKENS = 64


@dataclass
class Step:
    """One call of a tool. `error` is the message where it failed; `observation` is what the model read."""

    thought: str
    tool: str
    input: dict[str, Any]
    observation: str
    error: str | None = None


@dataclass
class AgentResult:
    """An answer, and how it came about. `function` is the tool that was used last, None if none was.

    `usage` has the sums of `server.engine.usage.Usage`.
    """

    answer: str
    function: str | None
    steps: list[Step]
    usage: dict[str, int]


class CustomAgentGuidance:
    """Answers one question at a time with `tools`, by name, in at most `max_steps` calls of them."""

    def __init__(
        self, model: GuidedEngine, tools: Mapping[str, BaseTool], max_steps: int, tool_seconds: float = 30.0
    ) -> None:
        """`model` is the engine over the resident model; a tool may take `tool_seconds` a call."""
        self.model = model
        self.tools = tools
        self.max_steps = max_steps
        self.tool_seconds = tool_seconds
        self._schemas = {name: arguments_schema(tool) for name, tool in tools.items()}
        window = model.context_length
        self._thought = min(THOUGHT_TOKENS, int(window * THOUGHT_SHARE))
        self._input = min(INPUT_TOKENS, int(window * INPUT_SHARE))
        self._answer = min(ANSWER_TOKENS, int(window * ANSWER_SHARE))
        self._last_turn = self._thought + self._answer + MARKS_TOKENS
        """Tokens that the turn with the answer may take."""
        self._call_turn = self._thought + self._input + MARKS_TOKENS + LEAST_OBSERVATION_TOKENS
        """Tokens that a turn with a tool call takes at most, if its observation is kept short."""

    def __call__(self, question: str) -> AgentResult:
        """The answer to `question`.

        A mistake of a tool is told to the model. Raises `PromptTooLongError` when the question and the list of
        tools don't fit the model's window, and what the engine raises.
        """
        steps: list[Step] = []
        with usage.measured() as used:
            lm = self._open(question)
            while True:
                may_call = len(steps) < self.max_steps and self._room(lm) >= self._call_turn
                lm += self._turn(prompts.NEXT_THOUGHT if steps else prompts.THOUGHT, may_call)
                if "answer" in lm:
                    answer = lm["answer"].strip()
                    break
                if not may_call:
                    lm += prompts.OUT_OF_STEPS + gen("answer", max_tokens=self._answer)
                    answer = lm["answer"].strip() + prompts.OUT_OF_STEPS_NOTE.format(steps=len(steps))
                    break
                steps.append(self._call(lm["thought"], lm["tool"], lm[self._input_of(lm["tool"])], self._room(lm)))
                tell_step(steps[-1])
                lm += guidance.string(prompts.OBSERVATION + self.model.tokenizer.protect(steps[-1].observation))
        return AgentResult(answer, steps[-1].tool if steps else None, steps, asdict(used))

    def _open(self, question: str) -> Model:
        """The conversation up to where the model begins to write."""
        tokenizer = self.model.tokenizer
        listed = [(tool.name, tool.description, self._schemas[tool.name]) for tool in self.tools.values()]
        prompt = tokenizer.render_chat(prompts.messages(listed, question))
        length, limit = tokenizer.count(prompt), self.model.context_length - self._last_turn - self._call_turn
        if length > limit:
            raise PromptTooLongError(
                f"The question and the list of tools are {length} tokens long, and for this model {limit} are the "
                "most that leave room for an answer. Ask a shorter question, or load a model with a longer window.",
                tokens=length,
                limit=limit,
            )
        return self.model.program() + guidance.string(prompt)

    def _turn(self, lead: str, may_call: bool) -> GrammarNode:
        """A thought, and then a call of one of the tools or the answer. Without `may_call` only the name of the
        tool that the model wants is written."""
        choices = []
        for name, schema in self._schemas.items():
            choice = prompts.ACTION + capture(guidance.string(name), "tool")
            if may_call:
                # A name for each: guidance takes two `json` of one name for the same, whatever their schemas are.
                # Lenient: what a grammar can't say, such as that the members of a list differ, the tool checks.
                arguments = guidance.json(self._input_of(name), schema=schema, max_tokens=self._input, lenient=True)
                choice += prompts.ACTION_INPUT + arguments
            choices.append(choice)
        answer = prompts.ANSWER + gen("answer", max_tokens=self._answer)
        turn: GrammarNode = (
            lead + gen("thought", regex=r"[^\n]+", max_tokens=self._thought) + select([*choices, answer])
        )
        return turn

    def _input_of(self, tool: str) -> str:
        """What the input of a tool is called in a grammar."""
        return f"input_{list(self.tools).index(tool)}"

    def _room(self, lm: Model) -> int:
        """The tokens that are left before the turn with the answer must begin."""
        return self.model.context_length - self.model.tokenizer.count(str(lm)) - self._last_turn

    def _call(self, thought: str, tool: str, written: str, room: int) -> Step:
        """Call a tool with the input that the model has written; whatever goes wrong the model reads."""
        given, error = {}, None
        try:
            given = read_input(written)
            observation = call_tool(self.tools[tool], given, self.tool_seconds)
        except (InputError, ToolFailedError) as failure:
            error = str(failure)
            observation = prompts.FAILED.format(message=error)
        # Half of the room, so that there is some for the observations to come.
        most = max(room // 2, LEAST_OBSERVATION_TOKENS) - MARKS_TOKENS
        return Step(thought.strip(), tool, given, self._shortened(observation, most), error)

    def _shortened(self, text: str, tokens: int) -> str:
        shown = self.model.tokenizer.cut(text, tokens)
        return text if shown == text else shown + prompts.CUT.format(characters=len(text) - len(shown))


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
