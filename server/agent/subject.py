"""The words that say what a question is about, and how many of them a text has."""

import re
import unicodedata

WORD = re.compile(r"[^\W_]+")
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")
"""Scripts without spaces between words: two characters in a row stand for a word."""
LEAST_STEM = 4
ENDING = re.compile(
    r"(?:ations?|ments?|ings?|ities|ity|ives?|ically|ically|als?|ables?|ness|ers?|ors?|est|ed|es|en|em|e|s|y|ly)$"
)
STOP_WORDS = frozenset(
    "a about an and any are as at be been but by can could did do does for from get give had has have he her him his "
    "how i if in into is it its just know let me my need no not of off on or our out please s she should so some t "
    "tell than that the their them then there these they this those to too up us was we were what when where which "
    "who whom whose why will with would you your does must may might shall between each much many more most other "
    "such used use using explain describe mean means called say says said according find "
    "large big small long short high low deep wide old fast slow often far "
    "document documents file files page pages passage text pdf paper report summarise summarize summary "
    "aber als am an auch auf aus bei bin bis da das dass dem den der des die doch ein eine einem einen einer eines "
    "er es für hat hatte ich ihr im in ist ja kann man mit nach nicht noch nur ob oder sein sich sie sind so über um "
    "und uns von vom vor war was welche welcher welches wenn wer wie wir wird wo zu zum zur warum wieviel viele "
    "erkläre bedeutet".split()
)


def subject_words(text: str) -> frozenset[str]:
    """The stems of the words of `text` that say something about its subject, numbers included."""
    return frozenset(_stem(word) for word in _words(text) if word not in STOP_WORDS)


def common_share(wanted: frozenset[str], text: str) -> float:
    """The share of the stems `wanted` that `text` has, from 0 to 1; 0 if none is wanted."""
    return len(wanted & frozenset(map(_stem, _words(text)))) / len(wanted) if wanted else 0.0


def _words(text: str) -> list[str]:
    found: list[str] = []
    for match in WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
        word = match.group()
        if UNSPACED.search(word):
            found += [word[at : at + 2] for at in range(max(len(word) - 1, 1))]
        elif len(word) > 1 or word.isdigit():
            found.append(word)
    return found


def _stem(word: str) -> str:
    """A word without its ending: many words of one family become one, not all."""
    if (found := ENDING.search(word)) is not None and found.start() >= LEAST_STEM:
        return word[: found.start()]
    return word
