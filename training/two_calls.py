"""Questions that take calls of two shipped tools, the second with the first one's result."""

from collections.abc import Callable
from random import Random
from typing import Any

from training import words
from training.phrasing import Phrasing, read_phrasings
from training.samples import Sample, Step, ToolSpec, first_call, second_call
from training.shipped_questions import (
    converted,
    iso_date,
    number_value,
    quoted,
    statistics_of,
    time_span,
    two_units,
    value_of_expression,
)
from training.shipped_tools import NEEDS

PHRASINGS = read_phrasings("two_calls")


def _calculation(rng: Random, phrasing: Phrasing) -> tuple[str, str, str]:
    while True:
        shown, form = phrasing.pick(PHRASINGS["products"]).split("|")
        slots = {"a": str(rng.randint(2, 400)), "b": str(rng.randint(2, 99)), "p": str(rng.randint(1, 99))}
        value = value_of_expression(form.format(**slots))
        if value is not None:
            return shown.format(**slots), form.format(**slots), value


Made = tuple[str, list[Any], str, list[Any], str]
"""The question; the first call's arguments and observation; the second call's arguments and observation."""


def double(rng: Random, phrasing: Phrasing, tools: dict[str, ToolSpec]) -> Sample:
    """A question for two of `tools`. Their keys are the names of the shipped tools that do the same."""
    pairs: list[tuple[str, str, Callable[[], Made]]] = []

    def calculate_then_convert() -> Made:
        shown, expression, value = _calculation(rng, phrasing)
        a, b = two_units(rng)
        question = phrasing.ask(PHRASINGS["then_convert"], e=shown, u=a, w=b)
        return question, [expression], value, [number_value(value), a, b], f"{converted(rng)} {b}"

    def then_calculate(head: str, first: list[Any], observation: str, result: str) -> Made:
        tail, form = phrasing.pick(PHRASINGS["convert_then"]).split("|")
        k = str(rng.randint(2, 60))
        task = head + rng.choice((" ", " ", ", ")) + tail.format(k=k)
        question = phrasing.ask(
            {"imperative": ["{task}"]}, task=task if rng.random() < 0.5 else task[:1].upper() + task[1:]
        )
        expression = form.format(r=result, k=k)
        return question, first, observation, [expression], value_of_expression(expression) or "0"

    def convert_then_calculate() -> Made:
        (a, b), v = two_units(rng), words.number(rng, negative=False)
        result = converted(rng).replace("e+", "e")
        result = result if "e" not in result else words.integer(rng)
        return then_calculate(
            phrasing.pick(PHRASINGS["convert_heads"]).format(v=v, a=a, b=b),
            [number_value(v), a, b],
            f"{result} {b}",
            result,
        )

    def days_then_calculate() -> Made:
        x, y, days = words.date(rng), words.date(rng), str(rng.randint(1, 9000))
        return then_calculate(phrasing.pick(PHRASINGS["days_heads"]).format(x=x, y=y), [x, y], days, days)

    def words_then_calculate() -> Made:
        text = words.phrase(rng, 2, 9)
        count = str(len(text.split()))
        return then_calculate(
            phrasing.pick(PHRASINGS["words_heads"]).format(t=quoted(rng, text)), [text], statistics_of(text), count
        )

    def days_then_convert() -> Made:
        x, y, days = words.date(rng), words.date(rng), rng.randint(1, 9000)
        unit = rng.choice(("weeks", "hours", "years", "months", "minutes", "seconds"))
        question = phrasing.ask(PHRASINGS["days_in_weeks"], x=x, y=y, w=unit)
        return question, [x, y], str(days), [days, "days", unit], f"{converted(rng)} {unit}"

    def add_then_weekday() -> Made:
        (shown, days), start, date = time_span(rng), words.date(rng), iso_date(rng)
        draw = rng.random()
        if draw < 0.2:
            question, start = phrasing.ask(PHRASINGS["weekday_in"], n=shown), "today"
        elif draw < 0.7:
            question = phrasing.ask(PHRASINGS["weekday_after"], n=shown, d=start)
        else:
            question, days = phrasing.ask(PHRASINGS["weekday_before"], n=shown, d=start), -days
        return question, [start, days], date, [date], rng.choice(words.DAYS)

    def calculate_then_add() -> Made:
        a, b, start = rng.randint(2, 30), rng.randint(2, 30), words.date(rng)
        shown, expression = rng.choice(
            ((f"{a} * {b}", f"{a} * {b}"), (f"{a} times {b}", f"{a} * {b}"), (f"{a} + {b}", f"{a} + {b}"))
        )
        value = value_of_expression(expression) or "0"
        return (
            phrasing.ask(PHRASINGS["date_after_sum"], e=shown, d=start),
            [expression],
            value,
            [start, int(value)],
            iso_date(rng),
        )

    for first, second, make in (
        ("calculator", "convert_units", calculate_then_convert),
        ("convert_units", "calculator", convert_then_calculate),
        ("days_between", "calculator", days_then_calculate),
        ("text_statistics", "calculator", words_then_calculate),
        ("days_between", "convert_units", days_then_convert),
        ("add_days", "weekday", add_then_weekday),
        ("calculator", "add_days", calculate_then_add),
    ):
        if first in tools and second in tools:
            pairs.append((first, second, make))
    first, second, make = rng.choice(pairs)
    question, first_values, observation, second_values, result = make()
    one, two = tools[first], tools[second]

    def named(tool: ToolSpec, values: list[Any]) -> dict[str, Any]:
        return dict(zip((name.rstrip("?") for name in tool.arguments), values, strict=True))

    steps = (
        Step(first_call(NEEDS[first], one, NEEDS[second], two), one.name, named(one, first_values), observation),
        Step(second_call(NEEDS[second], two), two.name, named(two, second_values), result),
    )
    return Sample(question, result, steps, kind="two calls")
