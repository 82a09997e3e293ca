"""The bound of every text that people's code makes: of a step, an answer, an error, a line of the log."""

from typing import Any

LONGEST_TEXT = 200_000
"""Characters. More than a model writes in one answer, and a large table."""


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """`text`; if it is longer than `longest` characters, with a note of how many are missing in its middle."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"


def bounded(value: Any, longest: int = LONGEST_TEXT) -> Any:
    """A JSON value with every text in it shortened."""
    match value:
        case str():
            return shortened(value, longest)
        case dict():
            return {bounded(name, longest): bounded(one, longest) for name, one in value.items()}
        case list() | tuple():
            return [bounded(one, longest) for one in value]
    return value


def characters(value: Any) -> int:
    """How many characters the texts of a JSON value have; every other value counts as one."""
    match value:
        case str():
            return len(value)
        case dict():
            return sum(len(name) + characters(one) for name, one in value.items())
        case list() | tuple():
            return sum(map(characters, value))
    return 1
