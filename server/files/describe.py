"""Files in the words of a prompt."""

from collections.abc import Sequence

from server.files.media_types import short_name
from server.files.placement import SavedFile

UNITS = ("kB", "MB", "GB", "TB")


def describe(files: Sequence[SavedFile]) -> str:
    """The line that a question ends with when files came with it: their names, kinds and sizes. Empty without
    files."""
    if not files:
        return ""
    # The same file may have come twice.
    return "Files in this session: " + ", ".join(dict.fromkeys(_described(file) for file in files))


def _described(file: SavedFile) -> str:
    renamed = "" if file.name == file.uploaded_as else f"; uploaded as {_plain(file.uploaded_as)}"
    return f"{file.name} ({short_name(file.type)}, {_size(file.bytes)}{renamed})"


def _plain(name: str) -> str:
    """A client's name for a file in one short line."""
    text = "".join(character if character.isprintable() else "?" for character in name)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _size(number: int) -> str:
    if number < 1000:
        return f"{number} B"
    size = float(number)
    for unit in UNITS:
        size /= 1000
        if size < 999.5 or unit == UNITS[-1]:
            break
    return f"{size:.1f} {unit}" if size < 100 else f"{size:.0f} {unit}"
