"""What goes wrong around a server while it is used: processes that end or stop, a database that is gone, a full disk,
a log that nobody reads, a clock that jumps. One fault at a time, in random order, each healed again."""

import fcntl
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress

import psutil

from tests.support.log_pipe import LogPipe
from tests.support.server_process import Server, Session
from tests.support.set_clock import SetClock

HEALED = "healed"
"""The workspace of this file's own."""
SECONDS_BETWEEN = 0.5, 2.0
SECONDS_STOPPED = 0.5, 3.0
SECONDS_WITHOUT_DATABASE = 1.0, 8.0
"""The longest is longer than the server waits for a lock."""
SECONDS_UNREAD = 2.0, 5.0
SMALLEST_PIPE_BYTES = 4096
CLOCKS = (-(10**8), -86_400, -3600, 3600, 86_400, 10**8)
"""Seconds from the machine's clock: three years, a day, an hour."""

Fault = Callable[[], AbstractContextManager[object]]
Kind = Callable[[], AbstractContextManager[None]]


def family(server: Server) -> dict[str, list[int]]:
    """The processes below a server by the name that they have in `ps`."""
    found: dict[str, list[int]] = {}
    for one in psutil.Process(server.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found.setdefault(one.name(), []).append(one.pid)
    return found


class Faults(threading.Thread):
    """Lets one fault happen after the other until it is ended. `happened`: how often each did.

    The next one waits until new code can be loaded again, so that two never come together: a template takes seconds
    to start, on a busy machine half a minute.
    """

    def __init__(self, server: Server, kinds: Mapping[str, Fault], rng: random.Random, over: threading.Event) -> None:
        super().__init__(name="faults", daemon=True)
        self.happened: Counter[str] = Counter()
        self.log: list[tuple[float, str]] = []
        """Times of `time.time()` with what began or ended then."""
        self.failure: BaseException | None = None
        self._server = server
        self._kinds = kinds
        self._rng = rng
        self._over = over

    def run(self) -> None:
        try:
            while True:
                for name in self._rng.sample(sorted(self._kinds), len(self._kinds)):
                    if self._over.wait(self._rng.uniform(*SECONDS_BETWEEN)):
                        return
                    self._note(name)
                    with self._kinds[name]():
                        pass
                    self._note(f"after {name}")
                    self.happened[name] += 1
                    self._heal()
        except BaseException as failure:  # boundary: the test reports it
            self.failure = failure

    def _heal(self) -> None:
        """A reload of new code needs a new worker, so it ends when there can be one."""
        with Session(self._server.url, self._server.token) as session:
            text = f"NUMBER = {self.happened.total()}".encode()
            session.put(f"/workspaces/{HEALED}/files/tools/note.py", data=text).raise_for_status()
            session.post("/reload_modules", json={"workspace": HEALED}).raise_for_status()

    def _note(self, what: str) -> None:
        self.log.append((time.time(), what))


def processes(server: Server, rng: random.Random, over: threading.Event) -> dict[str, Fault]:
    """Processes below the server end, or stop for a while."""

    def some(name: str) -> int | None:
        pids = family(server).get(name)
        return rng.choice(pids) if pids else None

    def killed(name: str) -> Fault:
        @contextmanager
        def kill() -> Iterator[None]:
            pid = some(name)
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            yield

        return kill

    def stopped(name: str) -> Fault:
        @contextmanager
        def stop() -> Iterator[None]:
            pid = some(name)
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                over.wait(rng.uniform(*SECONDS_STOPPED))
                # A stopped worker has been killed by its guard.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            yield

        return stop

    names = ("worker", "guard", "template", "keeper", "grammars")
    kills = {f"{name} killed": killed(f"hearth-{name}") for name in names}
    stops = {f"{name} stopped": stopped(f"hearth-{name}") for name in ("worker", "template")}
    return kills | stops


def lasting(fault: Fault, seconds: tuple[float, float], rng: random.Random, over: threading.Event) -> Fault:
    """A fault that lasts."""

    @contextmanager
    def last() -> Iterator[None]:
        with fault():
            over.wait(rng.uniform(*seconds))
        yield

    return last


def unread_log(log: LogPipe, rng: random.Random, over: threading.Event) -> Fault:
    """Nobody reads standard error, whose pipe is as small as can be."""
    fcntl.fcntl(log.descriptor, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE_BYTES)
    return lasting(log.unread, SECONDS_UNREAD, rng, over)


def clock_set(clock: SetClock, rng: random.Random, over: threading.Event) -> Fault:
    """The wall clock jumps, and back after a while."""

    @contextmanager
    def jump() -> Iterator[None]:
        clock.set(rng.choice(CLOCKS))
        over.wait(rng.uniform(*SECONDS_STOPPED))
        clock.set(0)
        yield

    return jump
