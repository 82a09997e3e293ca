"""What runs in a job's two processes: the guard, and below it the process that calls the tool.

The guard is what multiprocessing starts. It ends the tool's process together with all that this has started, and
reports how it ended. On Linux it is a subreaper (`man 2 prctl`): also processes that took a session of their own
become its children when their parents end, so it finds and reaps them.

The executor sends a byte over the control socket to cancel the job. It cancels too when it ends, because the socket
is then closed.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from server.jobs.executor import wire
from server.jobs.executor.global_context import ContextRequest, GlobalContext
from server.jobs.executor.tools import BaseParallelizableTool, SentTool, call
from server.sdk.tool_result import as_text, encodable
from server.workers.inside.guard import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    control_process,
    kill_descendants,
    name_process,
)

CANCEL = b"c"
LONGEST_TRACEBACK = 20_000


class TerminatedError(SystemExit):
    """SIGTERM has come. Raised in the tool's main thread, so that its `finally` blocks run in the grace period."""


@dataclass(frozen=True)
class Order:
    """A job as it is sent to its process. The executor pickles it."""

    job_id: str
    tool: SentTool
    tool_input: str | dict[str, Any]
    grace_seconds: float
    environment: dict[str, str]
    folder: str | None
    """The current directory."""


# The guard


def run_guard(control: socket.socket, channel: socket.socket, order: Order) -> None:
    """Fork the tool's process, and be its guard until nothing of it is left.

    `control`: this process's own socket. `channel`: the socket of the tool's process.
    """
    os.setsid()
    name_process("job-guard")
    control_process(PR_SET_PDEATHSIG, signal.SIGKILL)
    control_process(PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    tool_process = os.fork()
    if tool_process == 0:
        control.close()
        _run_tool_process(guard, channel, order)
    channel.close()
    # After the fork: SIGTERM ends a tool's process that is not far enough to handle it.
    woken = _wake_on_children()
    status = _watch(control, woken, tool_process, order.grace_seconds)
    kill_descendants()
    code, number = (None, os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), None)
    with contextlib.suppress(OSError):  # the executor has ended
        control.sendall(wire.line(wire.GuardReport(exit_code=code, signal=number)))
    os._exit(0)  # multiprocessing's own end would join threads and run handlers that are the executor's


def _wake_on_children() -> socket.socket:
    """A socket that becomes readable when a child ends. Signals to end are ignored: the executor decides."""
    readable, writable = socket.socketpair()
    readable.setblocking(False)
    writable.setblocking(False)
    signal.set_wakeup_fd(writable.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return readable


def _watch(control: socket.socket, woken: socket.socket, tool_process: int, grace_seconds: float) -> int:
    """Wait until the tool's process has ended. When cancelled: signal its group, and give everything below the guard
    `grace_seconds` to end. Returns the status of the tool's process, as in waitpid(2)."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(woken, select.POLLIN)
    deadline: float | None = None
    status: int | None = None
    while True:
        ended, left = _reap(tool_process)
        status = ended if status is None else status
        if status is not None and (deadline is None or not left):
            return status
        if deadline is None and _is_cancelled(control):
            poll.unregister(control)
            deadline = time.monotonic() + grace_seconds
            _signal_group(tool_process, signal.SIGTERM)
            _signal_group(tool_process, signal.SIGCONT)  # a stopped process would not notice
        if deadline is not None and time.monotonic() >= deadline:
            if status is not None:
                return status
            _signal_group(tool_process, signal.SIGKILL)
            return os.waitpid(tool_process, 0)[1]
        poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000)
        with contextlib.suppress(BlockingIOError):
            while len(woken.recv(4096)) == 4096:
                pass


def _reap(tool_process: int) -> tuple[int | None, bool]:
    """Reap the children that have ended. Returns the status of the tool's process if it is among them, and whether
    any child is left."""
    status = None
    try:
        while True:
            pid, found = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return status, True
            if pid == tool_process:
                status = found
                with contextlib.suppress(OSError):
                    # Elsewhere than on Linux, nothing else finds what the tool has started. The group's name can't
                    # belong to others while a process is in it.
                    if sys.platform != "linux":
                        os.killpg(tool_process, signal.SIGKILL)
    except ChildProcessError:
        return status, False


def _is_cancelled(control: socket.socket) -> bool:
    """Whether the executor has cancelled, or has ended."""
    try:
        control.recv(4096, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _signal_group(leader: int, number: int) -> None:
    """Signal the group of the tool's process, or the process itself, if it has no group yet."""
    try:
        os.killpg(leader, number)
    except OSError:
        with contextlib.suppress(OSError):
            os.kill(leader, number)


# The tool's process


def _run_tool_process(guard: int, channel: socket.socket, order: Order) -> NoReturn:
    code = 1
    try:
        os.setsid()
        name_process(order.job_id)
        control_process(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it was killed before the line above
            os._exit(1)
        _reset_signals()
        executor_end = ExecutorEnd(channel)
        executor_end.send(wire.Started(pid=os.getpid()))
        executor_end.send(_outcome(order, executor_end))
        code = 0
    except TerminatedError:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:  # boundary: nothing may return into multiprocessing's own code
        traceback.print_exc()
    finally:
        os._exit(code)


def _reset_signals() -> None:
    def terminate(number: int, frame: object) -> None:
        raise TerminatedError(128 + signal.SIGTERM)

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)


def _outcome(order: Order, executor_end: "ExecutorEnd") -> wire.Result | wire.Failure:
    """Call the tool. Raises `TerminatedError` if SIGTERM has come."""
    loaded = False
    try:
        os.environ.clear()
        os.environ.update(order.environment)
        if order.folder is not None:
            os.chdir(order.folder)
        tool = order.tool.load()
        loaded = True
        context = GlobalContext(executor_end.ask)
        if isinstance(tool, BaseParallelizableTool):
            tool.global_context, tool.context = context, {"job_id": order.job_id}
        value = call(tool, order.tool_input, context, lambda text: executor_end.send(wire.Report(text=text)))
        outcome: wire.Result | wire.Failure = _result(value)
    except TerminatedError:
        raise
    except BaseException as error:  # boundary: a tool may raise anything
        # encodable: halves of surrogate pairs can't be sent
        said = encodable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        shown = encodable("".join(traceback.format_exception(error)))[-LONGEST_TRACEBACK:]
        outcome = wire.Failure(
            error=said if loaded else f"the tool can't be loaded in the job's process: {said}", traceback=shown
        )
    # Before the outcome is sent: a full pipe must not delay the end of the job.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    return outcome


def _result(value: Any) -> wire.Result:
    """The result; a value that is not JSON becomes text. Raises `ValueError` if it is too long."""
    text = as_text(value)
    try:
        plain = json.loads(encodable(json.dumps(value, allow_nan=False, ensure_ascii=False)))
    except (TypeError, ValueError, RecursionError):
        plain = text
    result = wire.Result(value=plain, text=text)
    wire.line(result)
    return result


class ExecutorEnd:
    """The executor, seen from the tool's process. Any number of threads may use it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._replies = wire.LineReader(channel)
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def send(self, message: wire.FromJob) -> None:
        """Send a message. Raises `ConnectionError` in a process that the tool has forked."""
        data = wire.line(message)
        with self._own():
            self._channel.sendall(data)

    def ask(self, request: ContextRequest) -> dict[str, Any]:
        """The reply of the global context. Raises `TypeError` as it does, and `ConnectionError` if the executor has
        ended."""
        data = wire.line(wire.Ask(request=request))
        with self._own():
            self._channel.sendall(data)
            reply = self._replies.wait()
        if reply is None:
            raise ConnectionError("The executor has ended.")
        answer: dict[str, Any] = json.loads(reply)
        if "type_error" in answer:
            raise TypeError(answer["type_error"])
        found: dict[str, Any] = answer["reply"]
        return found

    @contextlib.contextmanager
    def _own(self) -> Iterator[None]:
        # A forked process has the same socket: two writers would mix their messages.
        if os.getpid() != self._pid:
            raise ConnectionError(
                "Only the job's own process reaches the executor, not one that the tool has forked."
            )
        with self._lock:
            yield
