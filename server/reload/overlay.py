"""A person's files: those that lie over the common code in their workspace."""

import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from server.errors import FileNotInWorkspaceError, InvalidPathError, StoreError, TooLargeError
from server.reload.snapshot import MCP_FILE, Snapshot, file_sizes, includes, read_snapshot, too_much_data
from server.workers.failure import LoadError

MOST_FILES = 1000
MOST_BYTES = 16 * 1024 * 1024
"""In one workspace, over all its files."""
LONGEST_PATH = 200
_FOLDERS = ("agent", "tools")  # that may have files of a person
_AT_ROOT = ("model.py", MCP_FILE)
_DATA_NAME = re.compile(r"\w[\w.-]*")


class Overlay:
    """The files below `folder`, which is laid out like `server/`: `tools/shout.py`, `tools/words.csv`, `agent/...`,
    `model.py`, `mcp.json`.

    People with write access to the folder may edit them there as well.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changing = threading.Lock()

    @property
    def exists(self) -> bool:
        """Whether the workspace exists."""
        return os.path.isdir(self.folder)

    def snapshot(self) -> Snapshot:
        """The files as they are now. Raises `LoadError` as `read_snapshot` does, `TooLargeError` for too many."""
        snapshot = read_snapshot(self.folder)
        _check_size(len(snapshot.files), sum(map(len, snapshot.files.values())))
        return snapshot

    def write(self, path: str, data: bytes, check: Callable[[bytes | None], object] | None = None) -> bool:
        """Make or replace a file atomically: readers see the old bytes or the new. Returns whether it is new. The
        permissions of an existing file stay. `check` gets what the file holds before, None if there is none, and may
        raise: then nothing is changed.

        Raises `InvalidPathError`, `TooLargeError` when the workspace would outgrow its bounds, `StoreError`.
        """
        place = self._place(path)
        with self._changing, _disk(f"{path} can't be written"):
            sizes = {**self.sizes(), path: len(data)}
            _check_size(len(sizes), sum(sizes.values()))
            self._check_inside(place, path)
            if check is not None:
                check(place.read_bytes() if place.is_file() else None)
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

    def delete(self, path: str, check: Callable[[bytes | None], object] | None = None) -> None:
        """Remove a file, and the folders that it leaves empty. `check` gets what it holds, and may raise. Raises what
        `read` raises."""
        place = self._existing(path)
        with self._changing, _disk(f"{path} can't be removed"):
            if check is not None:
                check(place.read_bytes())
            place.unlink()
            for folder in place.parents:
                if folder == self.folder or any(folder.iterdir()):
                    break
                folder.rmdir()

    def sizes(self) -> dict[str, int]:
        """The paths of the files that count, code and data, in order, each with its bytes. Raises `StoreError`."""
        with _disk("the workspace can't be listed"):
            return dict(sorted(file_sizes(self.folder).items()))

    def _existing(self, path: str) -> Path:
        """Where that file lies; it may have a name that can't be given here, if somebody put it into the folder.
        Raises `InvalidPathError`, `FileNotInWorkspaceError`, `StoreError`."""
        pure = PurePosixPath(path)
        known = _is_plain(pure, path) and not _is_too_long(path)
        place = self.folder / pure if known else self._place(path)
        self._check_inside(place, path)
        with _disk(f"{path} can't be read"):
            if not place.is_file():
                raise FileNotInWorkspaceError(f"There is no file {path!r} in the workspace.")
        return place

    def _place(self, path: str) -> Path:
        """Where a file of that path lies. Raises `InvalidPathError`."""
        pure = PurePosixPath(path)
        if not (path in _AT_ROOT or _is_below_a_folder(pure)) or path != pure.as_posix() or _is_too_long(path):
            raise InvalidPathError(
                f"No file of a workspace may be called {path[:LONGEST_PATH]!r}. It is model.py, mcp.json, or a "
                "path below tools/ or agent/ like tools/shout.py or tools/words.csv. Folders have Python names, and "
                "so has a .py file. The name of a data file begins with a letter, a digit or _, and has only these "
                f"and . and - in it; byte-code (.pyc) isn't accepted. A path is at most {LONGEST_PATH} bytes long."
            )
        return self.folder / pure

    def _check_inside(self, place: Path, path: str) -> None:
        real, folder = Path(os.path.realpath(place)), Path(os.path.realpath(self.folder))
        if not real.is_relative_to(folder):
            raise InvalidPathError(f"{path!r} leads out of the workspace, over a symbolic link.")


def over(common: Snapshot, own: Snapshot) -> Snapshot:
    """The common files with a person's over them. Raises `LoadError` when their data is too much together."""
    both = Snapshot({**common.files, **own.files}, own.ignored)
    if excess := too_much_data({name: len(data) for name, data in both.files.items()}):
        raise LoadError([excess])
    return both


def _is_below_a_folder(path: PurePosixPath) -> bool:
    *folders, name = path.parts or ("",)
    in_code = bool(folders) and folders[0] in _FOLDERS and all(map(str.isidentifier, folders))
    allowed = path.suffix == ".py" or _DATA_NAME.fullmatch(name) is not None
    # What a snapshot leaves out, such as byte-code, must not be taken only to have no effect.
    return in_code and allowed and includes(path)


def _is_plain(pure: PurePosixPath, path: str) -> bool:
    """Whether a path leads below one of the folders, and nowhere else by its names."""
    in_code = len(pure.parts) > 1 and pure.parts[0] in _FOLDERS
    return in_code and path == pure.as_posix() and ".." not in pure.parts and "\0" not in path


def _is_too_long(path: str) -> bool:
    return len(path.encode()) > LONGEST_PATH


def _check_size(files: int, total: int) -> None:
    if files > MOST_FILES or total > MOST_BYTES:
        raise TooLargeError(
            f"A workspace holds at most {MOST_FILES} files and {MOST_BYTES} bytes; this would be {files} "
            f"files and {total} bytes."
        )


@contextmanager
def _disk(failure: str) -> Iterator[None]:
    """Errors of the file system in this context become a `StoreError` that begins with `failure`."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{failure}: {error.strerror}.") from error
