"""Several questions in one task: its plan, its steps, the answer from what they gave.

All of it is made of questions that one call of a tool answers, and of what to do with a number that came before.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from server.agent import prompts
from server.embedded.arithmetic import value_of_expression
from server.embedded.examples import Example, Step, ToolSpec, one_call
from server.embedded.phrasing import Phrasing, read_phrasings

PHRASINGS = read_phrasings("several")
NUMBER = re.compile(r"-?\d+(\.\d+)?")


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


def make_task(rng: Random, phrasing: Phrasing, singles: Sequence[Example], calculator: ToolSpec | None) -> Task:
    """A task of two to four of `singles`, or of one and what `calculator` is to do with its result."""
    numeric = [single for single in singles if NUMBER.fullmatch(single.answer)]
    if calculator is not None and numeric and rng.random() < 0.3:
        parts = [_bare(rng, rng.choice(numeric))]
        for _ in range(rng.choice((1, 1, 2))):
            said, form = phrasing.pick(PHRASINGS["on_it"]).split("|")
            k = str(rng.randint(2, 60))
            expression = form.format(r=parts[-1].answer, k=k)
            value = value_of_expression(expression)
            if value is None:
                break
            step = Step(
                one_call("arithmetic", calculator),
                calculator.name,
                {next(iter(calculator.arguments)): expression},
                value,
            )
            parts.append(Example(said.format(k=k), value, (step,)))
        if len(parts) > 1:
            return Task(_joined(rng, phrasing, parts, "chained"), tuple(parts), True)
    number = min(len(singles), rng.choice((2, 2, 2, 3, 3, 4)))
    parts = [_bare(rng, single) for single in rng.sample(list(singles), number)]
    return Task(_joined(rng, phrasing, parts, "side_by_side"), tuple(parts), False)


def _bare(rng: Random, single: Example) -> Example:
    """A question without the mark at its end, as it stands in the middle of a text."""
    text = single.question.strip().rstrip("?.! ") if rng.random() < 0.8 else single.question.strip()
    if text[1:2].islower() and rng.random() < 0.6:
        text = text[0].lower() + text[1:]
    return replace(single, question=text)


def _joined(rng: Random, phrasing: Phrasing, parts: Sequence[Example], kind: str) -> str:
    first, between, last, end = phrasing.pick(PHRASINGS[kind]).split("|")
    texts = [part.question for part in parts]
    text = "".join(
        (first if place == 0 else last if place == len(texts) - 1 else between).replace("#", str(place + 1)) + one
        for place, one in enumerate(texts)
    )
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
    return text + (end if not text.endswith((".", "?", "!")) else "")


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
