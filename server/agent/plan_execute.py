"""Plan and execute: first the steps, then each of them by the default agent, then the answer from what they gave
(Plan-and-Solve, https://arxiv.org/abs/2305.04091; with replanning as in https://arxiv.org/abs/2305.16653)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from langchain_core.tools import BaseTool

from server.sdk import arguments_schema, tell_plan, usage

from . import prompts
from .agent import Agent, AgentResult, Message, Model, Step
from .conversation import UnreadableReplyError, shortened
from .react import CustomAgentGuidance

MOST_STEPS = 8
LONGEST_STEP = 300  # characters
# The longest plan, and the longest answer: tokens, or a share of the model's window if that is less.
PLAN_TOKENS, PLAN_SHARE = 768, 1 / 4
ANSWER_TOKENS, ANSWER_SHARE = 1024, 1 / 8
# Of the window, what the results of all steps may take of a prompt together, and the error of a step tried again.
RESULTS_SHARE, ERROR_SHARE = 1 / 3, 1 / 8


@dataclass
class PlannedStep:
    """`state`: `planned`, `done` with its `result`, or `failed` with its `error`."""

    step: str
    state: str = "planned"
    result: str | None = None
    error: str | None = None

    def shown(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def plan_schema(least: int) -> dict[str, Any]:
    """The JSON schema of a plan with at least so many steps."""
    step = {"type": "string", "minLength": 1, "maxLength": LONGEST_STEP}
    return {
        "type": "object",
        "properties": {"steps": {"type": "array", "items": step, "minItems": least, "maxItems": MOST_STEPS}},
        "required": ["steps"],
        "additionalProperties": False,
    }


class PlanExecute(Agent):
    """Carries out a plan of up to eight steps. `details` has the `plan`, with each step's state.

    After each step the model may change what is left. A step that fails is tried once more, with the error before
    the model's eyes, and then the plan is changed. All steps together call tools up to `max_steps` times.
    """

    name = "plan_execute"

    def __init__(
        self, model: Model, tools: Mapping[str, BaseTool], max_steps: int, tool_seconds: float = 30.0
    ) -> None:
        super().__init__(model, tools, max_steps, tool_seconds)
        listed = ((tool.name, tool.description, arguments_schema(tool)) for tool in tools.values())
        self._system = prompts.PLAN.format(tools=prompts.list_tools(listed))

    def __call__(self, question: str, history: Sequence[Message] = ()) -> AgentResult:
        with usage.measured() as used:
            done: list[PlannedStep] = []
            calls: list[Step] = []
            # A model that can't write a plan has one step to take: what it was asked.
            left = self._plan(question, history, 1) or [PlannedStep(question)]
            while left and len(done) < MOST_STEPS and len(calls) < self.max_steps:
                tell_plan([one.shown() for one in [*done, *left]])
                done.append(left.pop(0))
                calls += self._carry_out(question, done, self.max_steps - len(calls))
                if left or done[-1].state == "failed":
                    left = self._revise(question, done, left)
            plan = [one.shown() for one in [*done, *left]]
            tell_plan(plan)
            answer = self._conclude(question, done)
            details: dict[str, Any] = {"plan": plan}
            if left:
                answer += prompts.OUT_OF_STEPS_NOTE.format(steps=len(calls))
                details["out_of_steps"] = True
        return AgentResult(answer, calls[-1].tool if calls else None, calls, asdict(used), details)

    def _plan(self, asked: str, history: Sequence[Message], least: int) -> list[PlannedStep] | None:
        """The steps that the model writes when it is `asked`, at least so many; None where it came to no end."""
        conversation = self.open(prompts.conversation(self._system, asked, history))
        try:
            plan = conversation.write_json(
                plan_schema(least), min(PLAN_TOKENS, int(conversation.window * PLAN_SHARE))
            )
        except UnreadableReplyError:
            return None
        return [PlannedStep(step) for step in plan["steps"]]

    def _carry_out(self, question: str, done: list[PlannedStep], calls: int) -> list[Step]:
        """Do the last step of `done`, in up to so many calls of tools, which are given back."""
        *before, now = done
        asked = prompts.STEP.format(task=question, done=self._written(before), step=now.step)
        result = self._react(asked, calls)
        made = result.steps
        now.error = _failure(result)
        if now.error is not None and len(made) < calls:
            error = self._shortened(now.error, ERROR_SHARE)
            asked = prompts.STEP_AGAIN.format(task=question, done=self._written(before), step=now.step, error=error)
            result = self._react(asked, calls - len(made))
            made = [*made, *result.steps]
            now.error = _failure(result)
        if now.error is None:
            now.state, now.result = "done", result.answer
        else:
            now.state = "failed"
        return made

    def _react(self, asked: str, calls: int) -> AgentResult:
        return CustomAgentGuidance(self.model, self.tools, calls, self.tool_seconds)(asked)

    def _revise(self, question: str, done: list[PlannedStep], left: list[PlannedStep]) -> list[PlannedStep]:
        """What is left now; as it was where the model writes no readable plan."""
        listed = "\n".join(
            prompts.LEFT.format(number=number, step=one.step) for number, one in enumerate(left, len(done) + 1)
        )
        asked = prompts.REVISE.format(task=question, done=self._written(done), left=listed or prompts.NOTHING)
        revised = self._plan(asked, (), 0)
        return left if revised is None else revised

    def _conclude(self, question: str, done: list[PlannedStep]) -> str:
        """The answer, from what the steps gave."""
        asked = prompts.RESULTS.format(task=question, done=self._written(done))
        conversation = self.open(prompts.conversation(prompts.CONCLUDE, asked))
        return conversation.write("", min(ANSWER_TOKENS, int(conversation.window * ANSWER_SHARE)))

    def _written(self, done: Sequence[PlannedStep]) -> str:
        """The steps that were done and what they gave, a line each; long results cut where all are too much."""
        texts = [one.result if one.error is None else prompts.FAILED_STEP.format(error=one.error) for one in done]
        results = [result or "" for result in texts]
        whole = "\n".join(results)
        if self._shortened(whole, RESULTS_SHARE) != whole:
            results = [self._shortened(result, RESULTS_SHARE / len(done)) for result in results]
        lines = [
            prompts.DONE.format(number=number, step=one.step, result=result)
            for number, (one, result) in enumerate(zip(done, results, strict=True), 1)
        ]
        return "\n".join(lines) or prompts.NOTHING

    def _shortened(self, text: str, share: float) -> str:
        """`text`, cut to that share of the model's window."""
        conversation = self.open(prompts.conversation(prompts.CONCLUDE, ""))
        return shortened(conversation, text, int(conversation.window * share))


def _failure(result: AgentResult) -> str | None:
    """Why a step counts as failed: its last call of a tool did, or it had no calls left; None if it did not."""
    if result.steps and result.steps[-1].error is not None:
        return result.steps[-1].error
    return result.answer if result.details.get("out_of_steps") else None
