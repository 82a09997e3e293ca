"""What can be done with the result of a question, in words that do not repeat it."""

import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from server.embedded import words
from server.embedded.arithmetic import number_value, value_of_expression
from server.embedded.dates import iso_date, span
from server.embedded.examples import Example, ToolSpec
from server.embedded.phrasing import Phrasing, read_phrasings
from server.embedded.shipped import called
from server.embedded.units import UNITS, converted, two_units

PHRASINGS = read_phrasings("following")
NUMBER = re.compile(r"-?\d+(\.\d+)?")
DATE = re.compile(r"\d{4}-\d\d-\d\d")
AMOUNT = re.compile(r"(-?\d+(?:\.\d+)?) (.+)")
#: A question, the shipped tool that answers it, what that is called with, and what comes out.
Way = tuple[str, str, list[Any], str]


def following(rng: Random, phrasing: Phrasing, before: Example, own: Mapping[str, ToolSpec]) -> Example | None:
    """What one of `own`, shipped tools by their names, is to do with the result of `before`; None where none can."""
    given = before.answer
    amount = AMOUNT.fullmatch(given)
    ways: list[Callable[[], Way | None]] = []

    def calculate(number: str) -> Way | None:
        said, form = phrasing.pick(PHRASINGS["on_it"]).split("|")
        k = str(rng.randint(2, 60))
        value = value_of_expression(expression := form.format(r=number, k=k))
        return None if value is None else (said.format(k=k), "calculator", [expression], value)

    def move() -> Way:
        said, sign = phrasing.pick(PHRASINGS["later_than_it"]).split("|")
        shown, days = span(rng)
        return said.format(n=shown), "add_days", [given, days if sign == "+" else -days], iso_date(rng)

    def go_so_far() -> Way:
        said, sign = phrasing.pick(PHRASINGS["date_that_far"]).split("|")
        start = words.date(rng)
        return said.format(d=start), "add_days", [start, int(sign + given)], iso_date(rng)

    def read_as() -> Way:
        from_days = before.kind == "days_between"
        a, b = ("days", rng.choice(("weeks", "hours", "years", "months", "minutes"))) if from_days else two_units(rng)
        said = phrasing.pick(PHRASINGS["in_other_units"]).format(a=a, b=b)
        return said, "convert_units", [number_value(given), a, b], f"{converted(rng)} {b}"

    def convert(number: str, unit: str) -> Way | None:
        others = next((kind for kind in UNITS if unit in kind.split("|")), unit).split("|")
        b = rng.choice(others)
        if b == unit:
            return None
        said = phrasing.pick(PHRASINGS["converted_again"]).format(b=b)
        return said, "convert_units", [number_value(number), unit, b], f"{converted(rng)} {b}"

    def find_weekday() -> Way:
        return phrasing.pick(PHRASINGS["weekday_of_it"]), "weekday", [given], rng.choice(words.DAYS)

    if NUMBER.fullmatch(given):
        ways += [lambda: calculate(given)] * 3 * ("calculator" in own)
        ways += [read_as] * ("convert_units" in own)
        ways += [go_so_far] * ("add_days" in own and given.isdigit() and len(given) < 6)
    elif DATE.fullmatch(given):
        ways += [find_weekday] * ("weekday" in own) + [move] * ("add_days" in own)
    elif amount and "e" not in given:
        ways += [lambda: calculate(amount[1])] * ("calculator" in own)
        ways += [lambda: convert(amount[1], amount[2])] * ("convert_units" in own)
    made = rng.choice(ways)() if ways else None
    if made is None:
        return None
    question, name, values, result = made
    return called(own[name], name, question, values, result)
