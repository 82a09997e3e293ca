"""The tools that ship with Hearth, and samples that call one of them.

The same tools also occur with other names, descriptions and argument names, so that the model learns to read the list
of tools instead of memorising it.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from training import shipped_questions, words
from training.phrasing import Phrasing
from training.samples import Sample, Step, ToolSpec, one_call

CALCULATOR = ToolSpec("calculator", "Work out an arithmetic expression.", {"expression": "string"})
CONVERT = ToolSpec(
    "convert_units",
    "Convert a value from one unit to another.",
    {"value": "number", "from_unit": "string", "to_unit": "string"},
)
DAYS_BETWEEN = ToolSpec(
    "days_between", "Count the days from one date to another.", {"start": "string", "end": "string"}
)
ADD_DAYS = ToolSpec(
    "add_days",
    "Find the date a number of days after (or, with a minus, before) a date.",
    {"date": "string", "days": "integer"},
)
WEEKDAY = ToolSpec("weekday", "Tell the day of the week of a date.", {"date": "string"})
STATISTICS = ToolSpec("text_statistics", "Count the characters, words and sentences of a text.", {"text": "string"})
SENTIMENT = ToolSpec(
    "sentiment", "Tell whether the mood of a text is positive, negative or neutral.", {"text": "string"}
)
TOOLS = (CALCULATOR, CONVERT, DAYS_BETWEEN, ADD_DAYS, WEEKDAY, STATISTICS, SENTIMENT)

#: What a question needs, in the model's thought.
NEEDS = {
    "calculator": "arithmetic",
    "convert_units": "other units",
    "days_between": "days between dates",
    "add_days": "another date",
    "weekday": "a weekday",
    "text_statistics": "counts of a text",
    "sentiment": "a mood",
}

#: Other names, descriptions and argument names of each tool, in the order of the tool's own arguments.
VARIANTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "calculator": (
        ("compute", "math", "evaluate", "calc", "arithmetic", "solve", "work_out", "do_math", "sum_up", "abacus"),
        (
            "Evaluate a formula.",
            "Do arithmetic.",
            "Compute the value of a mathematical expression.",
            "Calculate with numbers.",
            "Solve an arithmetic problem.",
            "Work out a formula and double the result.",
            "Work out an expression, rounded to whole numbers.",
            "Add, subtract, multiply and divide.",
        ),
        (("formula", "expr", "expression", "calculation", "term", "math", "problem", "input"),),
    ),
    "convert_units": (
        ("convert", "unit_converter", "units", "measure", "change_unit", "to_unit", "conversion"),
        ("Convert between units.", "Change the unit of a quantity.", "Express a quantity in another unit."),
        (
            ("amount", "quantity", "x", "number"),
            ("source", "unit", "from", "unit_in"),
            ("target", "into", "to", "unit_out"),
        ),
    ),
    "days_between": (
        ("date_difference", "count_days", "days_from_to", "interval", "elapsed_days"),
        ("Number of days between two dates.", "Tell how many days lie between two dates.", "Count days."),
        (("first", "from_date", "begin", "date_a"), ("second", "to_date", "until", "date_b")),
    ),
    "add_days": (
        ("shift_date", "date_plus", "move_date", "later_date", "date_offset"),
        ("Move a date by a number of days.", "Add days to a date.", "Give the date some days later or earlier."),
        (("start", "day", "from_date", "base"), ("offset", "count", "n", "shift")),
    ),
    "weekday": (
        ("day_of_week", "which_day", "dayname", "get_weekday"),
        ("Name the weekday of a date.", "Which day of the week a date falls on.", "Day of the week for a date."),
        (("day", "when", "d", "on"),),
    ),
    "text_statistics": (
        ("count_text", "text_info", "word_count", "measure_text", "wc", "text_length"),
        (
            "Count words, characters and sentences.",
            "Statistics of a text.",
            "Length of a text in words and characters.",
        ),
        (("content", "string", "passage", "input"),),
    ),
    "sentiment": (
        ("mood", "classify_mood", "feeling", "tone", "opinion", "detect_sentiment"),
        ("Classify the mood of a text.", "Is a text positive, negative or neutral?", "Tell the tone of a text."),
        (("content", "review", "message", "passage"),),
    ),
}


def renamed(rng: Random, tool: ToolSpec) -> ToolSpec:
    """The same tool with another name, description and argument names."""
    names, descriptions, arguments = VARIANTS[tool.name]
    name = rng.choice(names) if rng.random() < 0.7 else words.invent_word(rng)
    kinds = list(tool.arguments.values())
    renamed: dict[str, Any] = {}
    for own, others, kind in zip(tool.arguments, arguments, kinds, strict=True):
        draw = rng.random()
        choice = own if draw < 0.2 else rng.choice(others) if draw < 0.8 else words.invent_word(rng)
        renamed[choice if choice not in renamed else own] = kind
    description = tool.description if rng.random() < 0.3 else rng.choice(descriptions)
    return ToolSpec(name, description, renamed)


def single(rng: Random, phrasing: Phrasing, tool: ToolSpec, task: str) -> Sample:
    """A sample with one call of `tool`, which does what the shipped tool `task` does."""
    if task == "calculator":
        question, expression, value = shipped_questions.arithmetic(rng, phrasing)
        return sample_of_call(tool, task, question, [expression], value)
    if task == "convert_units":
        question, value, a, b, result = shipped_questions.conversion(rng, phrasing)
        return sample_of_call(tool, task, question, [shipped_questions.number_value(value), a, b], result)
    if task == "days_between":
        question, start, end, days = shipped_questions.days_between(rng, phrasing)
        return sample_of_call(tool, task, question, [start, end], days)
    if task == "add_days":
        question, start, count, date = shipped_questions.shifted_date(rng, phrasing)
        return sample_of_call(tool, task, question, [start, count], date)
    if task == "weekday":
        question, day, name = shipped_questions.weekday(rng, phrasing)
        return sample_of_call(tool, task, question, [day], name)
    if task == "text_statistics":
        question, text, counts, answer = shipped_questions.text_statistics(rng, phrasing)
        return sample_of_call(tool, task, question, [text], answer, counts)
    question, text, mood_word = shipped_questions.sentiment(rng, phrasing)
    return sample_of_call(tool, task, question, [text], mood_word)


def sample_of_call(
    tool: ToolSpec, task: str, question: str, values: Sequence[Any], answer: str, observation: str | None = None
) -> Sample:
    """A sample in which `tool`, which does what the shipped tool `task` does, is called with `values`. The answer is
    the `observation` or a part of it."""
    given = dict(zip((name.rstrip("?") for name in tool.arguments), values, strict=True))
    step = Step(one_call(NEEDS[task], tool), tool.name, given, answer if observation is None else observation)
    return Sample(question, answer, (step,), kind=task)


ERRORS: dict[str, tuple[str, ...]] = {
    "calculator": (
        "division by zero",
        "the expression is not valid: {x}",
        "the number is too large",
        "unknown name {x}",
    ),
    "convert_units": ("unknown unit {x}", "cannot convert {x} to {y}", "{x} and {y} measure different things"),
    "days_between": ("{x} is not a date", "cannot read the date {x}; write it as YYYY-MM-DD"),
    "add_days": ("{x} is not a date", "the date is out of range"),
    "weekday": ("{x} is not a date", "cannot read the date {x}; write it as YYYY-MM-DD"),
    "text_statistics": ("the text is empty", "the text is too long"),
    "sentiment": ("the model did not answer", "no mood was found", "the model gave no clear answer"),
}


def failing(rng: Random, sample: Sample, task: str) -> Sample:
    """The same question, with an error from the tool."""
    step = sample.steps[0]
    message = rng.choice(ERRORS[task]).format(x=words.any_word(rng), y=words.any_word(rng))
    broken = Step(step.thought, step.tool, step.input, message, failed=True)
    return Sample(
        sample.question, f"{step.tool} failed: {message}", (broken,), thought="The tool failed.", kind="tool error"
    )
