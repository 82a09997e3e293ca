"""Questions in the middle of a conversation: about earlier exchanges, or about something else."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from server.agent import prompts
from training.no_tool import NOT_NEEDED
from training.phrasing import Phrasing, read_phrasings
from training.plans import NUMBER
from training.samples import Sample, ToolSpec
from training.shipped_questions import value_of_expression
from training.shipped_tools import sample_of_call

PHRASINGS = read_phrasings("multi_turn")
#: The share of long conversations; the most exchanges of one, and the most of these that are shown in full.
LONG_SHARE, MOST_EXCHANGES, MOST_IN_FULL = 0.2, 14, 6
#: The same of long conversations whose questions differ only in their numbers.
SERIES_SHARE, MOST_IN_SERIES, MOST_OF_SERIES_IN_FULL = 0.2, 20, 13
FORMS = ("What is {}?", "what is {}", "{}", "Work out {}.", "Compute {}", "How much is {}?")
#: The most characters of a question or an answer in a note.
LONGEST_NOTED = 300


def with_history(
    rng: Random, phrasing: Phrasing, sample: Sample, earlier: Sequence[Sample], calculator: ToolSpec | None
) -> Sample:
    """`sample`, or a question about the `earlier` ones, after a conversation of these.

    The oldest exchanges may be shortened to notes in a system message, as a session does it.
    """
    earlier = list({one.question: one for one in earlier}.values())
    length = rng.random()
    if length < SERIES_SHARE:
        earlier = [
            *rng.sample(earlier, min(len(earlier), rng.randint(1, 4))),
            *_series(rng, rng.randint(4, MOST_IN_SERIES)),
        ]
        in_notes = max(0, len(earlier) - rng.randint(1, MOST_OF_SERIES_IN_FULL))
    elif length < SERIES_SHARE + LONG_SHARE:
        earlier = rng.sample(earlier, min(len(earlier), rng.randint(MOST_IN_FULL + 1, MOST_EXCHANGES)))
        in_notes = max(0, len(earlier) - rng.randint(1, MOST_IN_FULL))
    else:
        earlier = rng.sample(earlier, min(len(earlier), rng.choice((1, 2, 2, 3, 3, 4, 5, 6))))
        in_notes = rng.choice((0, 0, len(earlier), rng.randint(0, len(earlier))))
    noted = [
        replace(one, question=_shortened(one.question), answer=_shortened(one.answer)) for one in earlier[:in_notes]
    ]
    in_full = earlier[in_notes:]
    numbers = _note_numbers(rng, in_notes)
    notes = [prompts.note(number, one.question, one.answer) for number, one in zip(numbers, noted, strict=True)]
    history = [("system", prompts.NOTES.format(notes="\n".join(notes)))] if notes else []
    for one in in_full:
        history += [("user", one.question), ("assistant", one.answer)]
    draw = rng.random()
    if draw < 0.4:
        return replace(sample, history=tuple(history))
    exchanges = [*noted, *in_full]
    if draw < 0.5 and calculator is not None and NUMBER.fullmatch(exchanges[-1].answer):
        asked, form = phrasing.pick(PHRASINGS["on_the_last"]).split("|")
        k = str(rng.randint(2, 60))
        expression = form.format(r=exchanges[-1].answer, k=k)
        if (value := value_of_expression(expression)) is not None:
            question = phrasing.as_typed(asked).format(k=k)
            follow_up = sample_of_call(calculator, "calculator", question, [expression], value)
            return replace(follow_up, kind="multi-turn", history=tuple(history))
    if draw < 0.68 and calculator is not None:
        # A calculation that uses nothing of the one before it, which it mostly follows directly.
        if in_full and rng.random() < 0.7:
            before = _series(rng, 1)[0] if rng.random() < 0.2 else _calculation(rng)[0]
            history[-2:] = [("user", before.question), ("assistant", before.answer)]
        own, expression = _calculation(rng)
        independent = sample_of_call(calculator, "calculator", own.question, [expression], own.answer)
        return replace(independent, kind="multi-turn", history=tuple(history))
    # Exchanges in full have no number. They continue the notes' numbers only if no exchange is missing in the notes.
    if numbers == list(range(1, in_notes + 1)):
        numbers = list(range(1, len(exchanges) + 1))
    question, answer = _about(rng, phrasing, exchanges, numbers)
    return Sample(question, answer, thought=NOT_NEEDED, kind="multi-turn", history=tuple(history))


def _series(rng: Random, count: int) -> list[Sample]:
    """Calculations one after the other, as a script asks them."""
    first, factor, sign = rng.randint(0, 60), rng.randint(1, 9), rng.choice("+-*")
    form = rng.choice(FORMS)
    return [_asked(form, f"{number} {sign} {factor * number}") for number in range(first, first + count)]


def _calculation(rng: Random) -> tuple[Sample, str]:
    """A calculation with two numbers, mostly of two digits: the question with its answer, and the expression."""
    most = rng.choice((9, 99, 99, 99, 999))
    expression = f"{rng.randint(2, most)} {rng.choice('+-*')} {rng.randint(2, most)}"
    return _asked(rng.choice(FORMS), expression), expression


def _asked(form: str, expression: str) -> Sample:
    value = value_of_expression(expression)
    assert value is not None
    return Sample(form.format(expression), value)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_NOTED else text[: LONGEST_NOTED - 1] + "…"


def _note_numbers(rng: Random, count: int) -> list[int]:
    """Numbers of the notes: all from the first on; from a later one on; or a few of the first and then the latest, as
    a long session shows them."""
    draw = rng.random()
    if draw < 0.45:
        return list(range(1, count + 1))
    if draw < 0.6:
        first = rng.randint(2, 60)
        return list(range(first, first + count))
    early = rng.randint(0, min(count, 4))
    last = rng.randint(count + len(prompts.ORDINALS), 70)
    return [*sorted(rng.sample(range(1, len(prompts.ORDINALS) + 1), early)), *range(last - count + early, last)]


def _about(rng: Random, phrasing: Phrasing, exchanges: Sequence[Sample], numbers: Sequence[int]) -> tuple[str, str]:
    """A question about one of the `exchanges`, and its answer. `numbers` are those of the first exchanges."""
    draw = rng.random()
    if draw < 0.6:
        one = rng.choice(exchanges)
        asked = one.question.strip().rstrip("?.! ")
        return phrasing.as_typed(phrasing.pick(PHRASINGS["again"])).format(q=asked), one.answer
    by_number = {
        number: one for number, one in zip(numbers, exchanges, strict=False) if number <= len(prompts.ORDINALS)
    }
    named = [(prompts.ORDINALS[number - 1], one) for number, one in by_number.items()]
    which, one = rng.choice(named) if named and rng.random() < 0.75 else ("last", exchanges[-1])
    if draw < 0.85:
        return phrasing.as_typed(phrasing.pick(PHRASINGS["answer_to"])).format(o=which), one.answer
    return phrasing.as_typed(phrasing.pick(PHRASINGS["asked"])).format(o=which), one.question.strip()
