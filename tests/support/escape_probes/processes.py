"""Other processes: the server, the zygote, another session's, and a process of the test."""

import ctypes
import errno
import os
import resource
import signal
import struct

from .probe import Given, MissedError, checked, expect, in_child, libc, probe, read_some, system_call

OTHERS = {name: (name,) for name in ("server", "zygote", "init", "interpreter", "sleeper")}
LIVE = {name: (name,) for name in ("server", "zygote", "sleeper")}
"""Those whose memory the server's user may read."""
PTRACE_TRACEME, PTRACE_DETACH, PTRACE_SEIZE = 0, 17, 0x4206
NO_CALL = (errno.ENOSYS,)


@probe(cases=OTHERS)
def signals(given: Given, name: str) -> None:
    os.kill(given.pids[name], 0)


@probe(cases=OTHERS)
def opens_a_descriptor_for_it(given: Given, name: str) -> None:
    os.close(os.pidfd_open(given.pids[name]))


@probe(cases=LIVE)
def reads_its_command(given: Given, name: str) -> None:
    read_some(f"/proc/{given.pids[name]}/cmdline")


@probe("root", cases=LIVE)
def reads_its_memory(given: Given, name: str) -> None:
    os.close(os.open(f"/proc/{given.pids[name]}/mem", os.O_RDWR))


@probe("root", cases=LIVE)
def reads_its_environment(given: Given, name: str) -> None:
    read_some(f"/proc/{given.pids[name]}/environ")


def _seize(pid: int) -> None:
    checked(libc.ptrace(PTRACE_SEIZE, pid, None, None), "ptrace")


@probe("root", cases={"sleeper": ("sleeper",)})
def traces(given: Given, name: str) -> None:
    in_child(lambda: _seize(given.pids[name]))


@probe()
def traces_its_own_child(given: Given) -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        _seize(child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@probe()
def is_traced(given: Given) -> None:
    in_child(lambda: checked(libc.ptrace(PTRACE_TRACEME, 0, None, None), "ptrace"))


def _vector(held: ctypes.Array[ctypes.c_char]) -> bytes:
    return struct.pack("QQ", ctypes.addressof(held), len(held))


@probe(cases={"readv": (310,), "writev": (311,)})
def copies_memory_of_a_process(given: Given, number: int) -> None:
    """Its own: the call is refused as such."""
    mine, others = ctypes.create_string_buffer(b"a", 2), ctypes.create_string_buffer(b"b", 2)
    system_call(number, os.getpid(), _vector(mine), 1, _vector(others), 1, 0)


@probe("root")
def takes_a_descriptor_of_the_server(given: Given) -> None:
    process = os.pidfd_open(given.pids["server"])
    os.close(system_call(438, process, 0, 0))


@probe()
def takes_a_descriptor_of_its_own(given: Given) -> None:
    process = os.pidfd_open(os.getpid())
    os.close(system_call(438, process, 0, 0))


@probe(
    "root",
    cases={name: (name,) for name in ("environ", "maps", "auxv", "stack", "syscall")},
    may_lack=(errno.ENOENT,),
)
def reads_of_the_first_process(given: Given, name: str) -> None:
    """Its own init, which is not dumpable."""
    read_some(f"/proc/{given.first_process}/{name}")


@probe("root")
def opens_the_memory_of_the_first_process(given: Given) -> None:
    os.close(os.open(f"/proc/{given.first_process}/mem", os.O_RDONLY))


@probe("root", cases={name: (name,) for name in ("map_files", "cwd/", "root/")})
def lists_of_the_first_process(given: Given, name: str) -> None:
    os.listdir(f"/proc/{given.first_process}/{name}")


@probe("root")
def sees_what_the_first_process_has_open(given: Given) -> None:
    os.readlink(f"/proc/{given.first_process}/fd/0")


@probe("root")
def traces_the_first_process(given: Given) -> None:
    in_child(lambda: _seize(given.first_process))


@probe()
def finds_the_server(given: Given) -> None:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if b"app.py" in read_some(f"/proc/{name}/cmdline"):
                    return
            except (OSError, MissedError):  # the kernel's own processes have no command
                continue
    raise OSError(errno.ESRCH, "it is not there")


@probe()
def finds_the_secret_in_an_environment(given: Given) -> None:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if given.secret.encode() in file.read():
                        return
            except OSError:
                continue
    raise OSError(errno.ESRCH, "it is in none")


@probe()
def asks_for_its_group(given: Given) -> None:
    os.getpgid(given.pids["sleeper"])


@probe()
def sets_its_priority(given: Given) -> None:
    pid = given.pids["sleeper"]
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))


@probe()
def sets_its_processors(given: Given) -> None:
    pid = given.pids["sleeper"]
    os.sched_setaffinity(pid, os.sched_getaffinity(pid))


@probe("root")
def sets_its_limits(given: Given) -> None:
    pid = given.pids["sleeper"]
    resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(pid, resource.RLIMIT_CORE))


@probe("root")
def reads_its_io(given: Given) -> None:
    read_some(f"/proc/{given.pids['sleeper']}/io")


@probe(may_lack=NO_CALL)
def compares_processes(given: Given) -> None:
    system_call(312, os.getpid(), os.getpid(), 1, 0, 0)


@probe("root", may_lack=NO_CALL)
def moves_its_pages(given: Given) -> None:
    system_call(279, given.pids["sleeper"], 0, 0, 0, 0, 0)


@probe()
def queues_a_signal(given: Given) -> None:
    """The null signal, with data."""
    system_call(129, given.pids["sleeper"], 0, struct.pack("iii", 0, 0, -1) + bytes(116))


@probe()
def signals_a_thread(given: Given) -> None:
    system_call(234, given.pids["sleeper"], given.pids["sleeper"], 0)


@probe()
def signals_a_thread_group_of_the_server(given: Given) -> None:
    os.killpg(os.getpgid(given.pids["server"]), 0)


@probe()
def counts_many_processes(given: Given) -> None:
    expect(len([name for name in os.listdir("/proc") if name.isdigit()]) > 5, "there are only its own")
