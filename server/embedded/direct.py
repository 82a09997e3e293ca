"""Questions that no tool is needed for, or that none of the tools on offer fits."""

from collections.abc import Sequence
from random import Random

from server.embedded import words
from server.embedded.examples import Example, ToolSpec
from server.embedded.phrasing import Phrasing, read_phrasings

PHRASINGS = read_phrasings("direct")

NOT_NEEDED = "No tool is needed."
NONE_FITS = "No tool fits."
CANNOT = "None of my tools can answer that."
MY_TOOLS, NO_TOOLS = "My tools: ", "I have no tools."
UNKNOWN = "I do not know that."


def small_talk(phrasing: Phrasing, rng: Random) -> Example:
    answer = rng.choice(tuple(PHRASINGS["small_talk"]))
    text = phrasing.pick(PHRASINGS["small_talk"][answer])
    return Example(_typed(rng, text), answer, thought=NOT_NEEDED)


def chat(phrasing: Phrasing, rng: Random) -> Example:
    """A turn of a conversation without tools."""
    if rng.random() < 0.6:
        example = small_talk(phrasing, rng)
        return Example(example.question, example.answer, kind="chat")
    return Example(outside(phrasing, rng).question, UNKNOWN, kind="chat")


def which_tools(phrasing: Phrasing, rng: Random, tools: Sequence[ToolSpec]) -> Example:
    names = ", ".join(tool.name for tool in tools)
    return Example(
        _typed(rng, phrasing.pick(PHRASINGS["which_tools"])),
        f"{MY_TOOLS}{names}." if names else NO_TOOLS,
        thought=NOT_NEEDED,
    )


def repeat(phrasing: Phrasing, rng: Random) -> Example:
    text = words.passage(rng) if rng.random() < 0.5 else words.phrase(rng)
    mark = rng.choice([mark for mark in ("'", '"', "`") if mark not in text] or [""])
    return Example(
        phrasing.ask({"imperative": [phrasing.pick(PHRASINGS["repeat"]["imperative"])]}, t=mark + text + mark).rstrip(
            "?"
        ),
        text,
        thought=NOT_NEEDED,
    )


def outside(phrasing: Phrasing, rng: Random) -> Example:
    """A question that needs knowledge or a tool that isn't there."""
    if rng.random() < 0.6:
        return Example(phrasing.as_typed(phrasing.pick(PHRASINGS["outside_as_it_is"])), CANNOT, thought=NONE_FITS)
    question = phrasing.ask(
        PHRASINGS["outside"],
        w=words.any_word(rng),
        n=rng.choice(words.NOUNS),
        m=rng.choice(words.PEOPLE),
        p=rng.choice(words.PLACES),
        q=rng.choice(words.PLACES),
        y=str(rng.randint(1900, 2030)),
    )
    return Example(question, CANNOT, thought=NONE_FITS)


def _typed(rng: Random, text: str) -> str:
    if rng.random() < 0.6:
        text = text[:1].upper() + text[1:]
    return text + rng.choice(("", "", "!", ".", "?"))
