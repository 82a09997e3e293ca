"""Texts at which another text ends, and that are no part of it."""

from collections.abc import Iterable


def cut(text: str, stops: Iterable[str]) -> str:
    """`text` up to where that of `stops` begins that is the first to be complete: the same in whatever
    pieces the text comes."""
    found = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(found)[1]] if found else text


def settled(text: str, stops: Iterable[str]) -> str:
    """`text` without what may turn out to be the beginning of one of `stops`, which is not in it."""
    held = max((_overlap(text, stop) for stop in stops), default=0)
    return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
