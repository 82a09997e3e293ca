"""Several questions joined into one text, such that a reader can tell where each of them ends."""

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from training.phrasing import Phrasing, read_phrasings
from training.samples import Sample

PHRASINGS = read_phrasings("compound_questions")


def joined(rng: Random, phrasing: Phrasing, singles: Sequence[Sample], kind: str) -> tuple[str, tuple[Sample, ...]]:
    """A text that asks all of `singles`, and these with the exact words that they have in the text."""
    parts, marks = zip(*(_words_and_mark(rng, single) for single in singles), strict=True)
    before, end = _separators(rng, phrasing, [part.question for part in parts], kind)
    capital = rng.random() < 0.5
    if capital and not before[0]:
        opening = parts[0].question
        parts = (replace(parts[0], question=opening[:1].upper() + opening[1:]), *parts[1:])
    text = before[0][:1].upper() + before[0][1:] if capital else before[0]
    for part, mark, after in zip(parts, marks, (*before[1:], end), strict=True):
        text += part.question + mark + (after[1:] if mark and after[:1] in tuple(",.;?!") else after)
    return text, parts


def _words_and_mark(rng: Random, single: Sample) -> tuple[Sample, str]:
    """A question as a plan's step has it, without a mark at its end, and the mark that it has in the text."""
    asked = single.question.strip()
    words = asked.rstrip("?.! ")
    mark = asked[len(words) :].strip()[:1] if rng.random() < 0.2 else ""
    if words[1:2].islower() and rng.random() < 0.6:
        words = words[0].lower() + words[1:]
    return replace(single, question=words), mark


def _separators(rng: Random, phrasing: Phrasing, questions: Sequence[str], kind: str) -> tuple[list[str], str]:
    """The text before each question, and the text after the last one."""
    for _ in range(30):
        if kind in ("sums", "conversions") or rng.random() < 0.35:
            first, between, last, end = phrasing.pick(PHRASINGS[kind]).split("|")
            before = [first, *[between] * (len(questions) - 2), last]
            before = [text.replace("#", str(place)) for place, text in enumerate(before, 1)]
        else:
            before, end = _composed(rng, phrasing, len(questions), kind)
        if all(_separates(between, question) for between in before[1:] for question in questions):
            break
    return before, end


def _composed(rng: Random, phrasing: Phrasing, number: int, kind: str) -> tuple[list[str], str]:
    """Separators made of list marks, of signs, or of connectives, sometimes with a lead-in."""
    draw = rng.random()
    if draw < 0.35:
        glue = rng.choice(("\n", "\n", " ", ", ", "; ", ". "))
        mark = phrasing.pick(PHRASINGS["marks"])
        before = [f"{_list_mark(mark, place)} " for place in range(number)]
    elif draw < 0.5:
        glue = rng.choice(("\n", " ", " ", " ", " "))
        before = ["", *[phrasing.pick(PHRASINGS["signs"]) + " "] * (number - 1)]
    else:
        glue = rng.choice((", ", ", ", "; ", ". ", ". ", "? ", " "))
        before = ["", *_connectives(rng, phrasing, number - 1, glue, kind)]
    before[1:] = [glue + text for text in before[1:]]
    if rng.random() < 0.4:
        before[0] = f"{phrasing.pick(PHRASINGS['lead_ins'])}{rng.choice((' ', glue[-1]))}{before[0]}"
    return before, glue[0] if glue[0] in ".?" else rng.choice(("", "", ".", "?"))


def _connectives(rng: Random, phrasing: Phrasing, number: int, glue: str, kind: str) -> list[str]:
    """`number` connectives ("then", "and also"), all the same or different ones."""
    options = PHRASINGS["go_on" if kind == "side_by_side" else "go_on_with_it"]
    same = rng.random() < 0.5 and phrasing.pick(options)
    texts = [same or phrasing.pick(options) for _ in range(number)]
    texts = [text if text.startswith("and") or rng.random() < 0.8 else f"and {text}" for text in texts]
    if glue[0] in ".?" and rng.random() < 0.8:
        texts = [text[:1].upper() + text[1:] for text in texts]
    if glue[0] in ".?" and rng.random() < 0.5:
        texts = [text if text.endswith(":") else f"{text}," for text in texts]
    if glue != " " and rng.random() < 0.3:
        texts[:-1] = [""] * (number - 1)
    return [text and f"{text} " for text in texts]


def _list_mark(mark: str, place: int) -> str:
    """The mark of the part at `place`, from 0."""
    return mark.format(
        n=place + 1,
        a="abcd"[place],
        A="ABCD"[place],
        i=("i", "ii", "iii", "iv")[place],
        w=("one", "two", "three", "four")[place],
        o=("first", "second", "third", "fourth")[place],
    )


def _separates(between: str, question: str) -> bool:
    """Whether `between` can't be taken for a part of the question. Commas and words may occur in both."""
    if between[0] in ".?!":
        return not re.search(r"[.?!]\s", question)
    return bool(re.search(r"[\w,]", between)) or between.strip(" ") not in question
