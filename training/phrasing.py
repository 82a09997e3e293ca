"""Question templates, and questions made from them.

The templates have a fixed split by hash: one in seven is held out for evaluation, so that no evaluated question
shares its wording with a training question.
"""

import re
import tomllib
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from training import words

FOLDER = Path(__file__).with_name("phrasings")
#: One template in so many is held out.
HELD_OUT_ONE_IN = 7
_SLOT = re.compile(r"(\{\w+\})")


def read_phrasings(name: str) -> dict[str, Any]:
    """The templates of `phrasings/<name>.toml`: lists, or tables of lists by kind (`imperative`, `question`,
    `phrase`), which decides what may precede them."""
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


OPENINGS = read_phrasings("openings")


def is_held_out(template: str) -> bool:
    return zlib.crc32(template.encode()) % HELD_OUT_ONE_IN == 0


@cache
def _half(templates: tuple[str, ...], held_out: bool) -> tuple[str, ...]:
    """One side of the split. It is never empty: if no template of a list is held out by its hash, the last one is; a
    single template is on both sides."""
    kept = tuple(filter(is_held_out, templates)) or templates[-1:]
    if held_out or len(templates) == 1:
        return kept
    return tuple(template for template in templates if template not in kept) or templates[:-1]


class Phrasing:
    """Makes questions from one side of the split."""

    def __init__(self, rng: Random, held_out: bool) -> None:
        self.rng = rng
        self.held_out = held_out
        self.plain = False
        """Without context around the question, and without typing errors."""

    def pick(self, templates: Sequence[str]) -> str:
        return self.rng.choice(_half(tuple(templates), self.held_out))

    def ask(self, templates: dict[str, Sequence[str]], **slots: str) -> str:
        """A question from templates by kind (`imperative`, `question`, `phrase`). Slots are filled in unchanged.

        Only the words around the slots vary: capitals, typing errors, opening and ending.
        """
        rng = self.rng
        kinds = [kind for kind, options in templates.items() for _ in options]
        kind = rng.choice(kinds)
        opening, ending = self.pick(OPENINGS["openings"][kind]), self.pick(OPENINGS["endings"])
        text = self.pick(templates[kind])
        if self.plain or rng.random() < 0.2:
            opening = ""
        if self.plain:
            ending = rng.choice(("", "?", "."))
        if kind == "question" and rng.random() < 0.5:
            ending = "?"
        if text.endswith("}") and rng.random() < 0.4:
            ending = ""
        return self.as_typed(opening + text).format(**slots) + ending

    def as_typed(self, text: str) -> str:
        """A template, sometimes with a sentence of context, in capitals or with a typing error."""
        rng = self.rng
        draw = 1.0 if self.plain else rng.random()
        if draw < 0.12:
            text = self.pick(OPENINGS["contexts"]) + text
        elif draw < 0.16:
            text = f"{words.plain_fact(rng) if rng.random() < 0.3 else self.pick(OPENINGS['facts'])} {text}"
        if rng.random() < 0.6:
            text = text[:1].upper() + text[1:]
        if not self.plain and rng.random() < 0.02:
            text = "".join(part if part.startswith("{") else part.upper() for part in _SLOT.split(text))
        if not self.plain and rng.random() < 0.05:
            text = self._mistype(text)
        return text

    def _mistype(self, text: str) -> str:
        """Swaps two letters or drops one, in a longer word that is no slot."""
        parts = _SLOT.split(text)
        longer = [
            (number, found)
            for number, part in enumerate(parts)
            if not part.startswith("{")
            for found in re.finditer(r"[a-z]{5,}", part)
        ]
        if not longer:
            return text
        number, found = self.rng.choice(longer)
        place = found.start() + self.rng.randrange(1, len(found.group()) - 1)
        part = parts[number]
        parts[number] = (
            part[:place] + part[place + 1] + part[place] + part[place + 2 :]
            if self.rng.random() < 0.5
            else part[:place] + part[place + 1 :]
        )
        return "".join(parts)
