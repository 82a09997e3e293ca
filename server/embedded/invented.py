"""Questions about tools that exist nowhere: invented names, descriptions, arguments and answers.

Half of what the model is trained on, so that it reads the list of tools in its prompt rather than know it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from server.embedded import words
from server.embedded.arithmetic import value_of_expression
from server.embedded.examples import Example, Step, ToolSpec, first_call, one_call, second_call
from server.embedded.phrasing import Phrasing, read_phrasings

PHRASINGS = read_phrasings("invented")

#: Arguments by name: the type, and what makes a value (None: by the type alone).
ARGUMENTS: dict[str, tuple[str, Callable[[Random], str] | None]] = {
    **{
        name: ("string", lambda rng: rng.choice(words.PLACES))
        for name in "city place location destination origin station".split()
    },
    **{
        name: (
            "string",
            lambda rng: rng.choice(words.PEOPLE) if rng.random() < 0.7 else words.invent_word(rng).title(),
        )
        for name in "name person user author owner recipient student colleague to customer".split()
    },
    **{
        name: ("string", words.identifier)
        for name in (
            "id sample sample_id item code barcode key plate box room file path device job_id node "
            "order_id tag".split()
        )
    },
    **{name: ("string", words.date) for name in "date day when start_date deadline due".split()},
    **{
        name: ("string", lambda rng: words.phrase(rng, 1, 5))
        for name in "title topic query subject keyword term label".split()
    },
    **{name: ("string", words.sentence) for name in "message text note comment content reason body".split()},
    **{
        name: ("string", lambda rng: f"{rng.randint(0, 23):02}:{rng.choice(('00', '15', '30', '45'))}")
        for name in "time start_time at".split()
    },
    **{
        name: ("integer", None)
        for name in "count minutes hours seconds days n limit number level floor amount size pages copies".split()
    },
    **{
        name: ("number", None)
        for name in "temperature price weight volume rate distance speed value ratio width dose".split()
    },
    **{
        name: ("boolean", None)
        for name in "urgent verbose force recursive public notify dry_run overwrite archived silent".split()
    },
    "color": ("enum", lambda rng: rng.choice(words.COLORS)),
    "weekday": ("enum", lambda rng: rng.choice(words.DAYS)),
    "priority": ("enum", lambda rng: rng.choice(("low", "medium", "high"))),
    "size": ("enum", lambda rng: rng.choice(("small", "large", "huge"))),
    "mode": ("enum", lambda rng: rng.choice(("fast", "slow", "auto", "manual"))),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "color": tuple(words.COLORS[:5]),
    "weekday": tuple(words.DAYS),
    "priority": ("low", "medium", "high"),
    "size": ("small", "large", "huge"),
    "mode": ("fast", "slow", "auto", "manual"),
}


@dataclass(frozen=True)
class InventedTool:
    """A tool and the words in which people ask for it. `entity` and `attribute` are set for one that looks a
    thing up, `action` for one that does something."""

    spec: ToolSpec
    entity: str
    attribute: str = ""
    action: str = ""
    record: bool = False

    @property
    def need(self) -> str:
        """What a question for it needs, in words that stand in its description."""
        if self.record:
            return f"data on a {self.entity}"
        return f"{self.attribute} of a {self.entity}" if self.attribute else f"to {self.action} a {self.entity}"


def _plain(word: str) -> str:
    return word.replace("_", " ")


def _entity(rng: Random) -> str:
    return rng.choice(words.NOUNS) if rng.random() < 0.75 else words.invent_word(rng, 2)


def _argument(rng: Random, taken: dict[str, Any]) -> tuple[str, Any]:
    while True:
        if rng.random() < 0.75:
            name = rng.choice(tuple(ARGUMENTS))
            kind: Any = ARGUMENTS[name][0]
            kind = CHOICES[name] if kind == "enum" else kind
        else:
            name, kind = (
                words.invent_word(rng),
                rng.choice(("string", "string", "string", "integer", "number", "boolean")),
            )
        if name not in taken and name + "?" not in taken:
            return name, kind


def invent_tool(rng: Random) -> InventedTool:
    """A tool that looks something up (six in ten), or does something."""
    entity = _entity(rng)
    if rng.random() < 0.58:
        return _lookup(rng, entity)
    verb = rng.choice(words.VERBS) if rng.random() < 0.75 else words.invent_word(rng)
    arguments: dict[str, Any] = {}
    first = rng.choice((entity, "id", "name", "item", "text", "target", words.invent_word(rng)))
    arguments[first] = "string"
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 2, 3))):
        name, kind = _argument(rng, arguments)
        arguments[name + ("?" if rng.random() < 0.15 else "")] = kind
    if rng.random() < 0.06:
        arguments = dict([_argument(rng, {}) for _ in range(rng.choice((1, 2)))])
    name = rng.choice((f"{verb}_{entity}", f"{verb}_{entity}", f"{entity}_{verb}", verb, words.invent_word(rng, 2)))
    action = _plain(verb)
    description = rng.choice(
        (
            f"{action.capitalize()} a {entity}.",
            f"{action.capitalize()} the {entity}.",
            f"{action.capitalize()} a {entity} of the lab.",
            f"{action.capitalize()} one {entity} or more.",
            f"Use this to {action} a {entity}.",
            f"{action.capitalize()} a {rng.choice(words.ADJECTIVES)} {entity}.",
        )
    )
    return InventedTool(ToolSpec(name, description, arguments), entity, action=action)


def _lookup(rng: Random, entity: str) -> InventedTool:
    attribute = _entity(rng)
    while attribute == entity:
        attribute = _entity(rng)
    if rng.random() < 0.2:
        attribute = f"{rng.choice(words.ADJECTIVES)} {attribute}"
    label = attribute.replace(" ", "_")
    verb = rng.choice(("get", "find", "check", "read", "look_up", "fetch", "show", "query", "tell"))
    record = rng.random() < 0.22
    key = rng.choice((entity, f"{entity}_id", "id", "name", "key", words.invent_word(rng)))
    arguments: dict[str, Any] = {key: "string" if rng.random() < 0.88 else "integer"}
    if rng.random() < 0.15:
        name, kind = _argument(rng, arguments)
        arguments[name + ("?" if rng.random() < 0.5 else "")] = kind
    if record:
        name = rng.choice(
            (f"{verb}_{entity}", f"{entity}_info", f"{entity}_record", words.invent_word(rng, 2), f"{entity}_data")
        )
        description = rng.choice(
            (
                f"Get all data on a {entity}.",
                f"Look up the record of a {entity}.",
                f"Show what is known about a {entity}.",
            )
        )
    else:
        name = rng.choice(
            (
                f"{verb}_{label}",
                f"{entity}_{label}",
                f"{verb}_{entity}_{label}",
                words.invent_word(rng, 2),
                f"{label}_of",
            )
        )
        description = rng.choice(
            (
                f"{_plain(verb).capitalize()} the {attribute} of a {entity}.",
                f"The {attribute} of a {entity}.",
                f"Give the {attribute} for a {entity}.",
                f"Look up which {attribute} a {entity} has.",
                f"Return a {entity}'s {attribute}.",
                f"{attribute.capitalize()} of one {entity}.",
            )
        )
    return InventedTool(ToolSpec(name, description, arguments), entity, attribute=attribute, record=record)


def value_of(rng: Random, name: str, kind: Any) -> Any:
    """A value of an argument, as JSON has it."""
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


def _key(rng: Random) -> str:
    """What a thing is called: a label, a name, a word, a few words."""
    draw = rng.random()
    if draw < 0.45:
        return words.identifier(rng)
    if draw < 0.65:
        return rng.choice(words.PEOPLE + words.PLACES)
    if draw < 0.8:
        return words.any_word(rng)
    return words.phrase(rng, 2, 4)


def _shown(rng: Random, value: Any) -> str:
    """A value as it stands in a question: texts often between quotation marks."""
    if isinstance(value, bool):
        return rng.choice(("yes", "true", "on") if value else ("no", "false", "off"))
    if not isinstance(value, str):
        return str(value)
    needs = value.count(" ") > 0 and rng.random() < 0.75
    if needs or rng.random() < 0.2:
        marks = [mark for mark in ("'", '"', "'", '"', "`") if mark not in value]
        mark = rng.choice(marks) if marks else ""
        return mark + value + mark
    return value


def _stated(rng: Random, name: str, value: Any) -> str:
    """An argument and its value, as people say it."""
    word = _plain(name) if rng.random() < 0.8 else name
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
    """What a question says of the arguments `names`, and their values; optional ones may be left out."""
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


def _observation(rng: Random, tool: InventedTool) -> str:
    """What a tool gives back: a value, a word, a sentence, now and then a long text."""
    draw = rng.random()
    if draw < 0.3:
        return words.number(rng) + rng.choice(
            ("", "", " °C", " kg", "%", " EUR", " ms", " " + rng.choice(words.NOUNS) + "s")
        )
    if draw < 0.42:
        return _key(rng)
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
        return ", ".join(_key(rng) for _ in range(rng.randint(2, 5)))
    if draw < 0.74:
        return json.dumps(
            {_entity(rng): rng.choice((words.number(rng), _key(rng))) for _ in range(rng.randint(1, 3))},
            ensure_ascii=False,
        )
    if draw < 0.9:
        return words.sentence(rng, 3, 9)
    if draw < 0.96:
        deed = _key(rng), rng.choice(("was saved", "is booked", "has been sent", "is ready", "was moved"))
        return f"{tool.entity} {' '.join(deed)}."
    return " ".join(words.sentence(rng, 4, 9) for _ in range(rng.randint(2, 4)))


def _record(rng: Random, attribute: str, value: str) -> str:
    """A record of two to six fields, one of them the one that is asked for; sometimes as JSON."""
    fields = {attribute: value}
    for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 5))):
        fields.setdefault(
            _entity(rng),
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
        return plain, (value_of(rng, plain, kind) if plain in ARGUMENTS else _key(rng))
    return name.rstrip("?"), value_of(rng, name.rstrip("?"), kind)


def single(rng: Random, phrasing: Phrasing, tool: InventedTool) -> Example:
    """A question that one call of `tool` answers."""
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
        return Example(
            question, answer, (Step(one_call(need, spec), spec.name, values, observation),), kind="invented"
        )
    first, value = _first_value(rng, spec)
    said, more = _rest(rng, spec, names[1:])
    values = {first: value, **more}
    shown = _shown(rng, value) + said
    observation = answer = _observation(rng, tool)
    slots = {"x": tool.attribute, "e": tool.entity, "a": tool.action, "v": shown, "t": spec.name}
    need = tool.need
    if rng.random() < 0.22:
        need = spec.name
        question = phrasing.ask(PHRASINGS["explicit"], **slots)
    elif tool.record:
        attribute = _entity(rng)
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
    return Example(question, answer, (Step(one_call(need, spec), spec.name, values, observation),), kind="invented")


ERRORS = (
    "not found|{v} not found|there is no {e} {v}|{e} {v} does not exist|access denied|timed out after {n} s|"
    "connection refused|the {e} is busy|invalid {w}|{w} must be a number|no {w} given|the service is not available|"
    "unknown {e}: {v}|{v} is locked|permission denied for {v}|HTTP {n}|KeyError: {w}|value {n} is out of range|"
    "quota exceeded|disk full|try again later"
).split("|")


def failing(rng: Random, tool: InventedTool, example: Example) -> Example:
    """The same question, where the tool answers with an error."""
    step = example.steps[0]
    value = next((str(value) for value in step.input.values()), "it")
    message = rng.choice(ERRORS).format(v=value, e=tool.entity, n=rng.randint(1, 599), w=words.any_word(rng))
    broken = Step(step.thought, step.tool, step.input, message, failed=True)
    return Example(
        example.question, f"{step.tool} failed: {message}", (broken,), thought="The tool failed.", kind="error"
    )


def takes_one_text(tool: InventedTool) -> bool:
    """Whether a chain can hand its result to this tool alone."""
    required = [name for name in tool.spec.arguments if not name.endswith("?")]
    return (
        len(required) == 1
        and tool.spec.arguments[required[0]] == "string"
        and next(iter(tool.spec.arguments)) == required[0]
    )


def double(rng: Random, phrasing: Phrasing, one: InventedTool, two: InventedTool) -> Example:
    """A question for `one`, whose result goes into `two`; both take one text."""
    first, value = _first_value(rng, one.spec)
    middle = _key(rng) if rng.random() < 0.8 else words.number(rng)
    slots = {
        "v": _shown(rng, value),
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
    return Example(question, result, steps, kind="two steps")


def then_calculate(rng: Random, phrasing: Phrasing, one: InventedTool, calculator: ToolSpec) -> Example:
    """A number that `one` looks up, put into an expression."""
    first, value = _first_value(rng, one.spec)
    while True:
        shown, form = phrasing.pick(PHRASINGS["chain_sums"]).split("|")
        number, k = words.number(rng, negative=False), str(rng.randint(2, 60))
        expression = form.format(r=number, k=k)
        result = value_of_expression(expression)
        if result is not None:
            break
    observation = number + rng.choice(("", "", " EUR", " kg", " °C"))
    question = phrasing.ask({"phrase": [shown]}, x=one.attribute, e=one.entity, v=_shown(rng, value), k=k)
    argument = next(iter(calculator.arguments))
    steps = (
        Step(first_call(one.need, one.spec, "arithmetic", calculator), one.spec.name, {first: value}, observation),
        Step(second_call("arithmetic", calculator), calculator.name, {argument: expression}, result),
    )
    return Example(question, result, steps, kind="two steps")
