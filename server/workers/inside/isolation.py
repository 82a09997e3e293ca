"""Making a forked process a separate worker: it shares nothing with the template, the guard or another worker, except
memory that was loaded before the fork."""

import atexit
import contextlib
import faulthandler
import fcntl
import gc
import os
import random
import resource
import signal
import socket
import sys
import weakref
from dataclasses import dataclass
from typing import NamedTuple

from server.workers.inside import guard

HIGH = 100
"""The lowest number of the worker's own descriptors: code that closes the low ones does not close these."""


@dataclass(frozen=True)
class Settings:
    """The settings that all workers of a template share."""

    entry: str
    """`package.module:function`: called with the worker's end of the protocol socket."""
    preload: list[str]
    """Modules that are imported before the first worker is needed."""
    folder: str
    """The working directory."""
    memory_bytes: int | None
    """What a process may allocate, in addition to its data at the start (RLIMIT_DATA)."""
    import_seconds: float
    """The maximum time for a module that is imported later."""


class Ends(NamedTuple):
    """The descriptors that the server made for one worker."""

    protocol: int
    channel: int
    output: int
    stacks: int


def isolate(ends: Ends, settings: Settings) -> socket.socket:
    """Make this process, a child of its guard, a worker. Returns the protocol socket."""
    os.setsid()
    guard.name_process("hearth-worker")
    _default_signals()
    protocol, stacks = _move_descriptors(ends)
    # Where PYTHONFAULTHANDLER was set it believes that its handlers are still there.
    faulthandler.disable()
    faulthandler.enable(stacks, all_threads=True)
    faulthandler.register(signal.SIGUSR2, stacks, all_threads=True, chain=False)
    _forget_exit_handlers()
    _end_before_the_server()
    _limit_memory(settings.memory_bytes)
    _seed()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # Python's own at this point
    os.chdir(settings.folder)
    gc.enable()
    return socket.socket(fileno=protocol)


def _default_signals() -> None:
    """Restore the signal handlers of a new Python process."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _move_descriptors(ends: Ends) -> tuple[int, int]:
    """Close all descriptors except standard input (empty), output and error (the pipe), and the two that are
    returned: protocol socket and faulthandler's file."""
    protocol = fcntl.fcntl(ends.protocol, fcntl.F_DUPFD_CLOEXEC, HIGH)
    stacks = fcntl.fcntl(ends.stacks, fcntl.F_DUPFD_CLOEXEC, HIGH)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(ends.output, 1)
    os.dup2(ends.output, 2)
    guard.close_all_but({0, 1, 2, protocol, stacks})
    return protocol, stacks


def _forget_exit_handlers() -> None:
    """Remove the exit handlers that the template has registered."""
    atexit._clear()
    # It registers itself once, so the worker's own objects would never be finalized.
    with contextlib.suppress(AttributeError):
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]
        weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]


def _end_before_the_server() -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")  # the machine's memory is full: a worker ends, not the model


def _limit_memory(memory_bytes: int | None) -> None:
    """Set the memory limit, and allow no core files, which take seconds."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if memory_bytes is None:
        return
    with contextlib.suppress(OSError, ValueError):
        limit = _data_bytes() + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _data_bytes() -> int:
    """The memory that counts against RLIMIT_DATA, in bytes."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


def _seed() -> None:
    """Seed random numbers, and multiprocessing's key, differently in each worker."""
    random.seed()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.manual_seed(int.from_bytes(os.urandom(7), "little"))
    if (process := sys.modules.get("multiprocessing.process")) is not None:
        process.current_process().authkey = os.urandom(32)
