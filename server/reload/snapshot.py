"""The bytes of a workspace's reloadable files at one moment."""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath

from server.workers.failure import ErrorReport, LoadError, problem

SERVER = "server"
RELOADABLE = ("agent", "model", "tools")
"""The parts of `server` that a generation is made of."""
MCP_FILE = "mcp.json"
"""The MCP servers whose tools belong to the workspace; the one data file beside these parts."""
MOST_DATA_FILES = 1000
MOST_DATA_BYTES = 16 * 1024 * 1024
"""Of all data files of a workspace together."""

_SETTLE_SECONDS = 2.0  # for how long files that keep changing are read again
_PAUSE_SECONDS = 0.005  # between two readings that differ
_FRESH_SECONDS = 0.05  # a file emptied this recently is about to be written
_SAME_TIME_SECONDS = 0.05  # two changes within it may bear the same time
_MOST_LISTED = 10 * MOST_DATA_FILES  # data files; a folder with more is refused without listing the rest
_MOST_NAMED = 3
_MOST_IGNORED = 20


@dataclass(frozen=True)
class Snapshot:
    """File names (posix paths relative to `server/`) and the files' bytes: code (`.py`) and the data beside it.

    `ignored`: the names of files that lie there and are no modules, because nothing can import them; the first few.
    """

    files: Mapping[str, bytes]
    ignored: tuple[str, ...] = field(default=(), compare=False)

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
    """The state of a workspace's files by the file system, which shows a change without reading them.

    Equal stamps mean equal content if the earlier one was `settled`: it was taken some time after the last change, so
    that no later change can have the same time.
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
        for path in _found(root, _reported(root, errors)):
            state = path.stat()
            newest = max(newest, state.st_ctime)
            states.append((str(path), state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino))
            if len(states) > _MOST_LISTED:
                return Stamp(frozenset(states), settled=False)
    except (OSError, _Unsettled):
        return Stamp(frozenset(states), settled=False)
    states += [(error["file"], error["message"]) for error in errors]
    return Stamp(frozenset(states), settled=now - newest > _SAME_TIME_SECONDS)


class _Unsettled(Exception):
    """The files changed while they were read."""


def read_snapshot(root: Path) -> Snapshot:
    """Read the files below `root`, the `server` folder, that `includes` accepts.

    Everything is read twice, and read again until two readings agree, so that no file is taken half-way through a
    change and no two files from different moments. An empty file is believed once it has been empty for a moment:
    editors empty a file before they write it.

    Raises `LoadError`, with a report for each file that can't be read or is a link that leads out of `root`, when
    there is more data than allowed (see `too_much_data`), or when the files never settle.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    before: dict[str, bytes] | None = None
    changing: list[str] = []
    while True:
        ignored: list[str] = []
        try:
            now = _read_all(root, ignored)
        except _Unsettled:
            now = None
        if now is not None and now == before:
            return Snapshot(now, tuple(ignored))
        if now is not None and before is not None:
            changing = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
        if time.monotonic() > deadline:
            raise LoadError([_unsettled(root, changing)])
        if before is not None or now is None:
            time.sleep(_PAUSE_SECONDS)
        before = now


def includes(path: PurePath) -> bool:
    """Whether a file of that path below `server/` belongs to a snapshot, by its names alone.

    These do: at the root `model.py` (and `tools.py` or `agent.py` in the place of a package) and `mcp.json`, and all
    files below `tools/`, `agent/` and `model/`, except hidden names, `__pycache__`, byte-code, what editors leave
    (`x~`, `#x#`), and a `.py` that no import statement can reach (see `is_module`).
    """
    return may_belong(path) and (path.suffix != ".py" or is_module(path))


def is_module(path: PurePath) -> bool:
    """Whether an import statement can reach a `.py` file: its name and those of its folders are identifiers. Copies
    like `shout-Copy1.py` and `shout (1).py` are none."""
    return all(name.isidentifier() for name in path.with_suffix("").parts)


def may_belong(path: PurePath) -> bool:
    """Whether a generation may have such a file; those of earlier versions have names that are no identifiers."""
    parts = path.parts
    if not parts or any(_is_left_out(name) for name in parts):
        return False
    if path.suffix == ".py":
        names = path.with_suffix("").parts
        return names[0] in RELOADABLE and not any("." in name for name in names)
    return parts == (MCP_FILE,) or (len(parts) > 1 and parts[0] in RELOADABLE)


def file_sizes(root: Path) -> dict[str, int]:
    """The sizes in bytes of the files that `read_snapshot` reads, by name, without those that can't be looked at."""
    sizes: dict[str, int] = {}
    for path in _found(root, lambda path, error: None):
        try:
            sizes[path.relative_to(root).as_posix()] = path.stat().st_size
        except OSError:
            continue
    return sizes


def too_much_data(sizes: Mapping[str, int]) -> ErrorReport | None:
    """A report when files of these sizes hold more data than a workspace may; code (`.py`) doesn't count."""
    data = {name: size for name, size in sizes.items() if not name.endswith(".py")}
    total = sum(data.values())
    if len(data) <= MOST_DATA_FILES and total <= MOST_DATA_BYTES:
        return None
    largest = max(data, key=lambda name: (data[name], name))
    count = f"more than {_MOST_LISTED:,}" if len(data) > _MOST_LISTED else f"{len(data):,}"
    return problem(
        f"{SERVER}/{largest}",
        None,
        "TooLargeError",
        f"there are {count} data files of {total:,} bytes beside the code; at most {MOST_DATA_FILES:,} files and "
        f"{MOST_DATA_BYTES:,} bytes are allowed. The largest is {SERVER}/{largest} with {data[largest]:,} bytes. "
        "Keep large data outside of the code's folder and open it by its path.",
    )


def _read_all(root: Path, ignored: list[str]) -> dict[str, bytes]:
    """The files; `ignored` gets the names of those that are no modules."""
    errors: list[ErrorReport] = []
    refuse = _reported(root, errors)
    sizes: dict[str, int] = {}
    paths: dict[str, Path] = {}
    data_files = 0
    for path in _found(root, refuse, ignored):
        name = path.relative_to(root).as_posix()
        try:
            if path.is_symlink():
                _check_inside(path, root)
            state = path.stat()
            if not stat.S_ISREG(state.st_mode):
                raise OSError("not an ordinary file")
        except OSError as error:
            refuse(path, error)
            continue
        sizes[name], paths[name] = state.st_size, path
        data_files += path.suffix != ".py"
        if data_files > _MOST_LISTED:
            break
    # Before anything is read: somebody's data set may lie there.
    if excess := too_much_data(sizes):
        raise LoadError([*errors, excess])
    files: dict[str, bytes] = {}
    for name, path in paths.items():
        try:
            files[name] = _read(path)
        except OSError as error:
            refuse(path, error)
    if errors:
        raise LoadError(errors)
    if too_much_data({name: len(data) for name, data in files.items()}):
        raise _Unsettled  # one has grown since
    return files


def _found(root: Path, refuse: Callable[[Path, OSError], None], ignored: list[str] | None = None) -> Iterator[Path]:
    """The files below `root` that `includes` accepts. `refuse` is called with what can't be looked at. `ignored` gets
    the names of the first files that are no modules."""
    folders: list[tuple[Path, frozenset[Path]]] = [(root, frozenset())]
    while folders:
        folder, above = folders.pop()
        try:
            real = _check_inside(folder, root)
            if real in above:
                raise OSError("a link that leads back to a folder that holds it")
            paths = sorted(folder.iterdir())
        except OSError as error:
            refuse(folder, error)
            continue
        for path in paths:
            if _is_left_out(path.name) or (folder == root and not _is_part(path.name)):
                continue
            try:
                is_folder = path.is_dir()
            except OSError as error:
                refuse(path, error)
                continue
            if is_folder:
                if folder != root or path.name in RELOADABLE:
                    folders.append((path, above | {real}))
            elif includes(name := path.relative_to(root)):
                yield path
            elif ignored is not None and name.suffix == ".py" and len(ignored) < _MOST_IGNORED:
                ignored.append(name.as_posix())


def _is_part(name: str) -> bool:
    """Whether a file or folder of that name at the root belongs to a generation."""
    return name == MCP_FILE or name.removesuffix(".py") in RELOADABLE


def _is_left_out(name: str) -> bool:
    return (
        name.startswith(".")
        or name == "__pycache__"
        or name.endswith((".pyc", "~"))
        or (name.startswith("#") and name.endswith("#"))
    )


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


def _reported(root: Path, errors: list[ErrorReport]) -> Callable[[Path, OSError], None]:
    return lambda path, error: errors.append(_unreadable(path, root, error))


def _unsettled(root: Path, changing: list[str]) -> ErrorReport:
    """A report that names the files that differed between the last readings, if any were read whole."""
    names = ", ".join(f"{SERVER}/{name}" for name in changing[:_MOST_NAMED])
    more = f" and {len(changing) - _MOST_NAMED} more" if len(changing) > _MOST_NAMED else ""
    message = f"the files in {root} keep changing{f' ({names}{more})' if names else ''}: reload again"
    return problem(f"{SERVER}/{changing[0]}" if changing else None, None, "UnsettledFilesError", message)


def _read(path: Path) -> bytes:
    with open(path, "rb", opener=_open_at_once) as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise OSError("not an ordinary file")
        # Bounded, since a data file may have grown since its size was looked at.
        data = file.read(-1 if path.suffix == ".py" else MOST_DATA_BYTES + 1)
    if not data and 0 <= time.time() - state.st_mtime < _FRESH_SECONDS:
        raise _Unsettled
    return data


def _open_at_once(path: str, flags: int) -> int:
    # Not blocking: opening a pipe that nobody writes to would wait for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
