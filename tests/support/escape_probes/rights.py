"""Users, groups and capabilities. In the control, in a child process."""

import ctypes
import errno
import os
import resource
import struct
import time

from .probe import Given, checked, expect, in_child, libc, probe, system_call

PR_CAPBSET_READ, PR_SET_SECUREBITS, PR_SET_MM, PR_CAP_AMBIENT = 23, 28, 35, 47
CAPABILITY_VERSION = 0x20080522
ALL = 0xFFFFFFFF
SYS_ADMIN, NET_ADMIN, DAC_OVERRIDE, SETUID, SYS_PTRACE, MKNOD = 21, 12, 1, 7, 19, 27


def _capabilities() -> list[int]:
    """Effective, permitted and inheritable ones, in two words each."""
    held = ctypes.create_string_buffer(24)
    system_call(125, struct.pack("Ii", CAPABILITY_VERSION, 0), held)
    return list(struct.unpack("6I", held.raw))


@probe("root", cases={"another": (54321,), "root": (0,)})
def becomes_a_user(given: Given, user: int) -> None:
    in_child(lambda: os.setuid(user))


@probe("root", cases={"another": (54321,), "root": (0,)})
def becomes_a_group(given: Given, group: int) -> None:
    in_child(lambda: os.setgid(group))


@probe("root")
def becomes_three_users(given: Given) -> None:
    in_child(lambda: os.setresuid(1, 2, 3))


@probe("root")
def becomes_a_user_for_files(given: Given) -> None:
    """setfsuid reports no error, but what it was before: it is called twice."""

    def act() -> None:
        libc.setfsuid(54321)
        expect(libc.setfsuid(54321) == 54321, "it is as before")

    in_child(act)


@probe("root", cases={"none": ([],), "root": ([0],)})
def joins_groups(given: Given, groups: list[int]) -> None:
    in_child(lambda: os.setgroups(groups))


@probe("root", cases={"effective": (0,), "permitted": (1,), "inheritable": (2,)})
def has_capabilities(given: Given, kind: int) -> None:
    def act() -> None:
        held = _capabilities()
        if kind == 2:
            held[2] = held[1]
            system_call(126, struct.pack("Ii", CAPABILITY_VERSION, 0), struct.pack("6I", *held))
        expect(held[kind], "it has none")

    in_child(act)


@probe("root")
def takes_all_capabilities(given: Given) -> None:
    def act() -> None:
        held = _capabilities()
        wanted = [held[0] | 1 << SYS_ADMIN, held[1] | 1 << SYS_ADMIN, held[2], *held[3:]]
        system_call(126, struct.pack("Ii", CAPABILITY_VERSION, 0), struct.pack("6I", *wanted))

    in_child(act)


@probe(
    "root",
    cases={
        "SYS_ADMIN": (SYS_ADMIN,),
        "NET_ADMIN": (NET_ADMIN,),
        "DAC_OVERRIDE": (DAC_OVERRIDE,),
        "SETUID": (SETUID,),
        "SYS_PTRACE": (SYS_PTRACE,),
        "MKNOD": (MKNOD,),
    },
)
def may_get_a_capability(given: Given, number: int) -> None:
    expect(checked(libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0), "prctl"), "it is not in the bounding set")


@probe("root")
def raises_an_ambient_capability(given: Given) -> None:
    def act() -> None:
        held = _capabilities()
        held[2] = held[1]
        system_call(126, struct.pack("Ii", CAPABILITY_VERSION, 0), struct.pack("6I", *held))
        checked(libc.prctl(PR_CAP_AMBIENT, 2, SYS_ADMIN, 0, 0), "prctl")

    in_child(act)


@probe("root")
def sets_secure_bits(given: Given) -> None:
    in_child(lambda: checked(libc.prctl(PR_SET_SECUREBITS, 1, 0, 0, 0), "prctl"))


@probe()
def may_get_rights_by_a_program(given: Given) -> None:
    with open("/proc/self/status") as file:
        expect("NoNewPrivs:\t0" in file.read(), "it may not")


@probe()
def has_no_filter(given: Given) -> None:
    with open("/proc/self/status") as file:
        expect("Seccomp:\t0" in file.read(), "it has one")


@probe("root")
def lowers_its_nice_value(given: Given) -> None:
    in_child(lambda: os.nice(-5))


@probe("root")
def becomes_real_time(given: Given) -> None:
    in_child(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))


@probe()
def opens_many_files(given: Given) -> None:
    in_child(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)))


@probe()
def writes_a_core_dump(given: Given) -> None:
    in_child(lambda: resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096)))


@probe("root")
def locks_memory(given: Given) -> None:
    held = ctypes.create_string_buffer(1 << 20)
    checked(libc.mlock(held, ctypes.c_size_t(len(held))), "mlock")


@probe("root")
def changes_the_owner_of_a_file(given: Given) -> None:
    with open("owned", "w"):
        pass
    os.chown("owned", 54321, 54321)


@probe("root")
def makes_a_file_immutable(given: Given) -> None:
    """By the attribute `append only`, and back. Needs CAP_LINUX_IMMUTABLE."""
    import fcntl

    with open("immutable", "w") as file:
        flags = struct.unpack("l", fcntl.ioctl(file.fileno(), 0x80086601, bytes(8)))[0]
        fcntl.ioctl(file.fileno(), 0x40086602, struct.pack("l", flags | 0x20))
        fcntl.ioctl(file.fileno(), 0x40086602, struct.pack("l", flags))


@probe("root", may_lack=(errno.EOPNOTSUPP,))
def gives_a_file_capabilities(given: Given) -> None:
    with open("capable", "w"):
        pass
    os.setxattr("capable", "security.capability", struct.pack("<5I", 0x02000001, 1 << 21, 0, 0, 0))


@probe("root", may_lack=(errno.EOPNOTSUPP,))
def sets_a_trusted_attribute(given: Given) -> None:
    with open("trusted", "w"):
        pass
    os.setxattr("trusted", "trusted.hearth", b"1")


@probe("root")
def sets_the_clock(given: Given) -> None:
    """With nothing to set."""
    system_call(164, None, None)


@probe()
def reads_how_the_clock_is_adjusted(given: Given) -> None:
    """It would also set it; `clock_gettime` is the way to read a clock."""
    expect(time.clock_gettime(time.CLOCK_REALTIME), "there is no clock")
    system_call(159, ctypes.create_string_buffer(256))


@probe("root", cases={"host name": (170,), "domain": (171,)})
def names_the_machine(given: Given, number: int) -> None:
    """With a name that is too long, which the kernel says after it has looked for the right."""
    try:
        system_call(number, b"x" * 100, 100)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
