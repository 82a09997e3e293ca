"""A job's processes, seen from the executor: start, messages, cancelling, the end."""

import contextlib
import multiprocessing
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import BaseContext

from pydantic import ValidationError

from server.jobs.executor import wire
from server.jobs.executor.job_process import CANCEL, Order, run_guard

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PRELOADED = ["__main__", "server.jobs.executor.job_process"]
KILL_SECONDS = 5.0
"""How long to wait for killed processes that nobody reports."""
POLL_SECONDS = 0.005
HINT = (
    "Its process ended before the tool was called; the console shows why. A script that starts an executor needs "
    "`if __name__ == '__main__':` around its last part, because the job's process imports the script."
)

_multiprocessing = threading.Lock()
"""multiprocessing keeps one list of processes. Two threads that look at one process may both read its exit code,
which is there only once."""


@dataclass(frozen=True)
class End:
    """How a job's processes ended. Nothing of the job is left."""

    problem: str | None
    """Why there can be no result; None if the tool's process ended by itself."""


def prepare() -> None:
    """Start the fork server, without waiting for it. Raises `RuntimeError` in a process that imports the script of
    its parent, as each job's process does."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "This script starts an executor when it is imported. A job's process imports the script to find its "
            "tools. Put the last part of the script under `if __name__ == '__main__':`."
        )
    if _context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()


def _context() -> BaseContext:
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        # No effect once the fork server runs.
        context.set_forkserver_preload(PRELOADED)
    return context


class JobProcess:
    """The processes of one job. One thread reads `messages`; others may call `cancel` and `kill`."""

    def __init__(self, order: Order) -> None:
        """Start them. Raises what multiprocessing raises: `OSError`, and errors of pickling."""
        self._control, guards_end = socket.socketpair()
        self._channel, tools_end = socket.socketpair()
        self._reader = wire.LineReader(self._channel)
        self._lock = threading.Lock()
        self._ended = False
        self._tool_process: int | None = None
        try:
            with guards_end, tools_end, _multiprocessing:
                self._process = _context().Process(  # type: ignore[attr-defined]  # each method's context has it
                    target=run_guard, args=(guards_end, tools_end, order), name=f"job {order.job_id}"
                )
                self._process.start()
        except BaseException:
            self._control.close()
            self._channel.close()
            raise

    def send(self, data: bytes) -> None:
        """Send a reply to the tool's process, if it is still there."""
        with contextlib.suppress(OSError):
            self._channel.sendall(data)

    def cancel(self) -> None:
        """Let the guard end the job: SIGTERM, the grace period, SIGKILL. Returns at once."""
        with self._lock, contextlib.suppress(OSError):
            if not self._ended:
                self._control.sendall(CANCEL)

    def kill(self) -> None:
        """Kill the guard and the tool's group. For a guard that does not answer. Returns at once."""
        with self._lock:
            if self._ended or self._process.pid is None:
                return
            with contextlib.suppress(OSError):
                os.kill(self._process.pid, signal.SIGKILL)
            if self._tool_process is not None:
                with contextlib.suppress(OSError):
                    os.killpg(self._tool_process, signal.SIGKILL)

    def messages(self) -> Iterator[wire.FromJob]:
        """What the tool's process sends, until nothing of the job is left. Raises `wire.WireError`, after which the
        caller cancels and reads on."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.sentinel, selectors.EVENT_READ)
            if not self._reader.ended:
                selector.register(self._channel, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._channel in ready:
                    yield from self._read()
                    if self._reader.ended:
                        selector.unregister(self._channel)
                if self._process.sentinel in ready:
                    break
        # What is still in the socket, sent before the end.
        yield from self._read()

    def end(self) -> End:
        """Reap, and give everything back. Call it when `messages` has ended."""
        with self._lock:
            self._ended = True
        with _multiprocessing:
            self._process.join()  # it has ended, or is about to
            exit_code = self._process.exitcode
        report = self._guard_report()
        if report is None and self._tool_process is not None:
            _end_group(self._tool_process)
        self._control.close()
        self._channel.close()
        with _multiprocessing:
            self._process.close()
        return End(self._problem(report, exit_code))

    def _read(self) -> Iterator[wire.FromJob]:
        for line in self._reader.read():
            message = wire.from_job(line)
            # The first is sent before the tool's code runs: no tool can name another process.
            if isinstance(message, wire.Started) and self._tool_process is None:
                self._tool_process = message.pid
            yield message

    def _guard_report(self) -> wire.GuardReport | None:
        """None if the guard was killed."""
        reader = wire.LineReader(self._control)
        with contextlib.suppress(wire.WireError, ValidationError):
            for line in reader.read():
                return wire.GuardReport.model_validate_json(line)
        return None

    def _problem(self, report: wire.GuardReport | None, exit_code: int | None) -> str | None:
        if report is not None:
            if report.signal is not None:
                return f"its process was killed by {signal_name(report.signal)}"
            return f"its process ended with exit code {report.exit_code}" if report.exit_code else None
        if exit_code is not None and exit_code < 0:
            return f"its guard process was killed by {signal_name(-exit_code)}"
        if self._tool_process is None:
            return f"exit code {exit_code}. {HINT}"
        return "its guard process ended for an unknown reason"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end_group(leader: int) -> None:
    """Kill what is left of a group and of its session, and wait until it is gone. For a guard that was killed: its
    processes are nobody's children, so there is no condition to wait for."""
    deadline = time.monotonic() + KILL_SECONDS
    while time.monotonic() < deadline:
        if sys.platform != "linux":
            try:
                os.killpg(leader, signal.SIGKILL)
            except OSError:
                return
        else:
            left = _session(leader)
            if not left:
                return
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _session(leader: int) -> list[int]:
    """The processes of a session that have not ended. A zombie has; who reaps it is not up to the executor."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name of the program comes before, in brackets, and may hold anything.
                state, _, _, session = file.read().rpartition(b")")[2].split()[:4]
                if int(session) == leader and state != b"Z":
                    found.append(int(name))
    return found
