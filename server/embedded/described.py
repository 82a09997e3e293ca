"""Invented tools that a sentence describes, asked for in other sentences that share some of its words.

No phrasing joins question and description here: the model has to look for whatever words agree.
"""

from random import Random
from typing import Any

from server.embedded import words
from server.embedded.examples import ToolSpec
from server.embedded.invented_tools import InventedTool, invent_argument
from server.embedded.phrasing import OPENINGS, Phrasing, read_phrasings

PHRASINGS = read_phrasings("described")
_LONG_WORDS = [word for word in words.EVERYDAY if len(word) > 3]


def describe_tool(rng: Random) -> InventedTool:
    """A tool whose description is about two to four things."""
    things: list[str] = []
    while len(things) < rng.choice((2, 2, 3, 3, 4)):
        if (word := _thing(rng)) not in things:
            things.append(word)
    verb = rng.choice(words.VERBS)
    core = rng.choice(PHRASINGS["articles"]) + things[0]
    for thing in things[1:]:
        core += f" {rng.choice(PHRASINGS['links'])} {thing}"
    name = rng.choice(
        (f"{verb}_{things[0]}", f"{things[0]}_{things[1]}", f"{things[1]}_{things[0]}", words.invent_word(rng, 2))
    )
    arguments: dict[str, Any] = {}
    if rng.random() < 0.4:
        arguments[rng.choice((things[-1], "id", "name", "key", things[0] + "_id"))] = "string"
    for _ in range(rng.choice((0, 0, 1, 2)) + (not arguments)):
        argument, kind = invent_argument(rng, arguments)
        arguments[argument + ("?" if arguments and rng.random() < 0.3 else "")] = kind
    description = f"{verb.replace('_', ' ').capitalize()} {core}."
    return InventedTool(ToolSpec(name, description, arguments), things[0], core=core, things=tuple(things))


def ask_freely(rng: Random, phrasing: Phrasing, tool: InventedTool, value: str, rest: str) -> str:
    """A question that names some of the things, in any order and form, and `value` somewhere among them; `rest` is
    what it says of other arguments."""
    count = rng.randint(1, len(tool.things))
    pieces = [_inflected(rng, thing) for thing in rng.sample(tool.things, max(count, min(2, len(tool.things))))]
    if value:
        pieces.insert(rng.choice((len(pieces), len(pieces), rng.randint(0, len(pieces)))), value)
    text = phrasing.pick(PHRASINGS["starts"])
    for piece in pieces:
        text += piece + " " + (phrasing.pick(PHRASINGS["joints"]) + " " if rng.random() < 0.7 else "")
    text = text.strip() + rest + phrasing.pick(OPENINGS["endings"])
    if rng.random() < 0.16:
        text = f"{words.plain_fact(rng)} {text}"
    return text[:1].upper() + text[1:] if rng.random() < 0.5 else text


def _thing(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.55:
        return rng.choice(words.NOUNS)
    if draw < 0.8:
        return rng.choice(_LONG_WORDS)
    return rng.choice(words.ADJECTIVES) if draw < 0.88 else words.invent_word(rng, 2)


def _inflected(rng: Random, word: str) -> str:
    """The word, or another form of it."""
    draw = rng.random()
    if draw < 0.7 or len(word) < 4:
        return word
    if draw < 0.85:
        return word[:-1] if word.endswith("s") else word + "s"
    if draw < 0.95:
        return word.rstrip("e") + rng.choice(("ing", "ed", "er"))
    return word[: max(4, len(word) - 3)]
