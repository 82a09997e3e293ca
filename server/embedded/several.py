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
        parts = [rng.choice(numeric)]
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
            return Task(*_joined(rng, phrasing, parts, "chained"), chained=True)
    number = min(len(singles), rng.choice((2, 2, 2, 3, 3, 4)))
    return Task(*_joined(rng, phrasing, rng.sample(list(singles), number), "side_by_side"), chained=False)


def _words_and_mark(rng: Random, single: Example) -> tuple[Example, str]:
    """A question as a step of a plan has it, without a mark at its end, and the mark that it has in the text."""
    asked = single.question.strip()
    words = asked.rstrip("?.! ")
    mark = asked[len(words) :].strip()[:1] if rng.random() < 0.2 else ""
    if words[1:2].islower() and rng.random() < 0.6:
        words = words[0].lower() + words[1:]
    return replace(single, question=words), mark


def _joined(
    rng: Random, phrasing: Phrasing, singles: Sequence[Example], kind: str
) -> tuple[str, tuple[Example, ...]]:
    """A text that asks all of them, and its parts, whose questions are their very words in it."""
    parts, marks = zip(*(_words_and_mark(rng, single) for single in singles), strict=True)
    first, between, last, end = _joint(phrasing, [part.question for part in parts], kind)
    capital = rng.random() < 0.5
    if capital and not first:
        opening = parts[0].question
        parts = (replace(parts[0], question=opening[:1].upper() + opening[1:]), *parts[1:])
    text = first[:1].upper() + first[1:] if capital else first
    text = text.replace("#", "1")
    for place, (part, mark) in enumerate(zip(parts, marks, strict=True), 2):
        behind = end if place > len(parts) else last if place == len(parts) else between
        if mark and behind[:1] in tuple(",.;?!"):
            behind = behind[1:]
        text += part.question + mark + behind.replace("#", str(place))
    return text, parts


def _joint(phrasing: Phrasing, questions: Sequence[str], kind: str) -> list[str]:
    """What stands between the questions, such that one can tell where each of them ends."""
    for _ in range(30):
        joint = phrasing.pick(PHRASINGS[kind]).split("|")
        if all(_divides(between, question) for between in joint[1:3] for question in questions):
            break
    return joint


def _divides(between: str, question: str) -> bool:
    """Whether `between` isn't in the question as well. Commas and words may be: the sense tells those apart."""
    if between[0] in ".?!":
        return not re.search(r"[.?!]\s", question)
    return bool(re.search(r"[\w,]", between)) or between.strip(" ") not in question


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
