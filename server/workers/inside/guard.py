"""The guard: one process above each worker. It ends the worker with all that the worker started, and reports how it
ended.

A guard is a subreaper (`man 2 prctl`): a process below it whose parent has ended becomes its child, also one that
took a session of its own. So nothing that a worker starts gets away, and nothing stays as a zombie.

The channel is a stream. The guard sends lines of JSON: `{"worker": pid, "guard": pid}` at once, and
`{"exit_code": 3, "signal": null}` when the worker has ended and nothing is left below. It reads single bytes:
`DUMP_STACKS`, `TERMINATE`, and the end of the stream, which ends the worker.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import NoReturn

DUMP_STACKS = b"u"
"""To a guard: let the worker's faulthandler write the stacks of all threads."""
TERMINATE = b"t"
"""To a guard: send SIGTERM to the worker and its process group. What is left when the stream ends is killed."""
SWEEP = b"s"
"""To the keeper: a guard was killed; kill what is left of its worker."""
SWEEP_SECONDS = 1.0
KILL_SECONDS = 10.0
"""A process that can't be killed (it waits in the kernel for a disk) is left after this time."""

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Template, keeper and guards end when the server ends. A signal to all processes of the service must not end them
before the server has finished its runs."""

libc = ctypes.CDLL(None, use_errno=True)


def control_process(option: int, value: int | bytes) -> None:
    """prctl(2) on Linux; nothing elsewhere."""
    if sys.platform == "linux":
        libc.prctl(option, value, 0, 0, 0)


def name_process(name: str) -> None:
    """Set the name in `ps` and `top`; 15 characters at most."""
    control_process(PR_SET_NAME, name.encode())


def descriptors() -> set[int]:
    """This process's open descriptors."""
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    found = set()
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # the one that read the folder
            os.fstat(int(name))
            found.add(int(name))
    return found


def close_all_but(kept: Collection[int]) -> None:
    """Close every descriptor except the ones given."""
    for descriptor in descriptors() - set(kept):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _parents() -> Iterator[tuple[int, int]]:
    """Each process of the system and its parent."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name of the program comes before, in brackets, and may hold anything.
                yield int(name), int(file.read().rpartition(b")")[2].split()[1])


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, zombies too, parents first; empty on other systems than Linux."""
    if sys.platform != "linux":
        return []
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for process in found:
        found.extend(children.get(process, ()))
    return found[1:]


def kill_descendants(seconds: float = KILL_SECONDS) -> bool:
    """Kill and reap all processes below this one, which must be a subreaper. False if one is left after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        if time.monotonic() > deadline:
            return False
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)  # what was killed needs a moment, and its children only now become ours


def _wake_on_children() -> tuple[socket.socket, socket.socket]:
    """A pair of sockets, the first of which becomes readable when a child ends or stops. Ignores `IGNORED`."""
    readable, writable = socket.socketpair()
    readable.setblocking(False)
    writable.setblocking(False)
    signal.set_wakeup_fd(writable.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    return readable, writable


def _silence() -> None:
    """Redirect standard input, output and error to /dev/null: the pipe of the output must end with the worker."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)


def _drain(readable: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while len(readable.recv(4096)) == 4096:
            pass


def _send(channel: socket.socket, message: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # the server has ended; so will this process
        channel.sendall(json.dumps(message).encode() + b"\n")


def run(channel: socket.socket, worker: Callable[[], NoReturn], silent: bool) -> NoReturn:
    """Fork a process that runs `worker`, and be its guard until it has ended.

    Closes every descriptor except the channel and the standard ones. `silent`: the standard ones become /dev/null.
    """
    name_process("hearth-guard")
    control_process(PR_SET_CHILD_SUBREAPER, 1)
    woken, waking = _wake_on_children()
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        control_process(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it was killed before the line above
            os._exit(1)
        worker()
    _send(channel, {"worker": pid, "guard": guard})
    close_all_but({0, 1, 2, channel.fileno(), woken.fileno(), waking.fileno()})
    if silent:
        _silence()
    status, is_asked = _watch(channel, woken, pid)
    if is_asked:
        _wait_for_the_others(channel, woken)
    kill_descendants()
    _send(channel, _ending(status))
    os._exit(0)


def _watch(channel: socket.socket, woken: socket.socket, worker: int) -> tuple[int, bool]:
    """Wait until the worker ends or is stopped, or kill it when the server closes the channel. Returns its status, as
    in waitpid(2), and whether the others of its group were asked to end and have time for that."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(woken, select.POLLIN)
    is_asked = False
    while True:
        poll.poll()
        _drain(woken)
        status = _reap(worker)
        if status is not None:
            return status, is_asked
        try:
            orders = channel.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        except OSError:
            orders = b""
        if not orders:
            _kill_group(worker)
            return os.waitpid(worker, 0)[1], False
        if TERMINATE in orders:
            is_asked = True
            with contextlib.suppress(OSError):  # it has ended, or has no group of its own yet
                os.killpg(worker, signal.SIGTERM)
        if DUMP_STACKS in orders and _handles(worker, signal.SIGUSR2):
            os.kill(worker, signal.SIGUSR2)


def _wait_for_the_others(channel: socket.socket, woken: socket.socket) -> None:
    """Wait until no process below the guard is left, or the server closes the channel."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not descendants(os.getpid()):
            return
        poll.poll()
        _drain(woken)
        try:
            if not channel.recv(4096, socket.MSG_DONTWAIT):
                return
        except BlockingIOError:
            continue
        except OSError:
            return


def _reap(worker: int) -> int | None:
    """Reap all children that have ended. Returns the worker's status if it has ended or was stopped."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return None
            if pid == worker:
                if os.WIFSTOPPED(status):
                    _kill_group(worker)
                    os.waitpid(worker, 0)
                return status
    except ChildProcessError:
        return None


def _kill_group(worker: int) -> None:
    os.kill(worker, signal.SIGKILL)
    with contextlib.suppress(OSError):  # it has not become the head of a group yet
        os.killpg(worker, signal.SIGKILL)


def _handles(pid: int, number: int) -> bool:
    """Whether the process has a handler for this signal: without one the signal would end it."""
    if sys.platform != "linux":
        return True
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _ending(status: int) -> dict[str, object]:
    if os.WIFSTOPPED(status):
        return {"exit_code": None, "signal": _signal_name(os.WSTOPSIG(status))}
    if os.WIFSIGNALED(status):
        return {"exit_code": None, "signal": _signal_name(os.WTERMSIG(status))}
    return {"exit_code": os.WEXITSTATUS(status), "signal": None}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run_keeper(channel: socket.socket, template: Callable[[], NoReturn]) -> NoReturn:
    """Be the keeper: the process above all templates and guards. `template` runs in a child.

    It reaps templates that were replaced, and guards whose template has ended. It ends when nothing is left below it.
    It also ends, with everything below it, when the server ends.
    """
    name_process("hearth-keeper")
    control_process(PR_SET_CHILD_SUBREAPER, 1)
    woken, waking = _wake_on_children()
    own = {channel.fileno(), woken.fileno(), waking.fileno()}
    if os.fork() == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        close_all_but(descriptors() - own)
        template()
    close_all_but({0, 1, 2, *own})
    _silence()
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(woken, select.POLLIN)
    sweep_until = 0.0
    while True:
        poll.poll(50 if time.monotonic() < sweep_until else None)
        _drain(woken)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        try:
            orders = channel.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            orders = b" "
        except OSError:
            orders = b""
        if not orders:
            break
        if SWEEP in orders:
            sweep_until = time.monotonic() + SWEEP_SECONDS
        if time.monotonic() < sweep_until:
            _sweep()
    kill_descendants()
    os._exit(0)


def _sweep() -> None:
    """Kill children of the keeper that are neither a template nor a guard, with everything below them."""
    for child in [child for child, parent in _parents() if parent == os.getpid()]:
        with contextlib.suppress(OSError):
            with open(f"/proc/{child}/comm") as file:
                name = file.read().strip()
            if name not in ("hearth-template", "hearth-guard", "hearth-learning", "hearth-keeper"):
                for pid in [child, *descendants(child)]:
                    os.kill(pid, signal.SIGKILL)
