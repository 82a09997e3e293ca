"""Questions that one call of a shipped tool answers, with the call's arguments and its result.

Results of arithmetic and of text counts are right. Those of conversions and dates are random: the model learns to
copy a tool's result and never computes one.
"""

from random import Random

from langchain_core.tools import ToolException

from server.tools.calculator import calculator
from training import words
from training.phrasing import Phrasing, read_phrasings

ARITHMETIC = read_phrasings("arithmetic")
CONVERSIONS = read_phrasings("units")
DATES = read_phrasings("dates")
TEXTS = read_phrasings("texts")
SMALL_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
LONGEST_VALUE = 21  # characters
UNITS = [
    "m|meter|meters|metres|km|kilometer|kilometers|kilometres|cm|centimeters|mm|millimeters|mile|miles|mi|yards|yd|"
    "feet|foot|ft|inches|inch|in|nautical miles|light years|nm|micrometers|µm|parsec|angstroms|furlongs",
    "kg|kilograms|kilogram|kilos|g|grams|gram|mg|milligrams|lb|lbs|pounds|pound|oz|ounces|tons|tonnes|stone|carats|µg",
    "s|seconds|second|minutes|min|hours|hour|h|days|day|weeks|week|months|years|ms|milliseconds|fortnights|decades",
    "celsius|fahrenheit|kelvin|°C|°F|K|degrees celsius|degrees fahrenheit|degC|degF|C|F",
    "l|liters|liter|litres|ml|milliliters|gallons|gallon|cups|cup|pints|quarts|fluid ounces|tablespoons|teaspoons|"
    "cubic meters|m^3|barrels|µl|cl",
    "m/s|km/h|mph|knots|miles per hour|meters per second|kilometers per hour|kph|feet per second|km/s",
    "Pa|pascal|bar|psi|atm|atmospheres|mmHg|hPa|kPa|torr|mbar|millibar",
    "J|joules|kJ|calories|cal|kcal|kWh|eV|BTU|Wh|kilojoules|MeV|erg",
    "W|watts|kW|horsepower|hp|MW|kilowatts",
    "acres|hectares|m^2|square meters|square feet|km^2|square miles|ft^2|cm^2",
    "degrees|radians|rad|turns|arcminutes|bytes|kilobytes|megabytes|gigabytes|bits|KB|MB|GB|TB|Hz|kHz|MHz|GHz|N|newtons",
    "volts|V|mV|millivolts|amperes|A|mA|ohms|kΩ|tesla|gauss|mol|mmol|moles|becquerel|curie|sievert|candela|lumens",
]
NEAR_DAYS = ("today", "tomorrow", "yesterday")
QUOTES = (("'", "'"), ("'", "'"), ('"', '"'), ('"', '"'), ("“", "”"), ("«", "»"), ("`", "`"), ("‘", "’"))  # noqa: RUF001
COUNTED = {
    "characters": ("characters", "letters", "chars", "signs"),
    "words": ("words",),
    "sentences": ("sentences",),
}


def number_value(text: str) -> int | float:
    return float(text) if "." in text or "e" in text else int(text)


def symbolic(rng: Random, depth: int = 0) -> str:
    """An expression in symbols, with or without spaces."""
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
    """The calculator's result; None if it is an error or very long."""
    try:
        value = str(calculator.invoke({"expression": expression}))
    except ToolException:
        return None
    return value if len(value) <= LONGEST_VALUE else None


def arithmetic(rng: Random, phrasing: Phrasing) -> tuple[str, str, str]:
    """A question, its expression, its value."""
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
            return phrasing.ask(ARITHMETIC["symbolic"], e=shown), expression, value
        kind, template, form = phrasing.pick(ARITHMETIC["arithmetic"]).split("|")
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
            if text.isdigit() and int(text) < len(SMALL_NUMBERS) and draw < 0.25:
                typed_slots[name] = SMALL_NUMBERS[int(text)]
            elif text.isdigit() and len(text) > 3 and draw < 0.25:
                typed_slots[name] = f"{int(text):,}"
            elif draw < 0.03 and not text.startswith("-"):
                typed_slots[name] = "$" + text
        return phrasing.ask({kind: [template]}, **typed_slots), expression, value


def two_units(rng: Random) -> tuple[str, str]:
    if rng.random() < 0.08:
        return words.invent_word(rng, 2), words.invent_word(rng, 2)
    return tuple(rng.sample(rng.choice(UNITS).split("|"), 2))  # type: ignore[return-value]


def converted(rng: Random) -> str:
    return f"{rng.random() * 10 ** rng.randint(-3, 6):.6g}" if rng.random() < 0.8 else words.integer(rng)


def conversion(rng: Random, phrasing: Phrasing) -> tuple[str, str, str, str, str]:
    """A question, the value, the two units, and a random result."""
    (a, b), value = two_units(rng), words.number(rng)
    shown = value
    if value.isdigit() and int(value) < len(SMALL_NUMBERS) and rng.random() < 0.15:
        shown = SMALL_NUMBERS[int(value)]
    question = phrasing.ask(CONVERSIONS["unit"], v=shown, a=a, b=b, n=rng.choice(words.NOUNS))
    return question, value, a, b, f"{converted(rng)} {b}"


def time_span(rng: Random) -> tuple[str, int]:
    """A time span in words, and its days."""
    if rng.random() < 0.2:
        weeks = rng.randint(1, 12)
        shown = SMALL_NUMBERS[weeks] if rng.random() < 0.3 else str(weeks)
        return (rng.choice(("a week", "one week", "1 week")), 7) if weeks == 1 else (f"{shown} weeks", 7 * weeks)
    days = int(rng.choice((str(rng.randint(1, 30)), str(rng.randint(1, 400)), words.integer(rng)[:4])) or 1)
    if days == 1:
        return rng.choice(("1 day", "a day", "one day")), 1
    shown = SMALL_NUMBERS[days] if days < len(SMALL_NUMBERS) and rng.random() < 0.3 else str(days)
    return f"{shown} days", days


def iso_date(rng: Random) -> str:
    return f"{rng.randint(1950, 2060)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def days_between(rng: Random, phrasing: Phrasing) -> tuple[str, str, str, str]:
    """A question, the first and the second date, a random number of days."""
    start, end = words.date(rng), words.date(rng)
    draw = rng.random()
    if draw < 0.2:
        start = "today"
        question = phrasing.ask(DATES["until"], b=end)
    elif draw < 0.32:
        end = "today"
        question = phrasing.ask(DATES["since"], a=start)
    else:
        if draw < 0.4:
            start, end = rng.choice(((rng.choice(NEAR_DAYS), end), (start, rng.choice(NEAR_DAYS))))
        question = phrasing.ask(DATES["between"], a=start, b=end, n=rng.choice(words.NOUNS))
    days = rng.choice((rng.randint(1, 400), rng.randint(1, 30000), -rng.randint(1, 4000)))
    return question, start, end, str(days)


def shifted_date(rng: Random, phrasing: Phrasing) -> tuple[str, str, int, str]:
    """A question, the date, the days to add, a random date as the result."""
    (shown, days), start = time_span(rng), words.date(rng)
    draw = rng.random()
    if draw < 0.15:
        return phrasing.ask(DATES["in"], n=shown), "today", days, iso_date(rng)
    if draw < 0.25:
        return phrasing.ask(DATES["ago"], n=shown), "today", -days, iso_date(rng)
    if draw < 0.33:
        start = rng.choice(NEAR_DAYS)
    if rng.random() < 0.6:
        return phrasing.ask(DATES["after"], n=shown, d=start), start, days, iso_date(rng)
    return phrasing.ask(DATES["before"], n=shown, d=start), start, -days, iso_date(rng)


def weekday(rng: Random, phrasing: Phrasing) -> tuple[str, str, str]:
    """A question, the date, a random weekday."""
    day = rng.choice(NEAR_DAYS) if rng.random() < 0.1 else words.date(rng)
    return phrasing.ask(DATES["weekday"], d=day, n=rng.choice(words.NOUNS)), day, rng.choice(words.DAYS)


def quoted(rng: Random, text: str) -> str:
    """The text in quotation marks that do not occur in it."""
    free = [(left, right) for left, right in QUOTES if left not in text and right not in text]
    left, right = rng.choice(free)
    return left + text + right


def statistics_of(text: str) -> str:
    count = max(1, sum(text.count(mark) for mark in ".!?"))
    return f"characters: {len(text)}, words: {len(text.split())}, sentences: {count}"


def text_statistics(rng: Random, phrasing: Phrasing) -> tuple[str, str, str, str]:
    """A question, its text, the observation, the answer."""
    text = words.passage(rng)
    observation = statistics_of(text)
    shown = quoted(rng, text)
    draw = rng.random()
    if draw < 0.15:
        return phrasing.ask(TEXTS["all"], t=shown), text, observation, observation
    if draw < 0.25:
        return phrasing.ask(TEXTS["length"], t=shown), text, observation, str(len(text))
    part = rng.choice(tuple(COUNTED))
    question = phrasing.ask(TEXTS["count"], t=shown, u=rng.choice(COUNTED[part]))
    answer = dict(piece.split(": ") for piece in observation.split(", "))[part]
    return question, text, observation, answer


def sentiment(rng: Random, phrasing: Phrasing) -> tuple[str, str, str]:
    """A question, its text, the sentiment."""
    mood_word = rng.choice(("positive", "negative", "neutral"))
    text = words.feeling(rng, mood_word) if rng.random() < 0.7 else words.passage(rng)
    return phrasing.ask(TEXTS["mood"], t=quoted(rng, text)), text, mood_word
