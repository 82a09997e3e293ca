"""Synthetic tools: random names, descriptions and arguments, so that the model can know none of them."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from training import words
from training.samples import ToolSpec

#: Arguments by name: the type, and a function that makes a value (None: any value of the type).
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
class SyntheticTool:
    """A tool and the words that questions use for it. A tool that looks something up has an `entity` and an
    `attribute`, or is a `record` tool, which returns all attributes; one that does something has an `action`."""

    spec: ToolSpec
    entity: str
    attribute: str = ""
    action: str = ""
    record: bool = False

    @property
    def need(self) -> str:
        """What a question for it needs, in words of its description."""
        if self.record:
            return f"data on a {self.entity}"
        return f"{self.attribute} of a {self.entity}" if self.attribute else f"to {self.action} a {self.entity}"


def in_words(word: str) -> str:
    """A name with spaces for underscores."""
    return word.replace("_", " ")


def any_thing(rng: Random) -> str:
    """A noun or an invented word, for what a tool is about."""
    return rng.choice(words.NOUNS) if rng.random() < 0.75 else words.invent_word(rng, 2)


def make_argument(rng: Random, taken: dict[str, Any]) -> tuple[str, Any]:
    """A name that is not `taken`, and its type."""
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


def make_tool(rng: Random) -> SyntheticTool:
    """A tool that looks something up (58 %), or does something."""
    entity = any_thing(rng)
    if rng.random() < 0.58:
        return _lookup(rng, entity)
    verb = rng.choice(words.VERBS) if rng.random() < 0.75 else words.invent_word(rng)
    arguments: dict[str, Any] = {}
    first = rng.choice((entity, "id", "name", "item", "text", "target", words.invent_word(rng)))
    arguments[first] = "string"
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 2, 3))):
        name, kind = make_argument(rng, arguments)
        arguments[name + ("?" if rng.random() < 0.15 else "")] = kind
    if rng.random() < 0.06:
        arguments = dict([make_argument(rng, {}) for _ in range(rng.choice((1, 2)))])
    name = rng.choice((f"{verb}_{entity}", f"{verb}_{entity}", f"{entity}_{verb}", verb, words.invent_word(rng, 2)))
    action = in_words(verb)
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
    return SyntheticTool(ToolSpec(name, description, arguments), entity, action=action)


def _lookup(rng: Random, entity: str) -> SyntheticTool:
    attribute = any_thing(rng)
    while attribute == entity:
        attribute = any_thing(rng)
    if rng.random() < 0.2:
        attribute = f"{rng.choice(words.ADJECTIVES)} {attribute}"
    label = attribute.replace(" ", "_")
    verb = rng.choice(("get", "find", "check", "read", "look_up", "fetch", "show", "query", "tell"))
    record = rng.random() < 0.22
    key = rng.choice((entity, f"{entity}_id", "id", "name", "key", words.invent_word(rng)))
    arguments: dict[str, Any] = {key: "string" if rng.random() < 0.88 else "integer"}
    if rng.random() < 0.15:
        name, kind = make_argument(rng, arguments)
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
                f"{in_words(verb).capitalize()} the {attribute} of a {entity}.",
                f"The {attribute} of a {entity}.",
                f"Give the {attribute} for a {entity}.",
                f"Look up which {attribute} a {entity} has.",
                f"Return a {entity}'s {attribute}.",
                f"{attribute.capitalize()} of one {entity}.",
            )
        )
    return SyntheticTool(ToolSpec(name, description, arguments), entity, attribute=attribute, record=record)


def takes_one_text(tool: SyntheticTool) -> bool:
    """Whether the tool can be called with one text alone, such as another tool's result."""
    required = [name for name in tool.spec.arguments if not name.endswith("?")]
    return (
        len(required) == 1
        and tool.spec.arguments[required[0]] == "string"
        and next(iter(tool.spec.arguments)) == required[0]
    )
