"""Counting what a text is made of, and telling its mood."""

from random import Random

from server.embedded import words
from server.embedded.examples import Example
from server.embedded.phrasing import Phrasing, read_phrasings
from server.tools.sentiment import PROMPT

PHRASINGS = read_phrasings("texts")
QUOTES = (("'", "'"), ("'", "'"), ('"', '"'), ('"', '"'), ("“", "”"), ("«", "»"), ("`", "`"), ("‘", "’"))  # noqa: RUF001
CORNERS = {
    "characters": ("characters", "letters", "chars", "signs"),
    "words": ("words",),
    "sentences": ("sentences",),
}


def quoted(rng: Random, text: str) -> str:
    """The text between quotation marks that it does not hold itself."""
    free = [(left, right) for left, right in QUOTES if left not in text and right not in text]
    left, right = rng.choice(free)
    return left + text + right


def statistics_of(text: str) -> str:
    count = max(1, sum(text.count(mark) for mark in ".!?"))
    return f"characters: {len(text)}, words: {len(text.split())}, sentences: {count}"


def statistics(rng: Random, phrasing: Phrasing) -> tuple[str, str, str, str]:
    """A question, the text that it is about, the observation, the answer."""
    text = words.passage(rng)
    observation = statistics_of(text)
    shown = quoted(rng, text)
    draw = rng.random()
    if draw < 0.15:
        return phrasing.ask(PHRASINGS["all"], t=shown), text, observation, observation
    if draw < 0.25:
        return phrasing.ask(PHRASINGS["length"], t=shown), text, observation, str(len(text))
    part = rng.choice(tuple(CORNERS))
    question = phrasing.ask(PHRASINGS["count"], t=shown, u=rng.choice(CORNERS[part]))
    answer = dict(piece.split(": ") for piece in observation.split(", "))[part]
    return question, text, observation, answer


def mood(rng: Random, phrasing: Phrasing) -> tuple[str, str, str]:
    mood_word = rng.choice(("positive", "negative", "neutral"))
    text = words.feeling(rng, mood_word) if rng.random() < 0.7 else words.passage(rng)
    return phrasing.ask(PHRASINGS["mood"], t=quoted(rng, text)), text, mood_word


def mood_example(rng: Random) -> Example:
    """The question that the sentiment tool itself puts to the resident model, with no tools around."""
    mood_word = rng.choice(("positive", "negative", "neutral"))
    return Example(PROMPT + words.feeling(rng, mood_word), mood_word, thought="", kind="plain")
