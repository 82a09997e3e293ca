"""A person's files: those that lie over the common code in their workspace."""

import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from server.errors import FileNotInWorkspaceError, InvalidPathError, StoreError, TooLargeError
from server.reload.naming import RELOADABLE
from server.reload.snapshot import Snapshot, read_snapshot

MOST_FILES = 1000
MOST_BYTES = 16 * 1024 * 1024
"""In one workspace, over all its files."""
LONGEST_PATH = 200
_PART = re.compile(r"[^\W\d]\w*")


class Overlay:
    """The files below `folder`, which is laid out like `server/`: `tools/shout.py`, `agent/...`, `model.py`.

    Whoever may write to the folder may edit them there as well.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changing = threading.Lock()

    @property
    def exists(self) -> bool:
        """Whether the workspace was ever made."""
        return os.path.isdir(self.folder)

    def snapshot(self) -> Snapshot:
        """The files as they are now. Raises `LoadError` as `read_snapshot` does, `TooLargeError` for too many."""
        snapshot = read_snapshot(self.folder)
        _check_size(len(snapshot.files), sum(map(len, snapshot.files.values())))
        return snapshot

    def write(self, path: str, data: bytes) -> bool:
        """Make or replace a file, at once: whoever reads it sees the old bytes or the new. Returns whether it is new;
        if not, whoever might read and write it still may.

        Raises `InvalidPathError`, `TooLargeError` when the workspace would outgrow its bounds, `StoreError`.
        """
        place = self._place(path)
        with self._changing, _disk(f"{path} can't be written"):
            sizes = {**self.sizes(), path: len(data)}
            _check_size(len(sizes), sum(sizes.values()))
            self._check_inside(place, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            before = place.stat() if place.exists() else None
            # The draft's name is hidden, so that no snapshot takes it.
            draft = place.with_name(f".{secrets.token_hex(8)}")
            try:
                with open(draft, "xb") as file:
                    if before is not None:
                        draft.chmod(stat.S_IMODE(before.st_mode))
                        with suppress(OSError):  # only root may give a file away
                            os.chown(draft, before.st_uid, before.st_gid)
                    file.write(data)
                os.replace(draft, place)
            except OSError:
                draft.unlink(missing_ok=True)
                raise
        return before is None

    def read(self, path: str) -> bytes:
        """What a file holds. Raises `InvalidPathError`, `FileNotInWorkspaceError`, `StoreError`."""
        place = self._existing(path)
        with _disk(f"{path} can't be read"):
            return place.read_bytes()

    def delete(self, path: str) -> None:
        """Remove a file, and the folders that it leaves empty. Raises what `read` raises."""
        place = self._existing(path)
        with self._changing, _disk(f"{path} can't be removed"):
            place.unlink()
            for folder in place.parents:
                if folder == self.folder or any(folder.iterdir()):
                    break
                folder.rmdir()

    def sizes(self) -> dict[str, int]:
        """The files' paths, in order, each with its bytes. Raises `StoreError`."""
        with _disk("the workspace can't be listed"):
            found = ((path.relative_to(self.folder), path) for path in sorted(self.folder.rglob("*.py")))
            return {
                name.as_posix(): path.stat().st_size
                for name, path in found
                if path.is_file() and not any(part.startswith(".") for part in name.parts)
            }

    def _existing(self, path: str) -> Path:
        place = self._place(path)
        self._check_inside(place, path)
        with _disk(f"{path} can't be read"):
            if not place.is_file():
                raise FileNotInWorkspaceError(f"There is no file {path!r} in the workspace.")
        return place

    def _place(self, path: str) -> Path:
        """Where a file of that path lies. Raises `InvalidPathError`."""
        pure = PurePosixPath(path)
        names = [*pure.parts[:-1], pure.stem]
        in_part = len(names) > 1 and names[0] in RELOADABLE and names[0] != "model"
        if (
            len(path.encode()) > LONGEST_PATH
            or path != pure.as_posix()
            or pure.suffix != ".py"
            or not all(_PART.fullmatch(name) and name != "__pycache__" for name in names)
            or not (in_part or path == "model.py")
        ):
            raise InvalidPathError(
                f"No file of a workspace may be called {path[:LONGEST_PATH]!r}. It is model.py, or a path like "
                "tools/shout.py below tools/ or agent/, of Python names with / between and .py at the end, and at "
                f"most {LONGEST_PATH} bytes long."
            )
        return self.folder / pure

    def _check_inside(self, place: Path, path: str) -> None:
        real, folder = Path(os.path.realpath(place)), Path(os.path.realpath(self.folder))
        if not real.is_relative_to(folder):
            raise InvalidPathError(f"{path!r} leads out of the workspace, over a symbolic link.")


def over(common: Snapshot, own: Snapshot, folder: Path) -> Snapshot:
    """The common code with a person's files, which lie in `folder`, over it."""
    return Snapshot({**common.files, **own.files}, folders=dict.fromkeys(own.files, folder))


def _check_size(files: int, total: int) -> None:
    if files > MOST_FILES or total > MOST_BYTES:
        raise TooLargeError(
            f"A workspace holds at most {MOST_FILES} files and {MOST_BYTES} bytes; this would be {files} "
            f"files and {total} bytes."
        )


@contextmanager
def _disk(failure: str) -> Iterator[None]:
    """What the file system refuses within it becomes a `StoreError` that begins with `failure`."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{failure}: {error.strerror}.") from error
