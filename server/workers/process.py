"""One worker as a process: its socket, its output, its end."""

import contextlib
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from server.workers import stacks as stack_text
from server.workers.event_loop import EventLoop
from server.workers.inside import guard
from server.workers.inside.isolation import Ends
from server.workers.output import CHUNK_BYTES, OutputLog

log = logging.getLogger(__name__)

TRACEBACK_BYTES = 1 << 16
STACKS_BYTES = 1 << 18
STABLE_SECONDS = 0.02
KILLED: Mapping[str, Any] = {"exit_code": None, "signal": "SIGKILL"}
"""The end of a worker whose guard was killed: the guard takes it along."""


@dataclass(frozen=True)
class End:
    """How a worker ended."""

    exit_code: int | None
    signal: str | None
    """`SIGSEGV`; or the signal that stopped it, such as `SIGSTOP`."""
    place: tuple[str, int] | None
    """File and line below the process's `code_folder` where it crashed, if faulthandler wrote it."""
    output: list[str]
    """The last lines of its output."""
    traceback: str
    """What faulthandler wrote about the crash."""
    lost: str | None = None
    """Why nothing is known of its end, for one on another machine."""

    def describe(self) -> str:
        """`ended with SIGSEGV`, `ended with exit code 3`, `was stopped by SIGSTOP`, `was lost: ...`."""
        if self.lost is not None:
            return f"was lost: {self.lost}"
        if self.signal in ("SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"):
            return f"was stopped by {self.signal}"
        if self.signal is not None:
            return f"ended with {self.signal}"
        return f"ended with exit code {self.exit_code}"


class Usage(NamedTuple):
    memory_bytes: int
    """Proportional set size: memory that n processes share counts 1/n in each."""
    cpu_seconds: float


class Process:
    """One worker's process, and the server's end of the socket to it. Safe for any number of threads.

    The caller of `Template.spawn` closes `socket`.
    """

    def __init__(
        self, loop: EventLoop, finished: Callable[["Process", bool], None], unreported: Mapping[str, Any] = KILLED
    ) -> None:
        """Creates the descriptors; `ends` are the worker's. When the worker has ended, `finished` is called with
        whether its end was reported; if it was not, it is `unreported`."""
        self.pid = 0
        self.started_at = time.time()
        self.code_folder: str | None = None
        self.ended = threading.Event()
        self.end: End | None = None
        self.started = threading.Event()
        """Set when the pid is known, or when the worker could not be started."""
        self._loop = loop
        self._finished = finished
        self._unreported = unreported
        self._lock = threading.Lock()
        self._one_dump = threading.Lock()
        self._calls: list[Callable[[End], None]] = []
        self._output = OutputLog("worker")
        self._copy: Callable[[bytes], object] = lambda data: None
        self._will_report = False
        self._received = b""
        self._report: dict[str, Any] | None = None
        with contextlib.ExitStack() as undo:
            self.socket, worker_socket = socket.socketpair()
            undo.callback(self.socket.close)
            undo.callback(worker_socket.close)
            self._channel, guard_channel = socket.socketpair()
            undo.callback(self._channel.close)
            undo.callback(guard_channel.close)
            self._pipe, writing = os.pipe()
            undo.callback(os.close, self._pipe)
            undo.callback(os.close, writing)
            self._stacks = _memory_file()
            undo.pop_all()
        self._guards_ends = (worker_socket, guard_channel, writing)
        self.ends = Ends(worker_socket.fileno(), guard_channel.fileno(), writing, self._stacks)

    def begin(self) -> None:
        """Close the worker's ends in this process, and listen. Call it after they were sent, and if sending
        failed."""
        worker_socket, guard_channel, writing = self._guards_ends
        worker_socket.close()
        guard_channel.close()
        os.close(writing)
        self._channel.setblocking(False)
        os.set_blocking(self._pipe, False)

        def listen() -> None:
            self._loop.watch(self._channel.fileno(), self._read_channel)
            self._loop.watch(self._pipe, self._read_output)

        self._loop.call(listen)

    def name_output(self, label: str) -> None:
        """The prefix of its lines in the log, such as `sam 3f2a91c04b7e`."""
        self._output.label = label

    def copy_output(self, write: Callable[[bytes], object]) -> None:
        """Let `write`, which must not wait, get all that the worker prints from now on. It is called in the loop's
        thread."""
        self._copy = write

    def on_end(self, call: Callable[[End], None]) -> None:
        """Call `call` once when the worker has ended, in the loop's thread; at once if it has ended already."""
        with self._lock:
            if self.end is None:
                self._calls.append(call)
                return
            end = self.end
        call(end)

    def kill(self) -> None:
        """End the worker and all processes below it. Returns at once; `ended` is set afterwards."""
        with contextlib.suppress(OSError):  # it has ended
            self._channel.shutdown(socket.SHUT_WR)

    def terminate(self) -> None:
        """Send SIGTERM to the worker and its process group. What has not ended then is killed by `kill`."""
        with contextlib.suppress(OSError):  # it has ended
            self._channel.send(guard.TERMINATE)

    def stacks(self, seconds: float = 1.0) -> str:
        """The stacks of all its threads, as faulthandler writes them, also while one of them holds Python's lock.

        Empty if it has ended, doesn't run (no processor for `seconds`), or people's code has replaced the handler of
        SIGUSR2.
        """
        with self._one_dump:
            with self._lock:
                if self.end is not None or not self.pid:
                    return ""
                file = os.dup(self._stacks)
            try:
                _empty(file)
                with contextlib.suppress(OSError):
                    self._channel.send(guard.DUMP_STACKS)
                _wait_until_written(file, seconds, self.ended)
                if self.ended.is_set():
                    return ""
                text = os.pread(file, STACKS_BYTES, 0).decode(errors="replace")
                _empty(file)  # what a crash writes has to be read alone
                return text
            finally:
                os.close(file)

    def place_in(self, stacks: str) -> tuple[str, int] | None:
        """File and line below `code_folder` where a thread works, or otherwise where one waits."""
        return stack_text.work_place(stacks, self.code_folder)

    def usage(self) -> Usage:
        """The sums for the worker and all processes below it; zeros on other systems than Linux."""
        memory = 0
        ticks = 0
        for pid in [self.pid, *guard.descendants(self.pid)] if self.pid and not self.ended.is_set() else []:
            with contextlib.suppress(OSError, ValueError, IndexError):  # it ends just now
                memory += _proportional_bytes(pid)
                ticks += _ticks(pid)
        return Usage(memory, ticks / os.sysconf("SC_CLK_TCK"))

    # What follows runs in the loop's thread.

    def _read_channel(self) -> None:
        try:
            data = self._channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._finish()
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "worker" in message:
                self.pid = message["worker"]
                self.started.set()
            else:
                self._report = message

    def _read_output(self) -> None:
        try:
            data = os.read(self._pipe, CHUNK_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.forget(self._pipe)
            self._output.end()
            return
        self._copy(data)
        pause = self._output.feed(data)
        if self._output.has_left_out and not self._will_report:
            self._will_report = True
            self._loop.later(1.0, self._report_left_out)
        self._loop.forget(self._pipe)
        self._loop.later(pause, self._read_on)

    def _report_left_out(self) -> None:
        self._will_report = False
        self._output.report_left_out()

    def _read_on(self) -> None:
        if self.end is None:
            self._loop.watch(self._pipe, self._read_output)

    def _finish(self) -> None:
        """The guard has ended, and so has everything below it: read the rest of the pipe."""
        for descriptor in (self._channel.fileno(), self._pipe):
            self._loop.forget(descriptor)
        with contextlib.suppress(BlockingIOError):  # somebody else has the other end: a file descriptor was sent away
            for _ in range(64):
                if not (data := os.read(self._pipe, CHUNK_BYTES)):
                    break
                self._copy(data)
                self._output.feed(data)
        self._output.end()
        traceback = os.pread(self._stacks, TRACEBACK_BYTES, 0).decode(errors="replace")
        report = self._report or self._unreported
        end = End(
            exit_code=report["exit_code"],
            signal=report["signal"],
            place=stack_text.crash_place(traceback, self.code_folder),
            output=list(self._output.tail),
            traceback=traceback,
            lost=report.get("lost"),
        )
        with self._lock:
            self.end = end
            calls, self._calls = self._calls, []
            self._channel.close()
            os.close(self._pipe)
            os.close(self._stacks)
        self._finished(self, self._report is not None)
        self.started.set()
        self.ended.set()
        for call in calls:
            try:
                call(end)
            except Exception:  # boundary: the caller's function
                log.exception("A call at the end of a worker failed")


def _memory_file() -> int:
    """A file without a name, into which faulthandler writes."""
    if sys.platform == "linux":
        return os.memfd_create("hearth-stacks")
    else:
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def _empty(file: int) -> None:
    # The worker writes where the server's position is: both have the same open file.
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)


def _wait_until_written(file: int, seconds: float, ended: threading.Event) -> None:
    """faulthandler does not report that it is done: wait until nothing was added for `STABLE_SECONDS`."""
    deadline = time.monotonic() + seconds
    size, since = 0, time.monotonic()
    while (now := time.monotonic()) < deadline and not ended.is_set():
        if (grown := os.fstat(file).st_size) != size:
            size, since = grown, now
        elif size and now - since >= STABLE_SECONDS:
            return
        time.sleep(0.002)


def _proportional_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _ticks(pid: int) -> int:
    """User and system time of a process, and of its children that have ended."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return sum(int(number) for number in file.read().rpartition(b")")[2].split()[11:15])
