"""Arithmetic in words, and the expressions that it stands for."""

from random import Random

from langchain_core.tools import ToolException

from server.embedded import words
from server.embedded.phrasing import Phrasing, read_phrasings
from server.tools.calculator import calculator

PHRASINGS = read_phrasings("arithmetic")
SMALL = "zero one two three four five six seven eight nine ten eleven twelve".split()
LONGEST_VALUE = 21  # characters: no more is of use in an example


def number_value(text: str) -> int | float:
    return float(text) if "." in text or "e" in text else int(text)


def symbolic(rng: Random, depth: int = 0) -> str:
    """An expression as it is typed, with or without spaces."""
    count = rng.choice((2, 2, 2, 2, 3, 3, 4)) if depth == 0 else 2
    parts = [
        f"({symbolic(rng, depth + 1)})" if depth < 2 and rng.random() < 0.13 else words.number(rng)
        for _ in range(count)
    ]
    signs = [rng.choice(("+", "-", "*", "/", "*", "+", "-", "/", "+", "%", "//")) for _ in parts[1:]]
    gap = rng.choice((" ", " ", ""))
    text = parts[0]
    for sign, part in zip(signs, parts[1:], strict=True):
        text += f"{gap}{sign}{gap}{part}"
    if depth == 0 and rng.random() < 0.08:
        text = rng.choice(
            (f"sqrt({text})", f"{words.integer(rng)}{rng.choice(('^', '**', ' ^ ', ' ** '))}{rng.randint(2, 9)}")
        )
    return text


def value_of_expression(expression: str) -> str | None:
    """The value as the calculator writes it; None where it has none or a very long one."""
    try:
        value = str(calculator.invoke({"expression": expression}))
    except ToolException:
        return None
    return value if len(value) <= LONGEST_VALUE else None


def arithmetic(rng: Random, phrasing: Phrasing) -> tuple[str, str, str]:
    """A question, the expression that answers it, its value."""
    while True:
        if rng.random() < 0.35:
            expression = symbolic(rng)
            value = value_of_expression(expression)
            if value is None:
                continue
            shown = expression
            if rng.random() < 0.12:
                sign, typed = rng.choice((("*", "x"), ("*", "×"), ("/", "÷"), ("/", ":"), ("-", "−")))  # noqa: RUF001
                if sign in expression and "//" not in expression and "**" not in expression:
                    shown = expression.replace(sign, typed)
                    expression = shown.replace(typed, sign)
            return phrasing.ask(PHRASINGS["symbolic"], e=shown), expression, value
        kind, template, form = phrasing.pick(PHRASINGS["arithmetic"]).split("|")
        slots = {
            name: words.number(rng, negative="percent" not in template and "{n}" not in template) for name in "abc"
        }
        slots |= {"d": str(rng.randint(2, 12)), "f": f"{words.integer(rng)}.{rng.randint(1, 99)}"}
        slots["p"] = rng.choice((str(rng.randint(1, 99)), str(rng.randint(1, 99)), "7.5", "12.5", "0.5", "2.5"))
        slots |= {"n": rng.choice(words.NOUNS), "m": rng.choice(words.NOUNS)}
        if "sqrt" in form:
            slots["a"] = rng.choice((slots["a"].lstrip("-"), str(rng.randint(2, 30) ** 2)))
        if form.startswith("{a} **"):
            slots["a"] = str(rng.randint(1, 40))
        expression = form.format(**slots)
        value = value_of_expression(expression)
        if value is None:
            continue
        typed_slots = dict(slots)
        for name in "abc":
            text = slots[name]
            draw = rng.random()
            if text.isdigit() and int(text) < len(SMALL) and draw < 0.25:
                typed_slots[name] = SMALL[int(text)]
            elif text.isdigit() and len(text) > 3 and draw < 0.25:
                typed_slots[name] = f"{int(text):,}"
            elif draw < 0.03 and not text.startswith("-"):
                typed_slots[name] = "$" + text
        return phrasing.ask({kind: [template]}, **typed_slots), expression, value
