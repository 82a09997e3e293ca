"""The index of a session's saved variables: a file that the session's code can change, and a later interpreter reads
before it runs code."""

import json
import os
import stat
from pathlib import Path
from typing import Any

INDEX = "variables.json"
MOST_BYTES = 256 * 2**20
LONGEST_NAME = 100


class DamagedError(Exception):
    """The index can't be read. The message says why."""


class TooLargeError(Exception):
    """The index would be larger than one that is read."""


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """What is saved of each variable: `number` (of its folder), `value` and `about`; empty if there is no index.
    Never waits. Raises `DamagedError`."""
    if folder.is_symlink():
        raise DamagedError(f"{folder.name} is a link")
    try:
        opened = os.open(folder / INDEX, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DamagedError(f"{INDEX} can't be opened: {error.strerror}") from None
    try:
        found = json.loads(_content(opened))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise DamagedError(f"{INDEX} can't be read: {type(error).__name__}") from None
    finally:
        os.close(opened)
    if not isinstance(found, dict) or not all(map(_is_entry, found.items())):
        raise DamagedError(f"{INDEX} has another structure")
    return found


def write(folder: Path, entries: dict[str, dict[str, Any]]) -> None:
    """Replace the index in one step. Raises OSError, and `TooLargeError`."""
    text = json.dumps(entries, allow_nan=False)
    if len(text) > MOST_BYTES:
        raise TooLargeError(f"all variables together are larger than {MOST_BYTES >> 20} MiB as text")
    draft = folder / f"{INDEX}.new"
    draft.write_text(text)
    os.replace(draft, folder / INDEX)


def last_number(folder: Path) -> int:
    """The highest number that a variable's folder has; 0 if there is none."""
    try:
        return max((int(name) for name in os.listdir(folder) if name.isdecimal() and len(name) < 10), default=0)
    except OSError:  # saving a variable will say why
        return 0


def set_aside(folder: Path) -> None:
    """Rename the folder of saved variables, which is damaged, so that the session continues with a new one. Raises
    OSError."""
    number = 1
    while os.path.lexists(aside := folder.with_name(f"{folder.name}.damaged.{number}")):
        number += 1
    if os.path.lexists(folder):
        os.rename(folder, aside)


def _content(opened: int) -> bytes:
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode):
        raise DamagedError(f"{INDEX} is no file")
    if status.st_size > MOST_BYTES:
        raise DamagedError(f"{INDEX} has more than {MOST_BYTES >> 20} MiB")
    with open(opened, "rb", closefd=False) as file:
        return file.read(MOST_BYTES)


def _is_entry(item: tuple[str, Any]) -> bool:
    name, entry = item
    if len(name) > LONGEST_NAME or not isinstance(entry, dict) or entry.keys() != {"number", "value", "about"}:
        return False
    number = entry["number"]
    return type(number) is int and 0 < number < 10**9 and isinstance(entry["about"], dict)
