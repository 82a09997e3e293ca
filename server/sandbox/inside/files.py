"""What a cell has changed in the session's folder."""

import os
from pathlib import Path

MOST_FILES = 2000
MOST_REPORTED = 50


class Listing:
    """The files of a folder, at one moment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._read()

    def changes(self) -> list[str]:
        """The files that are new or have changed since, by their path in the folder; the first `MOST_REPORTED`."""
        now = self._read()
        return sorted(path for path, seen in now.items() if self._seen.get(path) != seen)[:MOST_REPORTED]

    def _read(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of at most `MOST_FILES` files."""
        found: dict[str, tuple[int, int]] = {}
        for folder, subfolders, names in os.walk(self._folder):
            subfolders[:] = sorted(name for name in subfolders if name != "__pycache__")
            for name in names:
                path = os.path.join(folder, name)
                try:
                    status = os.lstat(path)
                except OSError:
                    continue
                found[os.path.relpath(path, self._folder)] = (status.st_size, status.st_mtime_ns)
                if len(found) >= MOST_FILES:
                    return found
        return found
