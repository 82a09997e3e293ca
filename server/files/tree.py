"""Walking through a session's folder: in bounded time, past everything that is not a regular file."""

import os
import stat
from dataclasses import dataclass, field

from server.files.beneath import FOLDER, open_beneath, opened

MAX_ENTRIES = 10_000
"""Files, folders and everything else that a walk looks at. A session may have fewer files; its code may have written
more."""


@dataclass
class Tree:
    """What a walk has found. `files`: status by path. `left_out`: number of links, special files, folders that can't
    be read, and names that HTTP can't transmit. `is_complete`: false if there are more than `MAX_ENTRIES` entries."""

    files: dict[str, os.stat_result] = field(default_factory=dict)
    left_out: int = 0
    is_complete: bool = True

    @property
    def total_bytes(self) -> int:
        """The size of all files."""
        return sum(status.st_size for status in self.files.values())


def walk(root: int) -> Tree:
    """All regular files below the folder `root`, a descriptor. What changes meanwhile may be found or not."""
    tree, folders, looked_at = Tree(), [""], 0
    while folders:
        path = folders.pop()
        try:
            descriptor = open_beneath(root, path or ".", FOLDER)
        except OSError:
            # Removed meanwhile, replaced by a link, or not readable: code may do all of that.
            tree.left_out += 1
            continue
        with opened(descriptor), os.scandir(descriptor) as entries:
            for entry in entries:
                looked_at += 1
                if looked_at > MAX_ENTRIES:
                    tree.is_complete = False
                    return tree
                name = f"{path}/{entry.name}" if path else entry.name
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # removed since it was listed
                if stat.S_ISDIR(status.st_mode):
                    folders.append(name)
                elif stat.S_ISREG(status.st_mode) and _is_text(name):
                    tree.files[name] = status
                else:
                    tree.left_out += 1
    return tree


def _is_text(name: str) -> bool:
    """Whether the name is UTF-8; other bytes have no place in JSON and in a URL's path."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
