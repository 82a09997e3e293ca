"""The bytes of a workspace's reloadable files at one moment."""

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from server.reload.failure import ErrorReport, LoadError, problem
from server.reload.naming import RELOADABLE, SERVER

_SETTLE_SECONDS = 2.0  # for how long files that keep changing are read again
_PAUSE_SECONDS = 0.005  # between two readings that differ
_FRESH_SECONDS = 0.05  # a file emptied this recently is about to be written
_SAME_TIME_SECONDS = 0.05  # two changes within it may bear the same time


@dataclass(frozen=True)
class Snapshot:
    """File names (posix paths relative to `server/`) and what the files held.

    `folders` says of some in which folder they lie, where that isn't the workspace's own. It is no part of the
    content: two snapshots of the same files are equal wherever they lie.
    """

    files: Mapping[str, bytes]
    folders: Mapping[str, Path] = field(default_factory=dict, compare=False)

    @cached_property
    def hash(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 over all names and bytes."""
        digest = hashlib.sha256()
        for name, data in sorted(self.files.items()):
            for part in (os.fsencode(name), data):
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
        return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Stamp:
    """What the file system says of a workspace's files, by which a change is noticed without reading them.

    A stamp that equals an earlier one stands for the same content, if the earlier one was `settled`: some time had
    passed since the last change when it was taken, so that no later change can bear the same time.
    """

    states: frozenset[tuple[object, ...]]
    settled: bool = field(compare=False)


def read_stamp(root: Path) -> Stamp:
    """The stamp of the files that `read_snapshot` reads. The time of change is the system's own, which no program
    can set back."""
    errors: list[ErrorReport] = []
    states: list[tuple[object, ...]] = []
    now, newest = time.time(), 0.0
    try:
        for path in _found(root, errors):
            state = path.stat()
            newest = max(newest, state.st_ctime)
            states.append((str(path), state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino))
    except (OSError, _Unsettled):
        return Stamp(frozenset(states), settled=False)
    states += [(error["file"], error["message"]) for error in errors]
    return Stamp(frozenset(states), settled=now - newest > _SAME_TIME_SECONDS)


class _Unsettled(Exception):
    """The files changed while they were read."""


def read_snapshot(root: Path) -> Snapshot:
    """Read `model.py`, `tools/**/*.py` and `agent/**/*.py` below `root`, the `server` folder.

    Hidden names, `__pycache__` and names that no import statement can reach (with another dot in them) are
    left out. Everything is read twice, and read again until two readings agree, so that no file is taken
    half-way through a change and no two files from different moments. An empty file is believed once it has
    been empty for a moment: editors empty a file before they write it.

    Raises `LoadError`, with a report for each file that can't be read or is a link that leads out of `root`,
    or when the files never settle.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    before: dict[str, bytes] | None = None
    while True:
        try:
            now = _read_all(root)
        except _Unsettled:
            now = None
        if now is not None and now == before:
            return Snapshot(now)
        if time.monotonic() > deadline:
            raise LoadError(
                [problem(None, None, "UnsettledFilesError", f"the files in {root} keep changing: reload again")]
            )
        if before is not None or now is None:
            time.sleep(_PAUSE_SECONDS)
        before = now


def _read_all(root: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    errors: list[ErrorReport] = []
    for path in _found(root, errors):
        try:
            if path.is_symlink():
                _check_inside(path, root)
            files[path.relative_to(root).as_posix()] = _read(path)
        except OSError as error:
            errors.append(_unreadable(path, root, error))
    if errors:
        raise LoadError(errors)
    return files


def _found(root: Path, errors: list[ErrorReport]) -> Iterator[Path]:
    """The reloadable files below `root`. What can't be looked at is added to `errors`."""
    folders: list[tuple[Path, frozenset[Path]]] = [(root, frozenset())]
    while folders:
        folder, above = folders.pop()
        try:
            real = _check_inside(folder, root)
            if real in above:
                raise OSError("a link that leads back to a folder that holds it")
            paths = sorted(folder.iterdir())
        except OSError as error:
            errors.append(_unreadable(folder, root, error))
            continue
        for path in paths:
            name = path.name.removesuffix(".py")
            if path.name.startswith(".") or "." in name or path.name == "__pycache__":
                continue
            if folder == root and name not in RELOADABLE:
                continue
            try:
                is_folder = path.is_dir()
            except OSError as error:
                errors.append(_unreadable(path, root, error))
                continue
            if not is_folder and path.suffix == ".py":
                yield path
            elif is_folder and path.suffix == "":
                folders.append((path, above | {real}))


def _check_inside(path: Path, root: Path) -> Path:
    real, real_root = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    if not real.is_relative_to(real_root):
        raise OSError(f"a link that leads out of {real_root}, to {real}")
    return real


def _unreadable(path: Path, root: Path, error: OSError) -> ErrorReport:
    """A report about a file or folder; not for one that was there when its folder was listed and is gone."""
    if path == root:
        return problem(None, None, type(error).__name__, f"{root} can't be read: {error.strerror or error}")
    if isinstance(error, FileNotFoundError) and not path.is_symlink():
        raise _Unsettled from None
    name = f"{SERVER}/{path.relative_to(root).as_posix()}"
    reason = "a link that leads nowhere" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
    return problem(name, None, type(error).__name__, f"can't be read: {reason}")


def _read(path: Path) -> bytes:
    with open(path, "rb", opener=_open_at_once) as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise OSError("not an ordinary file")
        data = file.read()
    if not data and 0 <= time.time() - state.st_mtime < _FRESH_SECONDS:
        raise _Unsettled
    return data


def _open_at_once(path: str, flags: int) -> int:
    # Not blocking: opening a pipe that nobody writes to would wait for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
