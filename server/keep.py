"""State that is costly to build and outlives the code that built it: an index, a connection, a second model.

    from server.keep import keep

    def index():
        return keep("papers", build_index)      # built once in a workspace, whatever is reloaded

Each workspace has its own. A value stays until it is dropped over HTTP or the process ends; reloads don't rebuild it,
not even when the factory has changed.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, cast

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_NAME = 200


class KeepError(RuntimeError):
    """A value can't be kept, or not here. The message says why."""


@dataclass(frozen=True)
class KeptValue:
    """A value that is kept. `bytes`: about what it took when it was built, None if that can't be told. `built`: when
    that was, in seconds since 1970."""

    value: Any
    bytes: int | None
    built: float


class _Entry:
    """A place for a value, which one thread at a time may build."""

    def __init__(self) -> None:
        self.building = threading.RLock()
        self.in_factory = False
        self.kept: KeptValue | None = None


class Kept:
    """What one workspace keeps. Safe for any number of threads."""

    def __init__(self, is_reloadable: Callable[[object], bool]) -> None:
        """`is_reloadable` says of a value whether it is made of code that reloads replace."""
        self._is_reloadable = is_reloadable
        self._entries: dict[str, _Entry] = {}
        self._changing = threading.Lock()

    def get(self, name: str, factory: Callable[[], T]) -> T:
        """The value of that name; if there is none, what `factory` gives, which is kept from then on.

        Several callers at once build it once, and wait for the one that does. Raises `KeepError`, and what `factory`
        raises: then nothing is kept, and the next caller builds anew.
        """
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
            raise KeepError(f"a name of 1 to {LONGEST_NAME} characters is needed, not {name!r:.100}.")
        with self._changing:
            entry = self._entries.setdefault(name, _Entry())
        with entry.building:
            if entry.kept is None:
                if entry.in_factory:
                    raise KeepError(f"keep({name!r}) is called by its own factory.")
                entry.in_factory = True
                try:
                    value = factory()
                finally:
                    entry.in_factory = False
                if self._is_reloadable(value):
                    raise KeepError(
                        f"keep({name!r}) would keep a {type(value).__name__} of code that reloads replace, and the "
                        "old code would live on in it. Keep what it is made of (a dict, an array, a connection), and "
                        "wrap that where it is used."
                    )
                entry.kept = KeptValue(value, _size_of(value), time.time())
            return cast(T, entry.kept.value)

    def drop(self, name: str) -> bool:
        """Forget a value, also one that is being built. Returns whether there was one. Who holds it keeps it."""
        with self._changing:
            return self._entries.pop(name, None) is not None

    def values(self) -> dict[str, KeptValue]:
        """What is kept, by name."""
        with self._changing:
            return {name: entry.kept for name, entry in self._entries.items() if entry.kept is not None}

    def trial(self) -> "Trial":
        """These values as code has them that is being loaded, and may yet be refused."""
        return Trial(self)


class Trial(Kept):
    """What is kept already, and beside it what code on trial has built. It is forgotten unless `commit` is called."""

    def __init__(self, base: Kept) -> None:
        super().__init__(base._is_reloadable)
        self._base = base

    def get(self, name: str, factory: Callable[[], T]) -> T:
        """See `Kept`."""
        with self._base._changing:
            entry = self._base._entries.get(name)
        known = entry is not None and (entry.kept is not None or entry.in_factory)
        return self._base.get(name, factory) if known else super().get(name, factory)

    def commit(self) -> None:
        """Keep for good what was built, where nobody else has built it meanwhile."""
        with self._base._changing:
            for name, entry in self._entries.items():
                there = self._base._entries.get(name)
                if entry.kept is not None and (there is None or (there.kept is None and not there.in_factory)):
                    self._base._entries[name] = entry


def _size_of(value: object) -> int | None:
    size = getattr(value, "nbytes", None)  # arrays and tensors, whose memory Python does not see
    if isinstance(size, int):
        return size
    from server.reload.residue import importing  # late: its package imports this module

    with importing("pympler.asizeof", ()):  # the load that comes here first doesn't answer for what it does
        from pympler import asizeof

    try:
        return int(asizeof.asizeof(value))
    except Exception:  # boundary: it looks into objects of any kind
        log.debug("the size of a %s can't be told", type(value).__name__, exc_info=True)
        return None


_current: ContextVar[Kept | None] = ContextVar("kept", default=None)


@contextmanager
def scope(kept: Kept) -> Iterator[None]:
    """Within it, on this thread and in copies of its context, `keep` means these values."""
    token = _current.set(kept)
    try:
        yield
    finally:
        _current.reset(token)


def keep(name: str, factory: Callable[[], T]) -> T:
    """The value kept under `name` in this workspace; `factory()` builds it the first time.

    May be called while code is loaded, and by tools and agents while they answer. Raises `KeepError` elsewhere, as
    on a thread that a tool started by itself (hand the value to it), and what `Kept.get` raises.
    """
    kept = _current.get()
    if kept is None:
        raise KeepError(
            f"keep({name!r}) was called outside of a reload and of a question. On a thread of your own, call keep "
            "before you start it, and hand the value over."
        )
    return kept.get(name, factory)
