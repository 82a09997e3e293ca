"""Several questions in one task: its plan, its steps, the answer from what they gave.

All of it is made of questions that one call of a tool answers, and of what to do with a result that came before.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from server.agent import prompts
from server.embedded import words
from server.embedded.arithmetic import number_value, symbolic, value_of_expression
from server.embedded.examples import Example, ToolSpec
from server.embedded.following import following
from server.embedded.joints import joined
from server.embedded.phrasing import Phrasing
from server.embedded.shipped import called
from server.embedded.units import converted, two_units


@dataclass(frozen=True)
class Task:
    """`parts` are the questions as they stand in `text`, each with what its tool gave. `chained`: each part works on
    what the one before it gave, so that the last result is the answer."""

    text: str
    parts: tuple[Example, ...]
    chained: bool

    def done(self, number: int) -> str:
        """The first `number` parts as the agent's prompt shows them."""
        lines = [
            prompts.DONE.format(number=place, step=part.question, result=_told(part))
            for place, part in enumerate(self.parts[:number], 1)
        ]
        return "\n".join(lines) or prompts.NOTHING


def _told(part: Example) -> str:
    """What a part gave, as the prompt shows it."""
    failed = part.steps[-1].failed
    return prompts.FAILED_STEP.format(error=part.steps[-1].observation) if failed else part.answer


def make_task(rng: Random, phrasing: Phrasing, singles: Sequence[Example], own: Mapping[str, ToolSpec]) -> Task:
    """A task of two to four of `singles`, or of one and what those of the shipped tools that are in `own`, by their
    names, are to do with its result, or of sums or conversions that share their verb."""
    draw = rng.random()
    if draw < 0.35:
        first = [single for single in singles if following(rng, phrasing, single, own)]
        parts = [rng.choice(first)] if first else []
        for _ in range(rng.choice((1, 1, 2)) if first else 0):
            if part := following(rng, phrasing, parts[-1], own):
                parts.append(part)
        if len(parts) > 1:
            return Task(*joined(rng, phrasing, parts, "chained"), chained=True)
    number = rng.choice((2, 2, 2, 3, 3, 4))
    if draw > 0.96 and "calculator" in own:
        return Task(*joined(rng, phrasing, [_sum(rng, own["calculator"]) for _ in range(number)], "sums"), False)
    if draw > 0.94 and "convert_units" in own:
        parts = [_conversion(rng, own["convert_units"]) for _ in range(number)]
        return Task(*joined(rng, phrasing, parts, "conversions"), chained=False)
    parts = rng.sample(list(singles), min(len(singles), number))
    return Task(*joined(rng, phrasing, parts, "side_by_side"), chained=False)


def _sum(rng: Random, calculator: ToolSpec) -> Example:
    """A sum without words around it."""
    while True:
        expression = symbolic(rng)
        if (value := value_of_expression(expression)) is not None:
            return called(calculator, "calculator", expression, [expression], value)


def _conversion(rng: Random, convert_units: ToolSpec) -> Example:
    (a, b), value = two_units(rng), words.number(rng)
    question = f"{value} {a} {rng.choice(('to', 'to', 'into', 'in'))} {b}"
    return called(convert_units, "convert_units", question, [number_value(value), a, b], f"{converted(rng)} {b}")


def plan(rng: Random, task: Task) -> Example:
    """Writing the plan, or what is left of it."""
    steps = [part.question for part in task.parts]
    if rng.random() < 0.6:
        return _json(task.text, steps)
    number = rng.randint(1, len(steps))
    left = [prompts.LEFT.format(number=place, step=steps[place - 1]) for place in range(number + 1, len(steps) + 1)]
    asked = prompts.REVISE.format(task=task.text, done=task.done(number), left="\n".join(left) or prompts.NOTHING)
    # What was to be done with a result that never came can't be done.
    lost = task.chained and any(part.steps[-1].failed for part in task.parts[:number])
    return _json(asked, [] if lost else steps[number:])


def _json(asked: str, steps: list[str]) -> Example:
    return Example(asked, json.dumps({"steps": steps}, ensure_ascii=False), kind="plan")


def step(rng: Random, task: Task) -> Example:
    """One step of the task, as the default agent is asked it."""
    number = rng.randrange(len(task.parts))
    part = task.parts[number]
    asked = prompts.STEP.format(task=task.text, done=task.done(number), step=part.question)
    if rng.random() < 0.1:
        asked = prompts.STEP_AGAIN.format(
            task=task.text, done=task.done(number), step=part.question, error="the tool did not answer"
        )
    return replace(part, question=asked, kind="step")


def conclude(task: Task) -> Example:
    """The answer, from what the steps gave."""
    asked = prompts.RESULTS.format(task=task.text, done=task.done(len(task.parts)))
    told = [_told(part) for part in task.parts]
    return Example(asked, told[-1] if task.chained else "; ".join(told), kind="conclude")
