"""The files of generations as real files, from which workers import them under their ordinary names."""

import errno
import importlib.machinery
import os
import re
import secrets
import shutil
import stat
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from server.errors import StoreError
from server.reload.snapshot import SERVER, Snapshot, may_belong

_PACKAGE = b'''"""The code of one generation; the other modules of `server` come from where Hearth is installed."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
'''
"""`server/__init__.py` of each generation. A process that people's code starts has the generation's folder and the
installed Hearth on `sys.path`; this joins the two `server` packages there, the generation's files first."""

_GENERATION = re.compile(r"[0-9a-f]{12}")
_DRAFT, _DISCARDED = ".draft-", ".discarded-"
_DRAFT_SECONDS = 3600.0
"""Age after which a draft belongs to a server that ended while it wrote."""
_ATTEMPTS = 5  # to put a folder where others keep putting damaged ones
_BYTE_CODE = (".pyc",)
_NUMBA = (".nbi", ".nbc")
_IMPORTABLE = tuple(importlib.machinery.all_suffixes())


class CodeFolders:
    """Generations below `folder`, each in a folder named by its hash. Any number of threads, and of servers, may use
    the same ones.

    The files of a generation are read-only and don't change. Its folders are writable: Python and numba cache what
    they compile in `__pycache__` there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.abspath(folder))  # it gets on `sys.path` of processes that may change folders
        self._using = threading.Lock()
        """Guards the time of a folder's last use, and discarding folders by it."""
        self._replacing = threading.Lock()
        """Guards the replacement of a damaged folder."""

    def write(self, snapshot: Snapshot, like: str | None = None) -> Path:
        """The folder of that generation, ready to be put first on `sys.path`: `<folder>/<hash>/server/tools/...`.

        It is written completely or not at all. One that is there already is used as it is if it has all the files
        with the same bytes, and no other file that could be imported; else it is replaced. So a crash of the machine
        does no lasting damage, and nothing waits for the disk.

        `like` is the hash of an earlier generation. Files that are the same in it become hard links to its files,
        with the same time of change, and so does what Python and numba have cached for them. So an edit of one file
        costs no other file its cache. Numba's cache of a file is left out when the file mentions a module or a data
        file that differs, directly or through others: numba compiles into a function what that calls, and doesn't
        notice when it changes.

        Raises `StoreError` when the disk refuses, or when the snapshot has a path that no snapshot of files has.
        """
        generation = snapshot.hash
        target = self._folder / generation
        files = _laid_out(snapshot)
        with _disk(f"The code of generation {generation} can't be written below {self._folder}"):
            if self._use(target) and _holds(target, files):
                return target
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = self._new_name(_DRAFT)
            try:
                earlier = self._folder / like if like is not None and _GENERATION.fullmatch(like) else None
                _write_all(draft, files, earlier)
                _mark_used(draft)
                self._place(draft, target, files)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return target

    def remove(self, generation: str) -> None:
        """Remove the folder of a generation, if there is one. Raises `StoreError`."""
        if _GENERATION.fullmatch(generation):
            with _disk(f"The code of generation {generation} can't be removed"):
                self._discard(self._folder / generation)

    def present(self) -> list[str]:
        """The hashes of the generations that have a folder, in order. Raises `StoreError`."""
        with _disk(f"{self._folder} can't be listed"):
            return sorted(name for name in self._names() if _GENERATION.fullmatch(name))

    def trim(self, in_use: Collection[str], most: int = 200) -> None:
        """Remove the least recently used folders, except those `in_use` and `most` others, and drafts of servers that
        ended while they wrote. Raises `StoreError`.

        Servers that share a folder don't know what the others use: `most` is to be more than that.
        """
        with _disk(f"{self._folder} can't be tidied up"):
            used = {one: self._last_use(one) for one in self.present() if one not in in_use}
            for generation in sorted(used, key=lambda one: used[one])[: max(0, len(used) - most)]:
                self._discard(self._folder / generation, unless_used_since=used[generation])
            for name in self._names():
                place = self._folder / name
                if name.startswith(_DISCARDED) or (name.startswith(_DRAFT) and _age(place) > _DRAFT_SECONDS):
                    shutil.rmtree(place, ignore_errors=True)

    def _place(self, draft: Path, target: Path, files: Mapping[str, bytes]) -> None:
        """Rename `draft` to `target`, unless another has just written it."""
        with self._replacing:
            for _ in range(_ATTEMPTS):
                try:
                    os.rename(draft, target)
                    return
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                        raise
                if self._use(target) and _holds(target, files):
                    return
                self._discard(target)
        raise OSError(errno.EBUSY, "other processes keep changing its files")

    def _use(self, target: Path) -> bool:
        """Note that a folder is used now. Returns whether it is there."""
        with self._using:
            try:
                _mark_used(target)
            except FileNotFoundError:
                return False
        return True

    def _discard(self, target: Path, unless_used_since: int | None = None) -> None:
        gone = self._new_name(_DISCARDED)
        with self._using:
            if unless_used_since is not None and self._last_use(target.name) != unless_used_since:
                return
            try:
                # At once: nobody may find half of it.
                os.rename(target, gone)
            except FileNotFoundError:
                return
        if gone.is_dir() and not gone.is_symlink():
            shutil.rmtree(gone, ignore_errors=True)
        else:
            gone.unlink(missing_ok=True)

    def _last_use(self, generation: str) -> int:
        try:
            return os.stat(self._folder / generation).st_mtime_ns
        except FileNotFoundError:
            return 0

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except FileNotFoundError:
            return []

    def _new_name(self, beginning: str) -> Path:
        return self._folder / f"{beginning}{secrets.token_hex(8)}"


def _mark_used(folder: Path) -> None:
    # The time of the file system's own clock is the same for some milliseconds.
    now = time.time_ns()
    os.utime(folder, ns=(now, now))


def _laid_out(snapshot: Snapshot) -> dict[str, bytes]:
    """All files of a generation's folder by their path in it. Raises `StoreError`."""
    files = {f"{SERVER}/__init__.py": _PACKAGE}
    for name, data in snapshot.files.items():
        path = PurePosixPath(name)
        # The names may come out of a database, and none may lead out of the folder.
        if path.as_posix() != name or "\0" in name or not may_belong(path):
            raise StoreError(
                f"The code of generation {snapshot.hash} has a file that no code may have: {name[:200]!r}."
            )
        files[f"{SERVER}/{name}"] = data
    return files


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Whether `folder` has these files, and no others that can be imported. Tools may have written other data."""
    missing = set(files)
    beginning = len(os.path.join(folder, ""))
    for place, folders, names in os.walk(folder):
        if "__pycache__" in folders:
            folders.remove("__pycache__")
        for name in names:
            full = os.path.join(place, name)
            path = full[beginning:]
            if path in missing:
                if not _has(full, files[path]):
                    return False
                missing.remove(path)
            elif name.endswith(_IMPORTABLE):
                return False
    return not missing


def _has(file: str, data: bytes) -> bool:
    """Whether that is an ordinary file with these bytes."""
    try:
        state = os.lstat(file)
        if not stat.S_ISREG(state.st_mode) or state.st_size != len(data):
            return False
        with open(file, "rb") as opened:
            return opened.read() == data
    except OSError:
        return False


def _write_all(folder: Path, files: Mapping[str, bytes], earlier: Path | None) -> None:
    """Write `files` into a new `folder`, those that are the same in `earlier` as links to that."""
    made: set[str] = set()
    linked: list[str] = []
    for path, data in files.items():
        place = os.path.join(folder, path)
        parent = os.path.dirname(place)
        if parent not in made:
            os.makedirs(parent, exist_ok=True)
            made.add(parent)
        if earlier is not None and _has(source := os.path.join(earlier, path), data) and _link(source, place):
            linked.append(path)
            continue
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as file:
            file.write(data)
    if earlier is not None:
        # A cache is valid by the size and the time of change of its file, so only links may have one: a file that
        # was written now may have both in common with another text.
        _share_caches(earlier, folder, linked, files)


def _link(source: str, place: str) -> bool:
    try:
        if os.lstat(source).st_mode & 0o222:  # somebody wants to write to it
            return False
        os.link(source, place, follow_symlinks=False)
    except OSError:  # not every file system has links, and none has any number of them
        return False
    return True


def _share_caches(earlier: Path, folder: Path, linked: Iterable[str], files: Mapping[str, bytes]) -> None:
    """Link what is cached in `earlier` for the files that `folder` has from there."""
    stems: dict[str, set[str]] = defaultdict(set)
    for path in linked:
        place, name = os.path.split(path)
        if name.endswith(".py"):
            stems[place].add(name.removesuffix(".py"))
    dependent: set[str] | None = None
    for place, own in stems.items():
        caches = os.path.join(place, "__pycache__")
        try:
            found = os.listdir(earlier / caches)
        except OSError:  # most likely nothing is cached there
            continue
        os.mkdir(folder / caches)
        for name in found:
            stem = name.partition(".")[0]
            if stem not in own or not name.endswith(_BYTE_CODE + _NUMBA):
                continue
            if name.endswith(_NUMBA):
                if dependent is None:
                    dependent = _dependent(earlier, linked, files)
                if f"{place}/{stem}.py" in dependent:
                    continue
            # Python and numba replace these files by renaming: each is whole, and nothing is written through a link.
            # A copy would cost many times as much. What can't be linked is compiled again.
            cache = os.path.join(caches, name)
            with suppress(OSError):
                os.link(os.path.join(earlier, cache), os.path.join(folder, cache), follow_symlinks=False)


def _dependent(earlier: Path, linked: Iterable[str], files: Mapping[str, bytes]) -> set[str]:
    """The paths of the linked `.py` files that may depend on a file that differs between `earlier` and `files`.

    Errs on the side of too many: to mention the name of a module, or of a data file, is to depend on it.
    """
    same = set(linked)
    before = (
        os.path.relpath(os.path.join(place, name), earlier)
        for place, _, names in os.walk(earlier / SERVER)
        for name in names
        if os.path.basename(place) != "__pycache__"
    )
    changed = {_mentioned_as(path) for path in {*files, *before} - same}
    dependent: set[str] = set()
    while changed:
        mention = re.compile(rb"(?<![A-Za-z0-9_])(?:" + b"|".join(map(re.escape, changed)) + rb")(?![A-Za-z0-9_])")
        more = {path for path in same - dependent if path.endswith(".py") and mention.search(files[path])}
        dependent |= more
        changed = {_mentioned_as(path) for path in more}
    return dependent


def _mentioned_as(path: str) -> bytes:
    """What the code that uses a file calls it: a module's or a package's name, or a data file's."""
    name = PurePosixPath(path)
    if name.suffix != ".py":
        return os.fsencode(name.name)
    return os.fsencode(name.parent.name if name.stem == "__init__" else name.stem)


def _age(place: Path) -> float:
    try:
        return time.time() - os.lstat(place).st_mtime
    except FileNotFoundError:
        return 0.0


@contextmanager
def _disk(failure: str) -> Iterator[None]:
    """Errors of the file system in this context become a `StoreError` that begins with `failure`."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{failure}: {error.strerror or error}.") from error
