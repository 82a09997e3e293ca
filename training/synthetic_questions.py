"""Questions for synthetic tools, and random results of these.

The model can only answer them from the list of tools in its prompt.
"""

import json
from random import Random
from typing import Any

from training import words
from training.phrasing import Phrasing, read_phrasings
from training.samples import Sample, Step, ToolSpec, first_call, one_call, second_call
from training.shipped_questions import value_of_expression
from training.synthetic_tools import ARGUMENTS, SyntheticTool, any_thing, in_words

PHRASINGS = read_phrasings("synthetic_tools")


def value_of(rng: Random, name: str, kind: Any) -> Any:
    """A random value of an argument, of its JSON type."""
    if isinstance(kind, tuple):
        return rng.choice(kind)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "integer":
        return int(words.integer(rng)) * (-1 if rng.random() < 0.06 else 1)
    if kind == "number":
        text = words.number(rng)
        return float(text) if "." in text else int(text)
    maker = ARGUMENTS.get(name, ("", None))[1]
    if maker and rng.random() < 0.85:
        return maker(rng)
    return rng.choice(
        (words.identifier, words.any_word, words.phrase, lambda r: r.choice(words.PEOPLE + words.PLACES), words.date)
    )(rng)


def any_key(rng: Random) -> str:
    """A random key: a label, a name, a word, a few words, or a saying."""
    draw = rng.random()
    if draw < 0.45:
        return words.identifier(rng)
    if draw < 0.65:
        return rng.choice(words.PEOPLE + words.PLACES)
    if draw < 0.77:
        return words.any_word(rng)
    if draw < 0.85:
        return words.saying(rng)
    return words.phrase(rng, 2, 4)


def _shown(rng: Random, value: Any) -> str:
    """A value as a question writes it."""
    if isinstance(value, bool):
        return rng.choice(("yes", "true", "on") if value else ("no", "false", "off"))
    return in_quotes(rng, value) if isinstance(value, str) else str(value)


def unambiguous(rng: Random, value: Any) -> str:
    """A value as a question writes it, in quotation marks if it could be taken for a word of the question."""
    if isinstance(value, str) and value.lower() in words.PLAIN and rng.random() < 0.9:
        return rng.choice((f'"{value}"', f"'{value}'"))
    return _shown(rng, value)


def in_quotes(rng: Random, text: str) -> str:
    """In quotation marks: always if the text has several words, sometimes if it is one word."""
    if " " in text or rng.random() < 0.2:
        marks = [mark for mark in ("'", '"', "'", '"', "`") if mark not in text]
        mark = rng.choice(marks) if marks else ""
        return mark + text + mark
    return text


def _stated(rng: Random, name: str, value: Any) -> str:
    """An argument and its value in words."""
    word = in_words(name) if rng.random() < 0.8 else name
    if isinstance(value, bool):
        return rng.choice(
            (f"with {word}", f"{word} on", f"{word} = true", f"{word}: yes", f"and make it {word}", f"{word} true")
            if value
            else (f"without {word}", f"{word} off", f"{word} = false", f"{word}: no", f"not {word}", f"{word} false")
        )
    text = _shown(rng, value)
    if isinstance(value, int | float) and rng.random() < 0.35:
        return rng.choice((f"for {text} {word}", f"{text} {word}", f"with {text} {word}", f"at {text} {word}"))
    return rng.choice(
        (
            f"{word} {text}",
            f"with {word} {text}",
            f"{word} = {text}",
            f"{word}: {text}",
            f"{word}={text}",
            f"{word} is {text}",
            f"for {word} {text}",
            f"and {word} {text}",
            f"using {word} {text}",
            f"set {word} to {text}",
        )
    )


def _rest(rng: Random, tool: ToolSpec, names: list[str]) -> tuple[str, dict[str, Any]]:
    """The part of a question that gives values to the arguments `names`, and these values. Optional arguments may be
    left out."""
    said, values = [], {}
    for name in names:
        if name.endswith("?") and rng.random() < 0.5:
            continue
        plain = name.rstrip("?")
        values[plain] = value_of(rng, plain, tool.arguments[name])
        said.append(_stated(rng, plain, values[plain]))
    if rng.random() < 0.15:
        rng.shuffle(said)
    if not said:
        return "", values
    joint = rng.choice((", ", ", ", " and ", ", and "))
    return rng.choice((" ", " ", ", ", ": ")) + joint.join(said), values


def _observation(rng: Random, tool: SyntheticTool) -> str:
    """A random result: a value, a word, a sentence, sometimes a long text."""
    draw = rng.random()
    if draw < 0.3:
        return words.number(rng) + rng.choice(
            ("", "", " °C", " kg", "%", " EUR", " ms", " " + rng.choice(words.NOUNS) + "s")
        )
    if draw < 0.42:
        return any_key(rng)
    if draw < 0.52:
        return rng.choice(
            (
                "open",
                "closed",
                "ok",
                "done",
                "running",
                "failed",
                "empty",
                "full",
                "true",
                "false",
                "yes",
                "no",
                "ready",
            )
        )
    if draw < 0.6:
        return words.date(rng)
    if draw < 0.68:
        return ", ".join(any_key(rng) for _ in range(rng.randint(2, 5)))
    if draw < 0.74:
        return json.dumps(
            {any_thing(rng): rng.choice((words.number(rng), any_key(rng))) for _ in range(rng.randint(1, 3))},
            ensure_ascii=False,
        )
    if draw < 0.9:
        return words.sentence(rng, 3, 9)
    if draw < 0.96:
        deed = any_key(rng), rng.choice(("was saved", "is booked", "has been sent", "is ready", "was moved"))
        return f"{tool.entity} {' '.join(deed)}."
    return " ".join(words.sentence(rng, 4, 9) for _ in range(rng.randint(2, 4)))


def _record(rng: Random, attribute: str, value: str) -> str:
    """A record of two to six fields, one of them the requested `attribute`; sometimes as JSON."""
    fields = {attribute: value}
    for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 5))):
        fields.setdefault(
            any_thing(rng),
            rng.choice((words.number(rng), words.identifier(rng), rng.choice(words.PEOPLE), words.any_word(rng))),
        )
    items = list(fields.items())
    rng.shuffle(items)
    if rng.random() < 0.35:
        return json.dumps(dict(items), ensure_ascii=False)
    return rng.choice((", ", "; ")).join(f"{name}: {text}" for name, text in items)


def _first_value(rng: Random, tool: ToolSpec) -> tuple[str, Any]:
    name = next(iter(tool.arguments))
    kind = tool.arguments[name]
    if kind == "string":
        plain = name.rstrip("?")
        return plain, (value_of(rng, plain, kind) if plain in ARGUMENTS else any_key(rng))
    return name.rstrip("?"), value_of(rng, name.rstrip("?"), kind)


def single(rng: Random, phrasing: Phrasing, tool: SyntheticTool) -> Sample:
    """A sample with one call of `tool`."""
    spec = tool.spec
    names = list(spec.arguments)
    kind = spec.arguments[names[0]]
    values: dict[str, Any]
    if kind == "boolean" or isinstance(kind, tuple):
        said, values = _rest(rng, spec, names)
        question = (
            phrasing.ask(PHRASINGS["bare_actions"], a=tool.action or "use", e=tool.entity, t=spec.name)
            if tool.action
            else f"use {spec.name}"
        )
        question = question.rstrip("?.!") + said
        observation = answer = _observation(rng, tool)
        need = tool.need if tool.action else spec.name
        return Sample(
            question, answer, (Step(one_call(need, spec), spec.name, values, observation),), kind="synthetic tool"
        )
    first, value = _first_value(rng, spec)
    said, more = _rest(rng, spec, names[1:])
    values = {first: value, **more}
    shown = unambiguous(rng, value) + said
    observation = answer = _observation(rng, tool)
    slots = {"x": tool.attribute, "e": tool.entity, "a": tool.action, "v": shown, "t": spec.name}
    need = tool.need
    if rng.random() < 0.22:
        need = spec.name
        question = phrasing.ask(PHRASINGS["explicit"], **slots)
    elif tool.record:
        attribute = any_thing(rng)
        answer = rng.choice(
            (words.number(rng), words.identifier(rng), rng.choice(words.PEOPLE), words.any_word(rng), words.date(rng))
        )
        observation = _record(rng, attribute, answer)
        if rng.random() < 0.15:
            question, answer = phrasing.ask(PHRASINGS["whole_record"], **slots), observation
        else:
            question = phrasing.ask(PHRASINGS["lookup"], **(slots | {"x": attribute}))
    elif tool.action:
        question = phrasing.ask(PHRASINGS["action"], **slots)
    else:
        question = phrasing.ask(PHRASINGS["lookup"], **slots)
    return Sample(
        question, answer, (Step(one_call(need, spec), spec.name, values, observation),), kind="synthetic tool"
    )


ERRORS = (
    "not found|{v} not found|there is no {e} {v}|{e} {v} does not exist|access denied|timed out after {n} s|"
    "connection refused|the {e} is busy|invalid {w}|{w} must be a number|no {w} given|the service is not available|"
    "unknown {e}: {v}|{v} is locked|permission denied for {v}|HTTP {n}|KeyError: {w}|value {n} is out of range|"
    "quota exceeded|disk full|try again later"
).split("|")


def failing(rng: Random, sample: Sample, entity: str) -> Sample:
    """The same question, about an `entity`, with an error from the tool."""
    step = sample.steps[0]
    value = next((str(value) for value in step.input.values()), "it")
    message = rng.choice(ERRORS).format(v=value, e=entity, n=rng.randint(1, 599), w=words.any_word(rng))
    broken = Step(step.thought, step.tool, step.input, message, failed=True)
    return Sample(
        sample.question, f"{step.tool} failed: {message}", (broken,), thought="The tool failed.", kind="tool error"
    )


def double(rng: Random, phrasing: Phrasing, one: SyntheticTool, two: SyntheticTool) -> Sample:
    """A question for two calls: `one`, then `two` with its result. Both tools take one text."""
    first, value = _first_value(rng, one.spec)
    middle = any_key(rng) if rng.random() < 0.8 else words.number(rng)
    slots = {
        "v": unambiguous(rng, value),
        "e": one.entity,
        "x": one.attribute,
        "y": two.attribute,
        "a": two.action,
        "f": two.entity,
    }
    slots |= {"s": one.spec.name, "t": two.spec.name}
    needs = one.need, two.need
    if not one.attribute or one.record or two.record or rng.random() < 0.3:
        question = phrasing.ask(PHRASINGS["chain_explicit"], **slots)
        needs = one.spec.name, two.spec.name
    elif two.action:
        question = phrasing.ask(PHRASINGS["chain_actions"], **slots)
    else:
        question = phrasing.ask(PHRASINGS["chain_lookups"], **slots)
    result = _observation(rng, two)
    second = next(iter(two.spec.arguments)).rstrip("?")
    steps = (
        Step(first_call(needs[0], one.spec, needs[1], two.spec), one.spec.name, {first: value}, middle),
        Step(second_call(needs[1], two.spec), two.spec.name, {second: middle}, result),
    )
    return Sample(question, result, steps, kind="two calls")


def then_calculate(rng: Random, phrasing: Phrasing, one: SyntheticTool, calculator: ToolSpec) -> Sample:
    """A question for two calls: `one` looks up a number, and the calculator uses it."""
    first, value = _first_value(rng, one.spec)
    while True:
        shown, form = phrasing.pick(PHRASINGS["chain_sums"]).split("|")
        number, k = words.number(rng, negative=False), str(rng.randint(2, 60))
        expression = form.format(r=number, k=k)
        result = value_of_expression(expression)
        if result is not None:
            break
    observation = number + rng.choice(("", "", " EUR", " kg", " °C"))
    question = phrasing.ask({"phrase": [shown]}, x=one.attribute, e=one.entity, v=unambiguous(rng, value), k=k)
    argument = next(iter(calculator.arguments))
    steps = (
        Step(first_call(one.need, one.spec, "arithmetic", calculator), one.spec.name, {first: value}, observation),
        Step(second_call("arithmetic", calculator), calculator.name, {argument: expression}, result),
    )
    return Sample(question, result, steps, kind="two calls")
