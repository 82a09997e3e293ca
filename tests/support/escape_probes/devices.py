"""Devices and terminals."""

import errno
import fcntl
import os
import pty
import stat

from .probe import Given, expect, probe, read_some, system_call

ABSENT = (errno.ENOENT, errno.ENXIO, errno.ENODEV)
NULL = os.makedev(1, 3)
DISK = os.makedev(7, 0)
TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423
AT_FDCWD = -100


def _fresh(name: str) -> str:
    if os.path.lexists(name):
        os.unlink(name)
    return name


@probe("root", cases={"characters": (stat.S_IFCHR, NULL), "blocks": (stat.S_IFBLK, DISK)})
def makes_a_device(given: Given, kind: int, number: int) -> None:
    os.mknod(_fresh("device"), kind | 0o600, number)


@probe(cases={"a whiteout": (stat.S_IFCHR, 0)})
def makes_a_device_without_rights(given: Given, kind: int, number: int) -> None:
    os.mknod(_fresh("device"), kind | 0o600, number)


@probe("root", cases={"characters": (stat.S_IFCHR, NULL), "blocks": (stat.S_IFBLK, DISK)})
def makes_a_device_by_number(given: Given, kind: int, number: int) -> None:
    system_call(259, AT_FDCWD, _fresh("device").encode(), kind | 0o600, number)


@probe("root")
def makes_a_device_in_memory(given: Given) -> None:
    path = _fresh(f"/dev/shm/hearth-probe-{os.getpid()}")
    os.mknod(path, stat.S_IFCHR | 0o600, NULL)
    os.unlink(path)


@probe(
    "root",
    cases={name: (f"/dev/{name}",) for name in ("kmsg", "mem", "port", "kvm", "fuse", "net/tun", "loop-control")}
    | {name: (f"/dev/{name}",) for name in ("vsock", "hwrng", "nvidiactl", "nvidia0", "uinput", "cpu/0/msr", "vda")}
    | {name: (f"/dev/{name}",) for name in ("vhost-net", "mapper/control", "userfaultfd", "dri/renderD128", "ptmx")},
    # A container may have the device and no right to it.
    may_lack=(*ABSENT, errno.EPERM, errno.EBUSY),
)
def opens_a_device(given: Given, path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


@probe("root", may_lack=ABSENT)
def reads_the_kernels_log(given: Given) -> None:
    read_some("/dev/kmsg")


@probe()
def opens_a_terminal(given: Given) -> None:
    for descriptor in pty.openpty():
        os.close(descriptor)


@probe(cases={"types into it": (TIOCSTI,), "the console": (TIOCLINUX,), "its discipline": (TIOCSETD,)})
def controls_a_terminal(given: Given, request: int) -> None:
    """A pipe is no terminal, which is what the kernel says if it looks."""
    reading, writing = os.pipe()
    try:
        fcntl.ioctl(reading, request, b"x\0\0\0")
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
    finally:
        os.close(reading)
        os.close(writing)


@probe()
def controls_a_terminal_with_high_bits(given: Given) -> None:
    """A filter may compare 64 bits where the kernel reads 32."""
    reading, writing = os.pipe()
    try:
        system_call(16, reading, 1 << 32 | TIOCSTI, b"x")
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
    finally:
        os.close(reading)
        os.close(writing)


@probe()
def sees_many_devices(given: Given) -> None:
    usual = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"}
    found = [
        entry.name for entry in os.scandir("/dev") if stat.S_ISCHR(entry.stat().st_mode) and entry.name not in usual
    ]
    expect(found or os.listdir("/dev/pts"), "there are only the usual ones")
