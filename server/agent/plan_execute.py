"""Plan and execute: the model plans steps, the default agent does each one, and the model answers from the results
(Plan-and-Solve, https://arxiv.org/abs/2305.04091; with replanning as in https://arxiv.org/abs/2305.16653)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from server.sdk import tell_plan, usage, wait_for_started

from . import prompts
from .agent import Agent, AgentResult, HistoryMessage, Step
from .conversation import UnreadableReplyError, shortened
from .react import CustomAgentGuidance
from .shown_tools import ShownTools

MOST_STEPS = 8
LONGEST_STEP = 300  # characters
# How long the answer waits for jobs that the steps have started, in seconds. Those that end later wake the session.
JOBS_SECONDS = 60.0
# The maximum of a plan and of an answer: tokens, or a share of the model's context length if that is less.
PLAN_TOKENS, PLAN_SHARE = 768, 1 / 4
ANSWER_TOKENS, ANSWER_SHARE = 1024, 1 / 8
# Shares of the context length: for the results of all steps together, for the error of a step that is retried, and
# for the words of each step. With all of them at their maximum, a step's prompt still leaves room for its answer.
RESULTS_SHARE, ERROR_SHARE, STEP_SHARE = 1 / 4, 1 / 10, 1 / 64


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

    After each step the model may change the remaining steps. A step that fails is retried once, with the error in the
    prompt; then the plan is changed. All steps together make up to `max_steps` tool calls.

    Steps whose tools run in the background run side by side: the answer waits for their jobs.
    """

    name = "plan_execute"

    def __call__(self, question: str, history: Sequence[HistoryMessage] = ()) -> AgentResult:
        with usage.measured() as used:
            done: list[PlannedStep] = []
            calls: list[Step] = []
            # If the model can't write a plan, the question is the only step.
            listed = ShownTools(self.model, self.tools, question, history).listed()
            system = prompts.PLAN.format(tools=listed)
            left = self._plan(system, question, history, 1) or [PlannedStep(question)]
            while left and len(done) < MOST_STEPS and len(calls) < self.max_steps:
                tell_plan([one.shown() for one in [*done, *left]])
                done.append(left.pop(0))
                calls += self._carry_out(question, done, calls)
                if left or done[-1].state == "failed":
                    left = self._revise(system, question, done, left)
            if (jobs := wait_for_started(JOBS_SECONDS)) is not None:
                done.append(PlannedStep(prompts.WAIT_FOR_JOBS, "done", jobs))
            plan = [one.shown() for one in [*done, *left]]
            tell_plan(plan)
            answer = self._conclude(question, done)
            details: dict[str, Any] = {"plan": plan}
            if left:
                answer += prompts.OUT_OF_STEPS_NOTE.format(steps=len(calls))
                details["out_of_steps"] = True
        return AgentResult(answer, calls[-1].tool if calls else None, calls, asdict(used), details)

    def _plan(
        self, system: str, asked: str, history: Sequence[HistoryMessage], least: int
    ) -> list[PlannedStep] | None:
        """The steps that the model plans for `asked`, at least so many; None if its plan can't be read."""
        conversation = self.open(prompts.conversation(system, asked, history))
        try:
            plan = conversation.write_json(
                plan_schema(least), min(PLAN_TOKENS, int(conversation.window * PLAN_SHARE))
            )
        except UnreadableReplyError:
            return None
        most = int(conversation.window * STEP_SHARE)
        return [PlannedStep(conversation.cut(step, most)) for step in plan["steps"]]

    def _carry_out(self, question: str, done: list[PlannedStep], earlier: list[Step]) -> list[Step]:
        """Do the last step of `done` with tool calls, up to the maximum after the `earlier` ones. Returns these
        calls."""
        *before, now = done
        calls, called = self.max_steps - len(earlier), [step.tool for step in earlier]
        asked = prompts.STEP.format(task=question, done=self._written(before), step=now.step)
        # The step's own words say best which tool it needs.
        shown = ShownTools(self.model, self.tools, now.step, [{"role": "user", "content": question}], called)
        result = self._react(asked, calls, shown)
        made = result.steps
        now.error = _failure(result)
        if now.error is not None and len(made) < calls:
            error = self._shortened(now.error, ERROR_SHARE)
            asked = prompts.STEP_AGAIN.format(task=question, done=self._written(before), step=now.step, error=error)
            result = self._react(asked, calls - len(made), shown)
            made = [*made, *result.steps]
            now.error = _failure(result)
        if now.error is None:
            now.state, now.result = "done", result.answer
        else:
            now.state = "failed"
        return made

    def _react(self, asked: str, calls: int, shown: ShownTools) -> AgentResult:
        return CustomAgentGuidance(self.model, self.tools, calls, self.tool_seconds).answer(asked, (), shown)

    def _revise(
        self, system: str, question: str, done: list[PlannedStep], left: list[PlannedStep]
    ) -> list[PlannedStep]:
        """The remaining steps after the model's revision; unchanged if its plan can't be read."""
        listed = "\n".join(
            prompts.LEFT.format(number=number, step=one.step) for number, one in enumerate(left, len(done) + 1)
        )
        asked = prompts.REVISE.format(task=question, done=self._written(done), left=listed or prompts.NOTHING)
        revised = self._plan(system, asked, (), 0)
        return left if revised is None else revised

    def _conclude(self, question: str, done: list[PlannedStep]) -> str:
        """The answer from the results of the steps."""
        asked = prompts.RESULTS.format(task=question, done=self._written(done))
        conversation = self.open(prompts.conversation(prompts.CONCLUDE, asked))
        return conversation.write("", min(ANSWER_TOKENS, int(conversation.window * ANSWER_SHARE)))

    def _written(self, done: Sequence[PlannedStep]) -> str:
        """The steps with their results, one line each. Long results are truncated if all together are too long."""
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
        """`text`, truncated to that share of the model's context length."""
        conversation = self.open(prompts.conversation(prompts.CONCLUDE, ""))
        return shortened(conversation, text, int(conversation.window * share))


def _failure(result: AgentResult) -> str | None:
    """Why a step failed: its last tool call failed, or it had no calls left. None if it succeeded."""
    if result.steps and result.steps[-1].error is not None:
        return result.steps[-1].error
    return result.answer if result.details.get("out_of_steps") else None
