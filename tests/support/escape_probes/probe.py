"""What a probe is, and how one is run."""

import ctypes
import errno
import importlib
import json
import os
import platform
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

TOPICS = (
    "network",
    "unix_sockets",
    "files",
    "file_methods",
    "writes",
    "devices",
    "machine",
    "processes",
    "rights",
    "namespaces",
    "set_id",
    "system_calls",
    "entries",
)
REACHED, REFUSED = "REACHED", "REFUSED"
X86_64 = platform.machine() == "x86_64"


@dataclass(frozen=True)
class Given:
    """What the test has prepared outside of the sandbox. Paths and process ids are those of outside."""

    secret: str
    """The text in each secret file, and in an environment variable of the server."""
    folder: str
    """A folder in the machine's /tmp."""
    tmp_file: str
    data_file: str
    home_file: str
    neighbour_file: str
    """Files with the secret: in `folder`, in the data folder, in the home folder, in another session's folder."""
    database: str
    runtime_file: str
    output_file: str
    repository_file: str
    sessions: str
    """The folder of all sessions' folders."""
    neighbour: str
    """The name of another session's folder."""
    code: str
    """The folder of the zygote's code."""
    shared_memory: str
    """A file with the secret in /dev/shm."""
    system_v_key: int
    """Of shared memory, a queue and a semaphore."""
    tcp_port: int
    tcp6_port: int
    udp_port: int
    server_port: int
    unix_stream: str
    unix_datagram: str
    unix_abstract: str
    pids: dict[str, int]
    """Of `server`, `zygote`, `sleeper`, which is the test's, and of another session's `init` and `interpreter`."""
    first_process: int
    """Process 1 of the sandbox, which is its own. In the control, a process of the test in its place: the machine's
    is left alone."""

    def written(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


class MissedError(Exception):
    """The attempt has led to nothing. The message says to what."""


@dataclass(frozen=True)
class Probe:
    """An attempt to leave the sandbox: `act(given, *arguments)` returns if it has succeeded, and else raises."""

    name: str
    topic: str
    act: Callable[..., None]
    arguments: tuple[Any, ...]
    needs: tuple[str, ...]
    """What the control needs: `root`, `route` (a network), `ipv6`, `owner` (of this Python and the repository)."""
    may_lack: tuple[int, ...]
    """Errors which say that the machine lacks what the control needs, such as a device or a part of the kernel."""
    without_control: str
    """Why there is no control; empty: there is one."""


PROBES: dict[str, Probe] = {}
"""By name. Filled by `load`."""


def probe(
    *needs: str,
    cases: Mapping[str, tuple[Any, ...]] | None = None,
    may_lack: tuple[int, ...] = (),
    without_control: str = "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function a probe, or one for each of `cases`, by what its name ends with."""

    def register(act: Callable[..., None]) -> Callable[..., None]:
        topic = act.__module__.rpartition(".")[2]
        for case, arguments in (cases or {"": ()}).items():
            name = f"{topic}.{act.__name__}" + (f"[{case}]" if case else "")
            assert name not in PROBES, name
            PROBES[name] = Probe(name, topic, act, arguments, needs, may_lack, without_control)
        return act

    return register


def load() -> dict[str, Probe]:
    """All probes."""
    for topic in TOPICS:
        importlib.import_module(f".{topic}", __package__)
    return PROBES


def run(name: str, given: str) -> None:
    """Run a probe, and print its outcome."""
    importlib.import_module(f".{name.partition('.')[0]}", __package__)
    found = PROBES[name]
    folder = os.getcwd()
    try:
        found.act(Given(**json.loads(given)), *found.arguments)
    except Exception as error:  # boundary: the outcome is what is asked for
        print(refusal(error), flush=True)
    else:
        print(REACHED, flush=True)
    finally:
        os.chdir(folder)


def run_each(topic: str, given: str) -> None:
    """Run all probes of a topic, each in a process of its own, and print `<name> <outcome>`. For the controls."""
    importlib.import_module(f".{topic}", __package__)
    for name, found in PROBES.items():
        if found.topic == topic:
            print(name, end=" ", flush=True)
            child = os.fork()
            if child == 0:
                run(name, given)
                os._exit(0)
            os.waitpid(child, 0)


def refusal(error: Exception) -> str:
    """The line that is printed: `REFUSED: <type> <number> <message>`, where the number is 0 if there is none."""
    number = error.errno if isinstance(error, OSError) and error.errno else 0
    return f"{REFUSED}: {type(error).__name__} {number} {str(error)[:200]!r}"


# What probes use.

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def checked(result: int, what: str) -> int:
    """The result of a function of libc. Raises OSError if it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def system_call(number: int, *arguments: Any) -> int:
    """A system call by its number. Raises OSError."""
    converted = (ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
    return checked(int(libc.syscall(ctypes.c_long(number), *converted)), f"system call {number}")


def looked_at(number: int, *arguments: Any) -> None:
    """Make a system call with arguments that mean nothing. Returns if the kernel has looked at them. Raises OSError
    if it refuses the call, or does not know it."""
    try:
        system_call(number, *arguments)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS, errno.EACCES):
            raise


def in_child(act: Callable[[], object]) -> None:
    """Do something in a child process, which it may end. Raises what it raises, as OSError or `MissedError`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            os.write(writing, b"0 done")
        except BaseException as error:  # boundary: the process's end
            number = error.errno if isinstance(error, OSError) and error.errno else -1
            os.write(writing, f"{number} {error}".encode(errors="replace"))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise MissedError(f"it was killed by {signal.Signals(os.WTERMSIG(status)).name}")
    if not said and status == 0:  # it has left in the middle, with success
        return
    code, _, text = said.partition(" ")
    if code == "-1":
        raise MissedError(text)
    if code != "0":
        raise OSError(int(code), text)


def in_thread(act: Callable[[], object]) -> None:
    """Do something in another thread. Raises what it raises."""
    errors: list[Exception] = []

    def work() -> None:
        try:
            act()
        except Exception as error:  # boundary: it is raised in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def expect(found: object, what: str) -> None:
    """Raises `MissedError` if `found` is false."""
    if not found:
        raise MissedError(what)


def read_some(path: str) -> bytes:
    """The first bytes of a file. Raises OSError, and `MissedError` if there are none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        data = os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)
    expect(data, f"{path} is empty")
    return data
