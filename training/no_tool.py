"""Samples without a tool call: small talk, questions that no listed tool fits, and the mood of a text."""

from collections.abc import Sequence
from random import Random

from server.tools.sentiment import PROMPT
from training import words
from training.phrasing import Phrasing, read_phrasings
from training.samples import Sample, ToolSpec

PHRASINGS = read_phrasings("no_tool")

NOT_NEEDED = "No tool is needed."
NONE_FITS = "No tool fits."
CANNOT = "None of my tools can answer that."
MY_TOOLS, NO_TOOLS = "My tools: ", "I have no tools."
UNKNOWN = "I do not know that."


def small_talk(phrasing: Phrasing, rng: Random) -> Sample:
    answer = rng.choice(tuple(PHRASINGS["small_talk"]))
    text = phrasing.pick(PHRASINGS["small_talk"][answer])
    return Sample(_typed(rng, text), answer, thought=NOT_NEEDED)


def chat(phrasing: Phrasing, rng: Random) -> Sample:
    """A message to the `chat` agent, which has no tools."""
    if rng.random() < 0.6:
        sample = small_talk(phrasing, rng)
        return Sample(sample.question, sample.answer, kind="chat")
    return Sample(outside(phrasing, rng).question, UNKNOWN, kind="chat")


def which_tools(phrasing: Phrasing, rng: Random, tools: Sequence[ToolSpec]) -> Sample:
    names = ", ".join(tool.name for tool in tools)
    return Sample(
        _typed(rng, phrasing.pick(PHRASINGS["which_tools"])),
        f"{MY_TOOLS}{names}." if names else NO_TOOLS,
        thought=NOT_NEEDED,
    )


def repeat(phrasing: Phrasing, rng: Random) -> Sample:
    text = words.passage(rng) if rng.random() < 0.5 else words.phrase(rng)
    mark = rng.choice([mark for mark in ("'", '"', "`") if mark not in text] or [""])
    return Sample(
        phrasing.ask({"imperative": [phrasing.pick(PHRASINGS["repeat"]["imperative"])]}, t=mark + text + mark).rstrip(
            "?"
        ),
        text,
        thought=NOT_NEEDED,
    )


def outside(phrasing: Phrasing, rng: Random) -> Sample:
    """A question that needs knowledge, or a tool that isn't listed."""
    if rng.random() < 0.6:
        return Sample(phrasing.as_typed(phrasing.pick(PHRASINGS["outside_as_it_is"])), CANNOT, thought=NONE_FITS)
    question = phrasing.ask(
        PHRASINGS["outside"],
        w=words.any_word(rng),
        n=rng.choice(words.NOUNS),
        m=rng.choice(words.PEOPLE),
        p=rng.choice(words.PLACES),
        q=rng.choice(words.PLACES),
        y=str(rng.randint(1900, 2030)),
    )
    return Sample(question, CANNOT, thought=NONE_FITS)


def _typed(rng: Random, text: str) -> str:
    if rng.random() < 0.6:
        text = text[:1].upper() + text[1:]
    return text + rng.choice(("", "", "!", ".", "?"))


def mood_sample(rng: Random) -> Sample:
    """The prompt that the sentiment tool itself sends to the model."""
    mood_word = rng.choice(("positive", "negative", "neutral"))
    return Sample(PROMPT + words.feeling(rng, mood_word), mood_word, thought="", kind="mood")
