"""Names for uploaded files: one component that no shell, header or file system reads as something else."""

import re
import unicodedata
from collections.abc import Iterator

MAX_BYTES = 120
LONGEST_EXTENSION = 20
"""In bytes. What is longer is a part of the name."""
DEFAULT = "file"
ALLOWED = frozenset(" ._-+=@,()[]")
"""Besides letters, marks and numbers of all scripts."""


def cleaned(name: str) -> str:
    """A safe name for a file that a client calls `name`: without folders, in NFC, at most `MAX_BYTES` long, and with
    its extension."""
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(_replaced(character) for character in unicodedata.normalize("NFC", last))
    text = re.sub(r"\s+", " ", shown).lstrip(" .-").rstrip(" .")
    stem, extension = _split(text or DEFAULT)
    return _joined(stem, "", extension)


def numbered(name: str) -> Iterator[str]:
    """`name`, which is cleaned, and then the names that a second and a third file of this name get: `sales.csv`,
    `sales-2.csv`, ..."""
    yield name
    stem, extension = _split(name)
    number = 2
    while True:
        yield _joined(stem, f"-{number}", extension)
        number += 1


def _replaced(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] in "LMN" or character in ALLOWED:
        return character
    if category[0] == "Z":
        return " "
    # Control characters and invisible ones, such as those that change the direction of writing, leave no trace.
    return "" if category[0] == "C" else "_"


def _split(name: str) -> tuple[str, str]:
    """Stem and extension, with its dot; `.tar.gz` is one extension."""
    found = re.fullmatch(r"(.+?)((?:\.tar)?\.[^. ]+)", name, re.IGNORECASE)
    if found is None or len(found[2].encode()) > LONGEST_EXTENSION:
        return name, ""
    return found[1], found[2]


def _joined(stem: str, number: str, extension: str) -> str:
    room = MAX_BYTES - len((number + extension).encode())
    # Bytes of a character that does not fit in full are dropped.
    short = stem.encode()[:room].decode("utf-8", "ignore")
    return f"{short.rstrip(' .') or DEFAULT}{number}{extension}"
