"""Stop sequences: a text ends before the first of them."""

from collections.abc import Iterable


def cut(text: str, stops: Iterable[str]) -> str:
    """`text` up to the stop sequence that is complete first. The result does not depend on how the text was split
    into chunks."""
    found = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(found)[1]] if found else text


def settled(text: str, stops: Iterable[str]) -> str:
    """`text` without an end that may be the beginning of a stop sequence. It contains no complete one."""
    held = max((_overlap(text, stop) for stop in stops), default=0)
    return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """The length of the end of `text` that is the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
