"""Values that are costly to build, handed on from worker to worker: an index, a matrix, a table.

    from server.sdk import keep

    def index():
        return keep("papers", build_index)

The first call in a workspace builds the value, pickles it and saves it on disk. Each later worker loads it from
there: after a reload, after a crash, after a restart of the server. Within one worker, all callers get one object.

- **It is saved as it was built.** A change to it later is seen in this worker only, and is never saved.
- **Large buffers are mapped, not copied**: those of numpy arrays and pandas tables of numbers, from 64 KiB. 1 GB
  takes milliseconds, and workers share the memory until one of them writes to it. Everything else is unpickled, at
  the speed of pickle: also torch tensors, whose storage lies within the pickled stream. An array that exceeds the
  worker's memory limit is mapped all the same, but can't be written to.
- **Objects of your own classes** are welcome as far as they unpickle. When a saved value can't be unpickled, because
  its class was renamed for instance, the factory runs again and the new value is saved.
- **What can't be pickled** (a connection, a lock, a lambda) stays in its worker: each worker builds its own.
- **An edited factory does not run again** while there is a saved value. Drop the value over HTTP
  (`DELETE /workspaces/<workspace>/kept/<name>`), or choose a new name.
"""

import hashlib
import logging
import mmap
import os
import pickle
import stat
import struct
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_NAME = 200

Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
TypeName = Annotated[str, Field(max_length=LONGEST_NAME)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class KeepError(RuntimeError):
    """`keep` can't give a value here, or not under that name. The message says why."""


@dataclass(frozen=True)
class KeptReport:
    """What a worker sends to the server when it has built a value.

    `bytes`: the size of the draft; of a value that is not saved, its `nbytes`, None if it has none. `built`: in
    seconds since 1970. `draft`: the name of the file that the server renames or removes; None if `kind` is
    "in_worker".
    """

    name: str
    type: str
    bytes: int | None
    built: float
    kind: Literal["saved", "in_worker"]
    draft: str | None


# The file of a value: a page with its header, the pickled stream, the large buffers, and the table of these.

PAGE = 4096
_SMALLEST_BUFFER = 64 * 1024
"""Bytes. Smaller buffers stay in the stream: a page each would cost more than it saves."""
_MAGIC = b"Hearth saved value 1"
_TABLE_ROW = struct.Struct("<QQ")  # offset and bytes of a buffer


class Header(BaseModel):
    """The first page of a value's file, as JSON: what can be said about the value without unpickling it.

    `id` is a value's own. `replaces`: the id of the saved value that could not be loaded, and whose place this one
    takes. `stream`: bytes of the pickled stream. `buffers`: rows of the table, which begins at the offset `table`.
    `size`: bytes of the whole file.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    replaces: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None
    name: Name
    type: TypeName
    built: Seconds
    stream: Annotated[int, Field(ge=0)]
    buffers: Annotated[int, Field(ge=0)]
    table: Annotated[int, Field(ge=PAGE)]
    size: Annotated[int, Field(ge=PAGE)]


def saved_file_name(name: str) -> str:
    """The name of the file in which the value of that name is saved."""
    return f"{hashlib.sha256(name.encode()).hexdigest()}.value"


def is_name(name: object) -> bool:
    """Whether a value may have that name. Half a surrogate pair is refused: it can be neither written nor sent."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in name)


def open_value(path: Path) -> BinaryIO:
    """Open a value's file to read it. Never follows a link, never waits. Raises `OSError`."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    return open(path, "rb", buffering=0, opener=lambda name, default: os.open(name, default | flags))


def read_header(file: BinaryIO) -> Header | None:
    """What the file says about its value; None if it is no such file, or not a whole one. Raises `OSError`."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return None
    magic, _, rest = os.pread(file.fileno(), PAGE, 0).partition(b"\n")
    if magic != _MAGIC:
        return None
    try:
        header = Header.model_validate_json(rest.partition(b"\n")[0])
    except ValidationError:
        return None
    return header if header.size == status.st_size else None


def _write(file: BinaryIO, value: object, name: str, built: float, replaces: str | None) -> None:
    """Raises `OSError`, and what pickling the value raises."""
    buffers: list[memoryview] = []

    def stays_in_stream(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _SMALLEST_BUFFER:
            return True
        buffers.append(raw)
        return False

    file.seek(PAGE)
    pickle.Pickler(file, protocol=5, buffer_callback=stays_in_stream).dump(value)
    end = file.tell()
    stream = end - PAGE
    rows = []
    for buffer in buffers:
        offset = -(-end // PAGE) * PAGE
        file.seek(offset)
        file.write(buffer)
        rows.append((offset, buffer.nbytes))
        end = offset + buffer.nbytes
    file.seek(end)
    file.writelines(_TABLE_ROW.pack(*row) for row in rows)
    header = Header(
        id=os.urandom(16).hex(),
        replaces=replaces,
        name=name,
        type=type(value).__name__[:LONGEST_NAME],
        built=built,
        stream=stream,
        buffers=len(rows),
        table=end,
        size=file.tell(),
    )
    # Last, so that a file that was not finished has none. It isn't synchronised: a power failure may cost a value.
    file.seek(0)
    file.write(b"%s\n%s\n" % (_MAGIC, header.model_dump_json().encode()))
    file.flush()


def _read(file: BinaryIO, header: Header) -> Any:
    """The value, its large buffers mapped: they can be written to, and the file stays as it is. Raises anything."""
    try:
        mapped = mmap.mmap(file.fileno(), header.size, access=mmap.ACCESS_COPY)
    except OSError as error:
        # Memory that could be written to counts towards the process's limit, whether or not it is.
        log.warning("the saved value %r is mapped read-only (%s)", header.name, _line(error))
        mapped = mmap.mmap(file.fileno(), header.size, access=mmap.ACCESS_READ)
    view = memoryview(mapped)
    table = view[header.table : header.table + header.buffers * _TABLE_ROW.size]
    buffers = [view[offset : offset + length] for offset, length in _TABLE_ROW.iter_unpack(table)]
    return pickle.loads(view[PAGE : PAGE + header.stream], buffers=buffers)


_NOTHING = object()


class _Entry:
    """A name's place in a worker. `builder`: the thread that loads or builds the value now."""

    def __init__(self, builder: int) -> None:
        self.builder: int | None = builder
        self.value: Any = _NOTHING


class KeptValues:
    """The values of one worker, and how they come from its workspace's folder and get there. Safe for threads.

    In a process that the worker forks, values can still be loaded and built, but nothing is saved or reported.
    """

    def __init__(self, folder: Path | None, report: Callable[[KeptReport], None], drafts: str) -> None:
        """`folder`: where the workspace's values are saved; None saves nothing. `report` is called with each value
        that was built. `drafts`: how the names of this worker's drafts begin, which the server chooses.
        """
        self._folder = folder
        self._report = report
        self._drafts = drafts
        self._saves = True
        self._entries: dict[str, _Entry] = {}
        self._waiting: dict[int, _Entry] = {}
        """For which entry each waiting thread waits."""
        self._changed = threading.Condition()

    def get(self, name: str, factory: Callable[[], T]) -> T:
        """The value of that name: from this worker, else from the folder, else from `factory`.

        Several callers at once build it once, and wait for the one that does. Raises `KeepError`, and what `factory`
        raises: then the next caller builds anew.
        """
        if not is_name(name):
            raise KeepError(f"a name of 1 to {LONGEST_NAME} characters is needed, not {name!r:.100}.")
        thread = threading.get_ident()
        with self._changed:
            while (entry := self._entries.get(name)) is not None:
                self._wait_until_built(name, entry, thread)
                if entry.value is not _NOTHING:
                    return cast(T, entry.value)
            entry = self._entries[name] = _Entry(thread)
        value: Any = _NOTHING
        try:
            value, replaces = self._load(name)
            if value is _NOTHING:
                value = self._build(name, factory, entry, replaces)
        finally:
            with self._changed:
                entry.value, entry.builder = value, None
                if value is _NOTHING and self._entries.get(name) is entry:
                    del self._entries[name]
                self._changed.notify_all()
        return cast(T, value)

    def drop(self, name: str) -> bool:
        """Forget a value of this worker, also one that is being built. Returns whether there was one. A caller that
        waits for it still gets it."""
        with self._changed:
            return self._entries.pop(name, None) is not None

    def after_fork(self) -> None:
        """Make this usable in a forked process, in which only the thread that forked continues."""
        thread = threading.get_ident()
        self._changed = threading.Condition()
        self._waiting = {}
        self._entries = {name: entry for name, entry in self._entries.items() if entry.builder in (None, thread)}
        self._saves = False

    def _wait_until_built(self, name: str, entry: _Entry, thread: int) -> None:
        """Raises `KeepError` where it would wait for ever."""
        last: _Entry | None = entry
        while last is not None and last.builder is not None:
            if last.builder == thread:
                how = "by its own factory" if last is entry else "while its own factory waits for this one"
                raise KeepError(f"keep({name!r}) is called {how}.")
            last = self._waiting.get(last.builder)
        self._waiting[thread] = entry
        try:
            while entry.builder is not None:
                self._changed.wait()
        finally:
            del self._waiting[thread]

    def _load(self, name: str) -> tuple[Any, str | None]:
        """The saved value, `_NOTHING` if there is none that can be loaded; and the id of one that can't be."""
        if self._folder is None:
            return _NOTHING, None
        header = None
        try:
            file = open_value(self._folder / saved_file_name(name))
        except FileNotFoundError:
            return _NOTHING, None
        except OSError as error:
            log.warning("the saved value %r can't be read (%s): it is built again", name, _line(error))
            return _NOTHING, None
        with file:
            try:
                header = read_header(file)
                if header is None or header.name != name:
                    raise ValueError("its file is damaged")
                return _read(file, header), None
            except (Exception, SystemExit) as error:  # boundary: unpickling executes people's code
                log.warning("the saved value %r can't be loaded (%s): it is built again", name, _line(error))
        return _NOTHING, header.id if header is not None else None

    def _build(self, name: str, factory: Callable[[], T], entry: _Entry, replaces: str | None) -> T:
        value = factory()
        if not self._saves:
            return value
        built, type_name = time.time(), type(value).__name__[:LONGEST_NAME]
        draft = self._save(value, name, built, replaces)
        try:
            with self._changed:
                if self._entries.get(name) is not entry:  # dropped meanwhile
                    return value
            if draft is None:
                self._report(KeptReport(name, type_name, _nbytes(value), built, "in_worker", None))
            else:
                self._report(KeptReport(name, type_name, draft.stat().st_size, built, "saved", draft.name))
            draft = None  # now the server's
        except Exception as error:  # boundary: the caller gets its value, whatever has become of the server
            log.warning("the value %r is not saved: it can't be reported (%s)", name, _line(error))
        finally:
            _remove(draft)
        return value

    def _save(self, value: object, name: str, built: float, replaces: str | None) -> Path | None:
        """The draft, with the value in it; None if that can't be done."""
        if self._folder is None:
            return None
        draft = self._folder / f"{self._drafts}-{os.urandom(16).hex()}.draft"
        saved = False
        try:
            with open(draft, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                _write(file, value, name, built, replaces)
            saved = True
        except OSError as error:
            log.warning("the value %r can't be saved (%s): each worker builds its own", name, _line(error))
        except Exception as error:  # boundary: objects say themselves how they are pickled
            log.info("the value %r can't be pickled (%s): each worker builds its own", name, _line(error))
        finally:
            if not saved:
                _remove(draft)
        return draft if saved else None


def _remove(draft: Path | None) -> None:
    if draft is not None:
        with suppress(OSError):
            draft.unlink()


def _nbytes(value: object) -> int | None:
    try:
        size = getattr(value, "nbytes", None)
        return size if type(size) is int and size >= 0 else None
    except Exception:  # boundary: attributes of people's objects
        return None


def _line(error: BaseException) -> str:
    """An error in one line."""
    return " ".join("".join(traceback.format_exception_only(error)).split())[:500]


_current: KeptValues | None = None


def use(values: KeptValues) -> None:
    """Make these the values that `keep` gives in this process."""
    global _current  # noqa: PLW0603
    _current = values


def _after_fork() -> None:
    if _current is not None:
        _current.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def keep(name: str, factory: Callable[[], T]) -> T:
    """The value saved under `name` in this workspace; `factory()` builds it where there is none.

    May be called on any thread of a worker, while its code is loaded and afterwards. `name`: any text of 1 to 200
    characters. Raises `KeepError` elsewhere, and what `KeptValues.get` raises.
    """
    if _current is None:
        raise KeepError(
            f"keep({name!r:.100}) works in the workers that load tools and agents, and this process is none. Call "
            "keep in the tool or agent, and pass the value on to the processes that it starts. In a script, call the "
            "factory itself."
        )
    return _current.get(name, factory)
