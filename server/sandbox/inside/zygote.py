"""The zygote: a process that has imported what people's code usually imports, and is forked for each sandbox.

```
zygote ── (the parent of its namespaces, ends at once) ── init ── interpreter ── what the code starts
```
It has one thread, and executes no code of people or models. The control socket gives `{"do": "start"}` with two
descriptors, the interpreter's channel and its output, and closes when the server ends; then everything ends.
"""

import array
import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from . import kernel, landlock
from .channel import Channel
from .interpreter import Interpreter
from .limits import limit, limit_memory, others
from .settings import Mode, Settings
from .warm_up import warm_up

READY = "ready"
NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)
MACHINE_SHOWN = {"sys", "cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "uptime", "version", "vmstat"}
"""What a sandbox sees of the machine in /proc, because libraries read it. `sys` can't be written."""


def main() -> None:
    """Serve until the server closes the control socket. The program's one argument is `Settings`, as JSON."""
    settings = Settings.read(sys.argv[1])
    began = time.monotonic()
    control = socket.socket(fileno=settings.control)
    kernel.name_process("hearth-zygote")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left_out = preload(settings.preload)
    warm_up()
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise SystemExit(f"An import has started {threads - 1} threads, which a fork would lose.")
    gc.collect()
    gc.freeze()
    if settings.mode is not Mode.NAMESPACES:
        kernel.control_process(kernel.PR_SET_CHILD_SUBREAPER, 1)
    said = {READY: round(time.monotonic() - began, 3), "left_out": left_out}
    control.send(json.dumps(said).encode())
    while True:
        message, descriptors = _receive(control)
        if not message:
            if settings.mode is not Mode.NAMESPACES:
                _kill_the_others()
            return
        # Without a child the sockets close, which is how the server learns of it.
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                control.close()
                _start(descriptors, settings)
        for descriptor in descriptors:
            os.close(descriptor)
        # It ends soon, and is reaped when the next one is made.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def preload(names: Sequence[str]) -> dict[str, str]:
    """Import modules. Returns those that can't be imported, and why."""
    left_out = {}
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # boundary: any package
            left_out[name] = f"{type(error).__name__}: {error}"[:500]
    return left_out


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    message, ancillary, _, _ = control.recvmsg(4096, socket.CMSG_SPACE(2 * 4))
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return message, list(descriptors)


def _start(descriptors: list[int], settings: Settings) -> NoReturn:
    """In the forked process. Never returns."""
    try:
        kernel.name_process("hearth-fork")
        channel = Channel(socket.socket(fileno=descriptors[0]))
        os.setsid()
        if settings.mode is Mode.NAMESPACES:
            user, group = os.getuid(), os.getgid()
            kernel.unshare(NAMESPACES)
            kernel.map_user(user, group)
        if os.fork() == 0:
            _be_init(channel, descriptors[1], settings)
    except BaseException as error:  # boundary: the process's end
        _say(error)
    os._exit(0)


def _be_init(channel: Channel, output: int, settings: Settings) -> NoReturn:
    """The first process of its namespaces: when it ends, the kernel kills all the others."""
    try:
        kernel.name_process("hearth-init")
        if settings.mode is Mode.NAMESPACES:
            kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        else:
            kernel.control_process(kernel.PR_SET_CHILD_SUBREAPER, 1)
        channel.send({"role": "init"})
        interpreter = os.fork()
        if interpreter == 0:
            _be_interpreter(channel, output, settings)
        channel.close()
        os.close(output)
        if settings.mode is Mode.NAMESPACES:
            kernel.control_process(kernel.PR_SET_DUMPABLE, 0)
            _seal(settings)
        _reap_until(interpreter)
        if settings.mode is not Mode.NAMESPACES:
            _kill_the_others()
    except BaseException as error:  # boundary: the process's end
        _say(error)
    os._exit(0)


def _reap_until(interpreter: int) -> None:
    while True:
        try:
            ended, _ = os.wait()
        except InterruptedError:
            continue
        if ended == interpreter:
            return


def _kill_the_others() -> None:
    """Without namespaces: kill and reap what the interpreter leaves. All of it is below this process, a subreaper."""
    while True:
        with contextlib.suppress(OSError):
            for name in os.listdir("/proc"):
                if name.isdigit() and _is_below(int(name), os.getpid()):
                    with contextlib.suppress(OSError):
                        os.kill(int(name), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            return False
        if pid == ancestor:
            return True
    return False


def _be_interpreter(channel: Channel, output: int, settings: Settings) -> NoReturn:
    try:
        kernel.name_process("hearth-sandbox")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(nothing)
        os.close(output)
        _default_signals()
        gc.enable()
        interpreter = Interpreter(channel, settings.figure_dpi)
        channel.send({"role": "interpreter"})
        opened = channel.receive()
        if opened is not None:
            _enter(opened["folder"], settings)
            working, state = settings.working_folder(opened["folder"]), settings.state_folder(opened["folder"])
            interpreter.open(working, state, opened["set_aside"])
            interpreter.serve()
    except BaseException as error:  # boundary: the process's end
        _say(error)
        os._exit(1)
    os._exit(0)


def _enter(folder: str, settings: Settings) -> None:
    """Show the session's folder, hide all others, and give up every right."""
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("A second thread would not lose its rights.")
    _seed()
    if settings.mode is Mode.NAMESPACES:
        _mount_session(folder, settings)
    for path in (settings.working_folder(folder), settings.state_folder(folder)):
        os.chmod(path, 0o700)  # the session's code may have closed it
    os.chdir(settings.working_folder(folder))
    _limit(settings)
    if settings.mode is Mode.LANDLOCK:
        landlock.restrict(settings.readable, [settings.working_folder(folder), settings.state_folder(folder)])
    _seal(settings)


def _mount_session(folder: str, settings: Settings) -> None:
    hidden = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.bind(f"{settings.sessions}/{folder}/files", settings.working_folder(folder))
    kernel.bind(f"{settings.sessions}/{folder}/state", settings.state_folder(folder))
    kernel.mount("tmpfs", settings.sessions, "tmpfs", hidden | kernel.MS_RDONLY, "size=4k,mode=0555")
    kernel.mount("tmpfs", "/tmp", "tmpfs", hidden, f"size={settings.scratch_bytes},mode=0700,nr_inodes=20k")
    kernel.mount("tmpfs", "/dev/shm", "tmpfs", hidden, f"size={settings.scratch_bytes},mode=0700,nr_inodes=1k")
    kernel.mount("tmpfs", "/dev/pts", "tmpfs", hidden | kernel.MS_RDONLY, "size=4k,mode=0555")
    try:
        kernel.mount("proc", "/proc", "proc", hidden | kernel.MS_NOEXEC)
    except OSError:  # in a container whose /proc is partly hidden, the kernel forbids it
        kernel.mount("tmpfs", "/proc", "tmpfs", hidden | kernel.MS_RDONLY, "size=4k,mode=0555")
        return
    with contextlib.suppress(OSError), open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    _cover_machine()


def _cover_machine() -> None:
    """Hide what /proc shows and sets of the machine. If the server's user is root, then so is a sandbox's for the
    owner's rights of these files, and for some of them no capability is needed."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_RDONLY
    kernel.bind("/proc/sys", "/proc/sys", flags)
    for name in os.listdir("/proc"):
        path = f"/proc/{name}"
        if name.isdigit() or name in MACHINE_SHOWN or os.path.islink(path):
            continue
        if os.path.isdir(path):
            kernel.mount("tmpfs", path, "tmpfs", flags, "size=4k,mode=0555")
        else:
            kernel.mount(os.devnull, path, flags=kernel.MS_BIND)


def _limit(settings: Settings) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: settings.file_bytes,
        resource.RLIMIT_NOFILE: settings.open_files,
        resource.RLIMIT_NPROC: settings.processes + (0 if settings.mode is Mode.NAMESPACES else others()),
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, value in limits.items():
        limit(kind, value)
    if settings.process_memory_bytes:
        limit_memory(settings.process_memory_bytes)


def _seal(settings: Settings) -> None:
    if settings.mode is not Mode.UNSAFE:
        kernel.drop_capabilities()
        kernel.filter_system_calls(settings.filter)


def _seed() -> None:
    """Random numbers of forked processes must differ."""
    random: Any = sys.modules.get("random")
    if random is not None:
        random.seed()
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _default_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _say(error: BaseException) -> None:
    """What the server's log reads if a sandbox can't be made."""
    with contextlib.suppress(OSError):
        os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
