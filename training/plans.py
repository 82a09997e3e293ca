"""Tasks of several questions, for `plan_execute`: the plan, its steps, and the answer from the steps' results.

A task consists of questions that one tool call answers each, and of follow-ups, which work on the result before them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from server.agent import prompts
from training import words
from training.compound_questions import joined
from training.phrasing import Phrasing, read_phrasings
from training.samples import Sample, ToolSpec, to_json
from training.shipped_questions import (
    UNITS,
    converted,
    iso_date,
    number_value,
    symbolic,
    time_span,
    two_units,
    value_of_expression,
)
from training.shipped_tools import sample_of_call

PHRASINGS = read_phrasings("follow_ups")
NUMBER = re.compile(r"-?\d+(\.\d+)?")
DATE = re.compile(r"\d{4}-\d\d-\d\d")
AMOUNT = re.compile(r"(-?\d+(?:\.\d+)?) (.+)")

FollowUp = tuple[str, str, list[Any], str]
"""A question, the shipped tool that answers it, the arguments, the result."""


@dataclass(frozen=True)
class Task:
    """`parts` are the questions with the words that they have in `text`, and their results. If `chained`, each part
    works on the result of the one before it, and the last result is the answer."""

    text: str
    parts: tuple[Sample, ...]
    chained: bool

    def done(self, number: int) -> str:
        """The first `number` parts, as the agent's prompt lists finished steps."""
        lines = [
            prompts.DONE.format(number=place, step=part.question, result=_result(part))
            for place, part in enumerate(self.parts[:number], 1)
        ]
        return "\n".join(lines) or prompts.NOTHING


def _result(part: Sample) -> str:
    """The result of a part, as the agent's prompt shows it."""
    last = part.steps[-1]
    return prompts.FAILED_STEP.format(error=last.observation) if last.failed else part.answer


def make_task(rng: Random, phrasing: Phrasing, singles: Sequence[Sample], shipped: Mapping[str, ToolSpec]) -> Task:
    """A task of two to four of `singles`; or of one with follow-ups; or of calculations or conversions that share
    their verb. `shipped` are the shipped tools that may be used, by name."""
    draw = rng.random()
    if draw < 0.35:
        first = [single for single in singles if follow_up(rng, phrasing, single, shipped)]
        parts = [rng.choice(first)] if first else []
        for _ in range(rng.choice((1, 1, 2)) if first else 0):
            if part := follow_up(rng, phrasing, parts[-1], shipped):
                parts.append(part)
        if len(parts) > 1:
            return Task(*joined(rng, phrasing, parts, "chained"), chained=True)
    number = rng.choice((2, 2, 2, 3, 3, 4))
    if draw > 0.96 and "calculator" in shipped:
        parts = [_calculation(rng, shipped["calculator"]) for _ in range(number)]
        return Task(*joined(rng, phrasing, parts, "sums"), chained=False)
    if draw > 0.94 and "convert_units" in shipped:
        parts = [_conversion(rng, shipped["convert_units"]) for _ in range(number)]
        return Task(*joined(rng, phrasing, parts, "conversions"), chained=False)
    parts = rng.sample(list(singles), min(len(singles), number))
    return Task(*joined(rng, phrasing, parts, "side_by_side"), chained=False)


def _calculation(rng: Random, calculator: ToolSpec) -> Sample:
    """An expression without words."""
    while True:
        expression = symbolic(rng)
        if (value := value_of_expression(expression)) is not None:
            return sample_of_call(calculator, "calculator", expression, [expression], value)


def _conversion(rng: Random, convert_units: ToolSpec) -> Sample:
    """An amount and its new unit, without a verb."""
    (a, b), value = two_units(rng), words.number(rng)
    question = f"{value} {a} {rng.choice(('to', 'to', 'into', 'in'))} {b}"
    return sample_of_call(
        convert_units, "convert_units", question, [number_value(value), a, b], f"{converted(rng)} {b}"
    )


def follow_up(rng: Random, phrasing: Phrasing, before: Sample, shipped: Mapping[str, ToolSpec]) -> Sample | None:
    """A question for one of the `shipped` tools about the result of `before`, which it doesn't repeat; None if none
    of them can use that result."""
    given = before.answer
    amount = AMOUNT.fullmatch(given)
    makers: list[Callable[[], FollowUp | None]] = []

    def calculate(number: str) -> FollowUp | None:
        asked, form = phrasing.pick(PHRASINGS["on_it"]).split("|")
        k = str(rng.randint(2, 60))
        value = value_of_expression(expression := form.format(r=number, k=k))
        return None if value is None else (asked.format(k=k), "calculator", [expression], value)

    def shift_date() -> FollowUp:
        asked, sign = phrasing.pick(PHRASINGS["later_than_it"]).split("|")
        shown, days = time_span(rng)
        return asked.format(n=shown), "add_days", [given, days if sign == "+" else -days], iso_date(rng)

    def add_days_to_date() -> FollowUp:
        asked, sign = phrasing.pick(PHRASINGS["date_that_far"]).split("|")
        start = words.date(rng)
        return asked.format(d=start), "add_days", [start, int(sign + given)], iso_date(rng)

    def convert_number() -> FollowUp:
        from_days = before.kind == "days_between"
        a, b = ("days", rng.choice(("weeks", "hours", "years", "months", "minutes"))) if from_days else two_units(rng)
        asked = phrasing.pick(PHRASINGS["in_other_units"]).format(a=a, b=b)
        return asked, "convert_units", [number_value(given), a, b], f"{converted(rng)} {b}"

    def convert_again(number: str, unit: str) -> FollowUp | None:
        others = next((kind for kind in UNITS if unit in kind.split("|")), unit).split("|")
        b = rng.choice(others)
        if b == unit:
            return None
        asked = phrasing.pick(PHRASINGS["converted_again"]).format(b=b)
        return asked, "convert_units", [number_value(number), unit, b], f"{converted(rng)} {b}"

    def find_weekday() -> FollowUp:
        return phrasing.pick(PHRASINGS["weekday_of_it"]), "weekday", [given], rng.choice(words.DAYS)

    if NUMBER.fullmatch(given):
        makers += [lambda: calculate(given)] * 3 * ("calculator" in shipped)
        makers += [convert_number] * ("convert_units" in shipped)
        makers += [add_days_to_date] * ("add_days" in shipped and given.isdigit() and len(given) < 6)
    elif DATE.fullmatch(given):
        makers += [find_weekday] * ("weekday" in shipped) + [shift_date] * ("add_days" in shipped)
    elif amount and "e" not in given:
        makers += [lambda: calculate(amount[1])] * ("calculator" in shipped)
        makers += [lambda: convert_again(amount[1], amount[2])] * ("convert_units" in shipped)
    made = rng.choice(makers)() if makers else None
    if made is None:
        return None
    question, name, values, result = made
    return sample_of_call(shipped[name], name, question, values, result)


def plan(rng: Random, task: Task) -> Sample:
    """Writing the plan, or revising it after some steps."""
    steps = [part.question for part in task.parts]
    if rng.random() < 0.6:
        return _plan_sample(task.text, steps)
    number = rng.randint(1, len(steps))
    left = [prompts.LEFT.format(number=place, step=steps[place - 1]) for place in range(number + 1, len(steps) + 1)]
    question = prompts.REVISE.format(task=task.text, done=task.done(number), left="\n".join(left) or prompts.NOTHING)
    # After a failed step of a chain nothing can follow: its result is missing.
    lost = task.chained and any(part.steps[-1].failed for part in task.parts[:number])
    return _plan_sample(question, [] if lost else steps[number:])


def _plan_sample(question: str, steps: list[str]) -> Sample:
    return Sample(question, to_json({"steps": steps}), kind="plan")


def step(rng: Random, task: Task) -> Sample:
    """One step of the plan, as the default agent gets it."""
    number = rng.randrange(len(task.parts))
    part = task.parts[number]
    question = prompts.STEP.format(task=task.text, done=task.done(number), step=part.question)
    if rng.random() < 0.1:
        question = prompts.STEP_AGAIN.format(
            task=task.text, done=task.done(number), step=part.question, error="the tool did not answer"
        )
    return replace(part, question=question, kind="step")


def conclude(task: Task) -> Sample:
    """The final answer, from the results of all steps."""
    question = prompts.RESULTS.format(task=task.text, done=task.done(len(task.parts)))
    results = [_result(part) for part in task.parts]
    return Sample(question, results[-1] if task.chained else "; ".join(results), kind="conclude")
