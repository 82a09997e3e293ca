"""What code of a generation does to the process while it is loaded: put back where that can be, and always named.

Nothing tells which thread changed `os.environ`. So what is watched is read before and after, and only the
smallest things that differ are put back: one variable, one logger, one setting. Reading and putting back are
short and take turns; the code itself runs side by side with other loads, so that one that hangs holds up
nobody. What one load puts back counts for all loads under way as never changed, so none of them takes a
neighbour's change for how things were. What a library does when it first comes counts likewise (`importing`).

Not promised: that a change which someone else makes in these milliseconds (a tool at work that changes the
current folder, another load) is told from the loaded code's own.
"""

import atexit
import functools
import locale
import logging
import os
import random
import socket
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType, FunctionType, MethodType, ModuleType, NoneType, TracebackType
from typing import Any, NamedTuple

from server.reload.naming import package_of, readable

_NAMED_LOGGERS = 5  # of those that changed; the rest are counted
_WORDS = 624  # in the state of a Mersenne twister; after as many numbers it makes a new state
_BLOCKS = 100  # of as many numbers, that may be drawn during a load before it is taken for a seed

# Held for reading and for putting back, never while a generation is executed. Reentrant, since the collector may
# run a `__del__` that imports something.
_lock = threading.RLock()
_open: "list[Watch]" = []
_models_being_built: list[object] = []


class Watch:
    """Watches the process while code of one generation is executed, which is the block of its `with`.

    `package` is the generation's private name, `file` gives the file of one of its modules. When the block
    ends, what can be put back has been, and `left_behind` has a sentence for each thing that the code did to
    the process, put back or not. Used once.
    """

    def __init__(self, package: str, file: Callable[[str], str]) -> None:
        self.left_behind: list[str] = []
        self._package = package
        self._file = file
        self._over = False

    def __enter__(self) -> "Watch":
        with _lock:
            if not self._over:
                # `catch_warnings` lays another list over this one for a while: so the list is kept, and what
                # others lay over it is left to them.
                self._filters = warnings.filters
                self._thread = threading.get_ident()
                self._before = self._read()
                self._seeds = {generator: generator.state() for generator in _generators()}
                self._threads = set(threading.enumerate())
                self._at_exit = _count_at_exit()
                _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Put back and name what changed. Does nothing when it has ended. Any thread may call it."""
        with _lock:
            self._over = True
            if self not in _open:
                return
            self._end_settings()
            self._end_seeds()
            self._end_at_exit()
            self._name_threads()
            # Last: a load that is given up while it puts things back has it done again, by who gave it up.
            _open.remove(self)
            self._before, self._seeds, self._threads = {}, {}, set()

    # Settings

    def _read(self) -> "dict[_Place, Any]":
        """All settings that are watched, as they are now."""
        found: dict[_Place, Any] = {("environ", name): os.environ.get(name) for name in os.environ}
        found["filters", ""] = list(self._filters)
        for name, setting in _SETTINGS.items():
            try:
                found["setting", name] = setting.read()
            except Exception:  # boundary: a folder that was deleted, a `sys.path` that was set to anything
                found["setting", name] = None
        if not _models_being_built:
            for name, setting in _torch_settings().items():
                if self._thread == threading.get_ident() or not setting.per_thread:
                    found["torch", name] = setting.read()
        found["logger", "root"] = _traits(logging.root)
        # Copied, which happens at once; a list of pairs is made piece by piece, and others may come in between.
        for name, logger in logging.root.manager.loggerDict.copy().items():
            if isinstance(logger, logging.Logger) and package_of(name) is None:
                found["logger", name] = _traits(logger)
        return found

    def _end_settings(self) -> None:
        now = self._read()
        if now == self._before:
            return
        loggers = []
        for place in [*self._before, *(place for place in now if place not in self._before)]:
            was, is_now = self._before.get(place), now.get(place)
            kind, name = place
            if was == is_now or (kind != "environ" and (place not in self._before or place not in now)):
                continue
            failure = self._put_back(place, was)
            for other in _open:
                if other is not self and failure is None:
                    other.take_over(place, is_now, was)
            if kind == "logger" and failure is None:
                loggers.append(repr(name))
            else:
                self._name(_told(place), "changed", failure)
        if loggers:
            more = f" and {len(loggers) - _NAMED_LOGGERS} more" if len(loggers) > _NAMED_LOGGERS else ""
            self.left_behind.append(
                f"level, handlers or state of loggers were changed: {', '.join(loggers[:_NAMED_LOGGERS])}{more}; "
                "they were put back"
            )

    def _put_back(self, place: "_Place", value: Any) -> Exception | None:
        """Set it to `value`. Gives the error if that can't be done."""
        kind, name = place
        try:
            if kind == "environ":
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            elif kind == "filters":
                self._filters[:] = value  # type: ignore[index]
                vars(warnings)["_filters_mutated"]()
            elif kind == "logger":
                _set_traits(logging.getLogger(name), value)
            else:
                (_SETTINGS if kind == "setting" else _torch_settings())[name].write(value)
        except Exception as error:  # boundary: a folder that is gone, an encoding that the system lacks
            return error
        return None

    def _name(self, what: str, happened: str, failure: Exception | None) -> None:
        end = "it was put back" if failure is None else f"it could not be put back: {failure}"
        self.left_behind.append(readable(f"{what} was {happened}; {end}"))

    def take_over(self, place: "_Place", before: Any, after: Any) -> None:
        """From now on the change from `before` to `after` is no doing of this load's code."""
        known = self._before.get(place)
        if known == before:
            known = after
        elif isinstance(known, list) and isinstance(before, list) and isinstance(after, list):
            known = [one for one in known if one in after or one not in before]
            for position, one in enumerate(after):
                if one not in before and one not in known:
                    known.insert(position, one)
        if place[0] == "environ" and known is None:
            self._before.pop(place, None)
        elif place[0] == "environ" or place in self._before:
            self._before[place] = known

    def take_over_all(self, before: "Mapping[_Place, Any]", after: "Mapping[_Place, Any]") -> None:
        """`take_over` for everything that differs."""
        for place in before.keys() | after.keys():
            if before.get(place) != after.get(place):
                self.take_over(place, before.get(place), after.get(place))

    def leave_torch_alone(self) -> None:
        """Don't look at its settings any more."""
        self._before = {place: value for place, value in self._before.items() if place[0] != "torch"}

    # Random numbers

    def _end_seeds(self) -> None:
        for generator, before in self._seeds.items():
            if generator.seeded(before, generator.state()):
                generator.put(before)
                for other in _open:
                    if generator in other._seeds:
                        other._seeds[generator] = before
                self._name(generator.name, "seeded", None)

    # What ends with the process

    def _end_at_exit(self) -> None:
        if _count_at_exit() <= self._at_exit:
            return
        probe = _Owned(self._package)
        atexit.unregister(probe)  # type: ignore[arg-type]
        for module in probe.found:
            self.left_behind.append(
                f"{self._file(module)} registered a function with atexit; it was taken out: "
                "it would keep this code in memory, and Hearth ends without calling it"
            )

    # Threads

    def _name_threads(self) -> None:
        new = [thread for thread in threading.enumerate() if thread not in self._threads]
        frames = sys._current_frames() if new else {}
        for thread in new:
            owner = _owner_of_thread(thread, self._package, frames.get(thread.ident or 0))
            if owner is not None:
                self.left_behind.append(
                    readable(f"{self._file(owner)} started the thread {thread.name!r}, which goes on running")
                )


def importing(name: str, parts: Sequence[str]) -> AbstractContextManager[object]:
    """A context for importing what isn't part of a generation.

    What a library does to the process when it is imported for the first time stays, like the library: it
    won't do it again. A load in whose time that happens does not answer for it.
    """
    module = sys.modules.get(name)
    if not _open or (module is not None and all(part in module.__dict__ for part in parts)):
        return _NOTHING
    return _first_import()


@contextmanager
def _first_import() -> Iterator[None]:
    with _lock:
        before = [(watch, watch._read()) for watch in _open]
    try:
        yield
    finally:
        with _lock:
            for watch, state in before:
                if watch in _open:
                    watch.take_over_all(state, watch._read())


@contextmanager
def building_a_model() -> Iterator[None]:
    """Within it torch's settings are let be by every load: a model that is built changes them for a while."""
    build = object()
    with _lock:
        _models_being_built.append(build)
        for watch in _open:
            watch.leave_torch_alone()
    try:
        yield
    finally:
        with _lock:
            _models_being_built.remove(build)


_NOTHING = nullcontext()
_Place = tuple[str, str]
"""Kind and name of one thing that can be put back by itself."""


def _told(place: _Place) -> str:
    kind, name = place
    if kind == "environ":
        return f"os.environ[{name!r}]"
    return {"filters": "warnings.filters", "logger": f"the logger {name!r}"}.get(kind, name)


class _Setting(NamedTuple):
    read: Callable[[], Any]
    write: Callable[[Any], object]
    per_thread: bool = False


def _set_path(entries: list[str]) -> None:
    sys.path[:] = entries


def _set_hook(module: ModuleType, hook: Any) -> None:
    module.__dict__["excepthook"] = hook


_SETTINGS: dict[str, _Setting] = {
    "the current folder": _Setting(os.getcwd, os.chdir),
    "sys.path": _Setting(lambda: list(sys.path), _set_path),
    "the recursion limit": _Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    "sys.excepthook": _Setting(lambda: sys.excepthook, functools.partial(_set_hook, sys)),
    "threading.excepthook": _Setting(lambda: threading.excepthook, functools.partial(_set_hook, threading)),
    "the default timeout of sockets": _Setting(socket.getdefaulttimeout, socket.setdefaulttimeout),
    "the locale": _Setting(
        lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)
    ),
    "what logging.disable switches off": _Setting(lambda: logging.root.manager.disable, logging.disable),
}


def _torch_settings() -> dict[str, _Setting]:
    """Torch's, if torch is there. (Its default device and whether it takes gradients belong to a thread.)"""
    torch = _loaded("torch")
    return _settings_of(torch) if torch else {}


@functools.cache
def _settings_of(torch: Any) -> dict[str, _Setting]:
    cudnn = torch.backends.cudnn
    return {
        "torch's default dtype": _Setting(torch.get_default_dtype, torch.set_default_dtype),
        "torch's number of threads": _Setting(torch.get_num_threads, torch.set_num_threads, per_thread=True),
        "torch.use_deterministic_algorithms": _Setting(
            lambda: (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
        ),
        "torch.backends.cudnn.deterministic": _Setting(
            lambda: cudnn.deterministic, functools.partial(setattr, cudnn, "deterministic")
        ),
        "torch.backends.cudnn.benchmark": _Setting(
            lambda: cudnn.benchmark, functools.partial(setattr, cudnn, "benchmark")
        ),
    }


def _loaded(name: str) -> Any:
    """The module of that name; None if nobody has imported it, or somebody is still at it."""
    module = sys.modules.get(name)
    return None if getattr(getattr(module, "__spec__", None), "_initializing", False) else module


def _traits(logger: logging.Logger) -> tuple[Any, ...]:
    return (logger.level, logger.disabled, logger.propagate, *logger.handlers)


def _set_traits(logger: logging.Logger, traits: tuple[Any, ...]) -> None:
    level, logger.disabled, logger.propagate, *handlers = traits
    logger.handlers = handlers
    logger.setLevel(level)


class _Generator(NamedTuple):
    """A source of random numbers that the whole process draws from."""

    name: str
    state: Callable[[], Any]
    put: Callable[[Any], None]
    seeded: Callable[[Any, Any], bool]
    """Whether the second state is not merely the first one with some numbers drawn, by whomever."""


def _generators() -> list[_Generator]:
    """Those of the modules that are there."""
    found = [_RANDOM]
    if numpy := _loaded("numpy.random"):
        found.append(_generator_of_numpy(numpy))
    if torch := _loaded("torch"):
        found += [_generator_of_torch(one) for one in (torch.default_generator, *torch.cuda.default_generators)]
    return found


def _random_seeded(before: Any, now: Any) -> bool:
    def key(state: Any) -> Any:
        return state[1][:-1]

    if key(before) == key(now):
        return False
    twin = random.Random()
    twin.setstate(before)
    for _ in range(_BLOCKS):
        twin.getrandbits(32 * _WORDS)
        if key(twin.getstate()) == key(now):
            return False
    return True


_RANDOM = _Generator("random", random.getstate, random.setstate, _random_seeded)


@functools.cache
def _generator_of_numpy(numpy_random: Any) -> _Generator:
    def seeded(before: Any, now: Any) -> bool:
        if not isinstance(before, tuple) or not isinstance(now, tuple):
            return False  # somebody replaced the generator with one of another kind
        if (before[1] == now[1]).all():
            return False
        twin = numpy_random.RandomState()
        twin.set_state(before)
        for _ in range(_BLOCKS):
            twin.bytes(4 * _WORDS)
            if (twin.get_state()[1] == now[1]).all():
                return False
        return True

    return _Generator("numpy.random", numpy_random.get_state, numpy_random.set_state, seeded)


@functools.cache
def _generator_of_torch(generator: Any) -> _Generator:
    return _Generator(
        f"torch's random generator on {generator.device}",
        lambda: (generator.initial_seed(), generator.get_state()),
        lambda state: generator.set_state(state[1]),
        lambda before, now: before[0] != now[0],
    )


def _count_at_exit() -> int:
    count: int = vars(atexit)["_ncallbacks"]()
    return count


class _Owned:
    """Equal to every function of a generation: `atexit.unregister`, which compares, then takes them out.

    `found` has the module of each.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self.found: list[str] = []

    def __eq__(self, other: object) -> bool:
        owner = _owner([other], self._package)
        if owner is not None:
            self.found.append(owner)
        return owner is not None

    __hash__ = None  # type: ignore[assignment]


def _owner_of_thread(thread: threading.Thread, package: str, frame: FrameType | None) -> str | None:
    """The module of the generation that a thread belongs to; None if it seems to be another's.

    It is the module's if its class, what it calls or what it was given is; or if the module holds it, or the
    object whose method it calls, under a global name; or if it executes code of the module now, at `frame`.
    """
    values = list(vars(thread).values())
    for value in list(values):
        if type(value) is tuple:
            values += value
        elif type(value) is dict:
            values += value.values()
    if owner := _owner([thread, *values], package):
        return owner
    # An executor's threads know it by a weak reference. A builtin function's `__self__` is a module.
    runners = [thread, *(part for value in values for part in _parts(value) if part is not value)]
    ids = {id(runner) for runner in runners if not issubclass(type(runner), type | ModuleType | NoneType)}
    for name, module in sys.modules.copy().items():
        if package_of(name) == package and any(id(value) in ids for value in list(vars(module).values())):
            return name
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if package_of(name) == package:
            return name
        frame = frame.f_back
    return None


def _owner(objects: Iterable[object], package: str) -> str | None:
    """The module, of the generation `package`, that one of the objects or its class was defined in."""
    for part in (part for one in objects for part in _parts(one)):
        kind = part if issubclass(type(part), FunctionType | type) else type(part)
        module = getattr(kind, "__module__", None)
        if isinstance(module, str) and package_of(module) == package:
            return module
    return None


def _parts(value: Any) -> Iterator[object]:
    """The object, and what it stands for: a method for its object and function, a reference for its object."""
    yield value
    kind = type(value)
    if kind is MethodType:
        yield from (value.__func__, value.__self__)
    elif issubclass(kind, functools.partial):
        yield from _parts(value.func)
    elif issubclass(kind, weakref.ref):
        yield value()
