"""Questions in the middle of a conversation: about what was said before, and about something else."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from server.agent import prompts
from server.embedded.arithmetic import value_of_expression
from server.embedded.direct import NOT_NEEDED
from server.embedded.examples import Example, Step, ToolSpec, one_call
from server.embedded.phrasing import Phrasing, read_phrasings
from server.embedded.several import NUMBER

PHRASINGS = read_phrasings("earlier")
ORDER = ("first", "second", "third", "fourth", "fifth", "sixth")


def with_history(
    rng: Random, phrasing: Phrasing, example: Example, said: Sequence[Example], calculator: ToolSpec | None
) -> Example:
    """`example`, or a question about what was `said`, after it was said. Some of it is there in notes alone."""
    said = rng.sample(list(said), min(len(said), rng.choice((1, 2, 2, 3, 3, 4, 5, 6))))
    in_notes = rng.choice((0, 0, len(said), rng.randint(0, len(said))))
    first = 1 if rng.random() < 0.6 else rng.randint(2, 60)
    notes = [
        prompts.NOTE.format(number=number, asked=one.question.strip(), found=one.answer)
        for number, one in enumerate(said[:in_notes], first)
    ]
    history = [("system", prompts.NOTES.format(notes="\n".join(notes)))] if notes else []
    for one in said[in_notes:]:
        history += [("user", one.question), ("assistant", one.answer)]
    draw = rng.random()
    if draw < 0.55:
        return replace(example, history=tuple(history))
    if draw < 0.65 and calculator is not None and NUMBER.fullmatch(said[-1].answer):
        asked, form = phrasing.pick(PHRASINGS["on_the_last"]).split("|")
        k = str(rng.randint(2, 60))
        expression = form.format(r=said[-1].answer, k=k)
        if (value := value_of_expression(expression)) is not None:
            given = {next(iter(calculator.arguments)): expression}
            call = Step(one_call("arithmetic", calculator), calculator.name, given, value)
            return Example(
                phrasing.as_typed(asked).format(k=k), value, (call,), kind="earlier", history=tuple(history)
            )
    question, answer = _about(rng, phrasing, said, first)
    return Example(question, answer, thought=NOT_NEEDED, kind="earlier", history=tuple(history))


def _about(rng: Random, phrasing: Phrasing, said: Sequence[Example], first: int) -> tuple[str, str]:
    """A question about what was said, and its answer."""
    place = rng.randrange(len(said))
    one, draw = said[place], rng.random()
    if draw < 0.5:
        asked = one.question.strip().rstrip("?.! ")
        return phrasing.as_typed(phrasing.pick(PHRASINGS["again"])).format(q=asked), one.answer
    which = "last" if place == len(said) - 1 and rng.random() < 0.6 else ORDER[place] if first == 1 else ""
    if not which:
        place = len(said) - 1
        one, which = said[place], "last"
    if draw < 0.8:
        return phrasing.as_typed(phrasing.pick(PHRASINGS["answer_to"])).format(o=which), one.answer
    return phrasing.as_typed(phrasing.pick(PHRASINGS["asked"])).format(o=which), one.question.strip()
