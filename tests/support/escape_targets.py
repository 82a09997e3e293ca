"""What escape probes aim at, prepared outside of the sandbox; and their controls, which run outside too."""

import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from server.files.folders import SessionFolders
from tests.support import escape_probes
from tests.support.escape_probes.probe import TOPICS, Given
from tests.support.server_process import REPOSITORY, Server

PROBES = Path(escape_probes.__file__).parent
VARIABLE = "ESCAPE_PROBES_SECRET"
"""In the server's environment."""
NEIGHBOUR = "neighbour"
CONTROL_SECONDS = 60.0
IPC_CREATE, IPC_REMOVE = 0o1000, 0


def run_cell(server: Server, session: str, code: str, **more: Any) -> dict[str, Any]:
    """Run a cell, and return the answer."""
    answer = server.session.post(f"/sessions/{session}/code", json={"code": code, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def files_of(server: Server, session: str) -> Path:
    """The folder of a session's files, as the server sees it."""
    name = SessionFolders(Path()).of("main", session).files.parent.name
    return next((server.output_file.parent / "data").glob(f"*/{name}")) / "files"


def add_probes(folder: Path) -> None:
    """Copy the probes' code into `folder`."""
    shutil.copytree(PROBES, folder / PROBES.name, ignore=shutil.ignore_patterns("__pycache__"))


@contextmanager
def targets(server: Server, secret: str, has_own_processes: bool) -> Iterator[Given]:
    """Everything that probes aim at. `secret`: also in the server's environment, as `VARIABLE`. `has_own_processes`:
    whether a sandbox has process ids of its own."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="escape-")))
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=Path.home(), prefix=".escape-")))
        data = server.output_file.parent / "data"
        shared = Path("/dev/shm") / f"escape-{secret}"
        for path in (folder / "secret", home / "secret", data / "secret", shared):
            path.write_text(secret)
        opened.callback(shared.unlink)
        run_cell(server, NEIGHBOUR, f"open('secret', 'w').write({secret!r})")
        neighbour = files_of(server, NEIGHBOUR)
        sleeper = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
        opened.callback(sleeper.wait)
        opened.callback(sleeper.kill)
        names = {"hearth-zygote": "zygote", "hearth-init": "init", "hearth-sandbox": "interpreter"}
        # The oldest ones: a sandbox that is made at this moment has other processes.
        pids = {names[one.name]: one.pid for one in reversed(_below(server)) if one.name in names}
        yield Given(
            secret=secret,
            folder=str(folder),
            tmp_file=str(folder / "secret"),
            data_file=str(data / "secret"),
            home_file=str(home / "secret"),
            neighbour_file=str(neighbour / "secret"),
            database=str(next(data.glob("*.db"))),
            runtime_file=str(server.runtime_file),
            output_file=str(server.output_file),
            repository_file=str(REPOSITORY / "pyproject.toml"),
            sessions=str(neighbour.parents[1]),
            neighbour=neighbour.parent.name,
            code=str(REPOSITORY / "server" / "sandbox" / "inside"),
            shared_memory=str(shared),
            system_v_key=opened.enter_context(_system_v()),
            tcp_port=opened.enter_context(_listener(socket.AF_INET, "127.0.0.1")),
            tcp6_port=opened.enter_context(_listener(socket.AF_INET6, "::1")) if has_ipv6() else 0,
            udp_port=opened.enter_context(_answering()),
            server_port=int(server.url.rpartition(":")[2]),
            unix_stream=opened.enter_context(_unix(str(folder / "stream"), socket.SOCK_STREAM)),
            unix_datagram=opened.enter_context(_unix(str(folder / "datagram"), socket.SOCK_DGRAM)),
            unix_abstract=opened.enter_context(_unix(f"\0escape-{secret}", socket.SOCK_STREAM)).lstrip("\0"),
            first_process=1 if has_own_processes else pids["init"],
            pids={"server": server.process.pid, "sleeper": sleeper.pid, **pids},
        )


def controls(given: Given, folder: Path) -> dict[str, str]:
    """Run all probes outside, as the server's user. Returns the outcome of each, by its name. `folder`: an empty one,
    in place of the session's."""
    add_probes(folder)
    given = replace(given, first_process=given.pids["sleeper"])
    outcomes: dict[str, str] = {}
    # In place of descriptors that a sandbox would inherit from the server.
    with open(given.tmp_file) as file, socket.socket() as made:
        for topic in TOPICS:
            code = f"from {PROBES.name} import probe; probe.run_each({topic!r}, {given.written()!r})"
            ended = subprocess.run(
                [sys.executable, "-c", code],
                cwd=folder,
                env={**os.environ, VARIABLE: given.secret},
                pass_fds=[file.fileno(), made.fileno()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CONTROL_SECONDS,
                check=False,
            )
            assert ended.returncode == 0, ended.stderr
            for line in ended.stdout.splitlines():
                name, _, outcome = line.partition("] ") if "[" in line.partition(": ")[0] else line.partition(" ")
                outcomes[f"{name}]" if "[" in name else name] = outcome
    return outcomes


def what_is_here() -> set[str]:
    """What controls may need, and this machine has: `root`, `route`, `ipv6`, and `owner`: this Python with its
    packages, and the repository, are this user's."""
    found = {"root"} if os.geteuid() == 0 else set()
    lines = Path("/proc/net/route").read_text().splitlines()[1:]
    if any(line.split()[1] == "00000000" for line in lines):
        found.add("route")
    own = (sysconfig.get_path("purelib"), os.path.dirname(os.__file__), f"{sys.prefix}/pyvenv.cfg", REPOSITORY)
    if all(os.access(path, os.W_OK) for path in own):
        found.add("owner")
    return found | ({"ipv6"} if has_ipv6() else set())


def has_ipv6() -> bool:
    """Whether a service may listen at ::1."""
    try:
        with socket.socket(socket.AF_INET6) as made:
            made.bind(("::1", 0))
    except OSError:
        return False
    return True


@dataclass(frozen=True, order=True)
class _Found:
    """A process of the server's."""

    began: float
    pid: int
    name: str


def _below(server: Server) -> list[_Found]:
    """The processes below the server, the oldest first."""
    found = []
    for one in psutil.Process(server.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found.append(_Found(one.create_time(), one.pid, one.name()))
    return sorted(found)


@contextmanager
def _listener(family: socket.AddressFamily, host: str) -> Iterator[int]:
    with closing(socket.socket(family)) as made:
        made.bind((host, 0))
        made.listen(100)
        yield made.getsockname()[1]


@contextmanager
def _answering() -> Iterator[int]:
    """A service that answers each datagram with `pong`."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as made:
        made.bind(("127.0.0.1", 0))

        def answer() -> None:
            while (asked := made.recvfrom(100))[0] != b"end":
                made.sendto(b"pong", asked[1])

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield made.getsockname()[1]
        made.sendto(b"end", made.getsockname())
        thread.join()


@contextmanager
def _unix(name: str, kind: socket.SocketKind) -> Iterator[str]:
    with closing(socket.socket(socket.AF_UNIX, kind)) as made:
        made.bind(name)
        if kind is socket.SOCK_STREAM:
            made.listen(100)
        yield name


@contextmanager
def _system_v() -> Iterator[int]:
    """The key of shared memory, a queue and a semaphore."""
    libc = ctypes.CDLL(None, use_errno=True)
    key = 0x48000000 | secrets.randbits(24)
    memory = libc.shmget(key, ctypes.c_size_t(4096), IPC_CREATE | 0o600)
    queue = libc.msgget(key, IPC_CREATE | 0o600)
    semaphore = libc.semget(key, 1, IPC_CREATE | 0o600)
    assert min(memory, queue, semaphore) >= 0, os.strerror(ctypes.get_errno())
    try:
        yield key
    finally:
        libc.shmctl(memory, IPC_REMOVE, None)
        libc.msgctl(queue, IPC_REMOVE, None)
        libc.semctl(semaphore, 0, IPC_REMOVE)
