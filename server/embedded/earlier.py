"""Questions in the middle of a conversation: about what was said before, and about something else."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from server.agent import prompts
from server.embedded.arithmetic import value_of_expression
from server.embedded.direct import NOT_NEEDED
from server.embedded.examples import Example, ToolSpec
from server.embedded.following import NUMBER
from server.embedded.phrasing import Phrasing, read_phrasings
from server.embedded.shipped import called

PHRASINGS = read_phrasings("earlier")
MANY_SHARE, MOST_TURNS, MOST_TURNS_IN_FULL = 0.2, 14, 6
#: Of long conversations whose questions are nearly all alike, but for their numbers.
ALIKE_SHARE, MOST_ALIKE, MOST_ALIKE_IN_FULL = 0.2, 20, 13
FORMS = ("What is {}?", "what is {}", "{}", "Work out {}.", "Compute {}", "How much is {}?")
#: Of a question or an answer, what a note has of it.
LONGEST_NOTED = 300


def with_history(
    rng: Random, phrasing: Phrasing, example: Example, said: Sequence[Example], calculator: ToolSpec | None
) -> Example:
    """`example`, or a question about what was `said`, after it was said. Some of it is there in notes alone."""
    said = list({one.question: one for one in said}.values())
    length = rng.random()
    if length < ALIKE_SHARE:
        said = [*rng.sample(said, min(len(said), rng.randint(1, 4))), *_alike(rng, rng.randint(4, MOST_ALIKE))]
        in_notes = max(0, len(said) - rng.randint(1, MOST_ALIKE_IN_FULL))
    elif length < ALIKE_SHARE + MANY_SHARE:
        said = rng.sample(said, min(len(said), rng.randint(MOST_TURNS_IN_FULL + 1, MOST_TURNS)))
        in_notes = max(0, len(said) - rng.randint(1, MOST_TURNS_IN_FULL))
    else:
        said = rng.sample(said, min(len(said), rng.choice((1, 2, 2, 3, 3, 4, 5, 6))))
        in_notes = rng.choice((0, 0, len(said), rng.randint(0, len(said))))
    noted = [
        replace(one, question=_in_a_note(one.question), answer=_in_a_note(one.answer)) for one in said[:in_notes]
    ]
    in_full = said[in_notes:]
    numbers = _numbers(rng, in_notes)
    notes = [prompts.note(number, one.question, one.answer) for number, one in zip(numbers, noted, strict=True)]
    history = [("system", prompts.NOTES.format(notes="\n".join(notes)))] if notes else []
    for one in in_full:
        history += [("user", one.question), ("assistant", one.answer)]
    draw = rng.random()
    if draw < 0.4:
        return replace(example, history=tuple(history))
    said = [*noted, *in_full]
    if draw < 0.5 and calculator is not None and NUMBER.fullmatch(said[-1].answer):
        asked, form = phrasing.pick(PHRASINGS["on_the_last"]).split("|")
        k = str(rng.randint(2, 60))
        expression = form.format(r=said[-1].answer, k=k)
        if (value := value_of_expression(expression)) is not None:
            question = phrasing.as_typed(asked).format(k=k)
            onward = called(calculator, "calculator", question, [expression], value)
            return replace(onward, kind="earlier", history=tuple(history))
    if draw < 0.68 and calculator is not None:
        # A sum of its own, most often right behind another one, of which it takes nothing.
        if in_full and rng.random() < 0.7:
            before = _alike(rng, 1)[0] if rng.random() < 0.2 else _sum(rng)[0]
            history[-2:] = [("user", before.question), ("assistant", before.answer)]
        own, expression = _sum(rng)
        onward = called(calculator, "calculator", own.question, [expression], own.answer)
        return replace(onward, kind="earlier", history=tuple(history))
    # Turns in full have no number; they go on from the notes where those are all that came before.
    if numbers == list(range(1, in_notes + 1)):
        numbers = list(range(1, len(said) + 1))
    question, answer = _about(rng, phrasing, said, numbers)
    return Example(question, answer, thought=NOT_NEEDED, kind="earlier", history=tuple(history))


def _alike(rng: Random, count: int) -> list[Example]:
    """Questions as a script or a bored person asks them, one after the other."""
    first, factor, sign = rng.randint(0, 60), rng.randint(1, 9), rng.choice("+-*")
    form = rng.choice(FORMS)
    asked = []
    for number in range(first, first + count):
        asked.append(_asked(form, f"{number} {sign} {factor * number}"))
    return asked


def _sum(rng: Random) -> tuple[Example, str]:
    """Two numbers, most often of two digits: the question with its answer, and the expression."""
    most = rng.choice((9, 99, 99, 99, 999))
    expression = f"{rng.randint(2, most)} {rng.choice('+-*')} {rng.randint(2, most)}"
    return _asked(rng.choice(FORMS), expression), expression


def _asked(form: str, expression: str) -> Example:
    value = value_of_expression(expression)
    assert value is not None
    return Example(form.format(expression), value)


def _in_a_note(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_NOTED else text[: LONGEST_NOTED - 1] + "…"


def _numbers(rng: Random, count: int) -> list[int]:
    """The numbers of notes: from the first on, later ones, or those of a long conversation that are shown."""
    draw = rng.random()
    if draw < 0.45:
        return list(range(1, count + 1))
    if draw < 0.6:
        first = rng.randint(2, 60)
        return list(range(first, first + count))
    early = rng.randint(0, min(count, 4))
    last = rng.randint(count + len(prompts.ORDINALS), 70)
    return [*sorted(rng.sample(range(1, len(prompts.ORDINALS) + 1), early)), *range(last - count + early, last)]


def _about(rng: Random, phrasing: Phrasing, said: Sequence[Example], numbers: Sequence[int]) -> tuple[str, str]:
    """A question about what was said, and its answer. `numbers` are those of the first of `said`."""
    draw = rng.random()
    if draw < 0.6:
        one = rng.choice(said)
        asked = one.question.strip().rstrip("?.! ")
        return phrasing.as_typed(phrasing.pick(PHRASINGS["again"])).format(q=asked), one.answer
    by_number = {number: one for number, one in zip(numbers, said, strict=False) if number <= len(prompts.ORDINALS)}
    named = [(prompts.ORDINALS[number - 1], one) for number, one in by_number.items()]
    which, one = rng.choice(named) if named and rng.random() < 0.75 else ("last", said[-1])
    if draw < 0.85:
        return phrasing.as_typed(phrasing.pick(PHRASINGS["answer_to"])).format(o=which), one.answer
    return phrasing.as_typed(phrasing.pick(PHRASINGS["asked"])).format(o=which), one.question.strip()
