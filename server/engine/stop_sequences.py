"""Stop sequences: a text ends before the first of them."""

from collections.abc import Iterable


def cut(text: str, stops: Iterable[str]) -> str:
    """`text` up to the stop sequence that is complete first. The result does not depend on how the text was split
    into chunks."""
    return split(text, stops)[0]


def split(text: str, stops: Iterable[str]) -> tuple[str, str | None]:
    """The same, and the stop sequence; None: there is none."""
    found = [(place + len(stop), place, stop) for stop in stops if (place := text.find(stop)) >= 0]
    if not found:
        return text, None
    _, place, stop = min(found)
    return text[:place], stop


def settled(text: str, stops: Iterable[str]) -> str:
    """`text` without an end that may be the beginning of a stop sequence. It contains no complete one."""
    held = max((_overlap(text, stop) for stop in stops), default=0)
    return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """The length of the end of `text` that is the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
