"""System calls that Python has no function for: namespaces, mounts, capabilities, filters of system calls."""

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION = 0x20080522
LAST_CAPABILITY = 63
BPF_INSTRUCTION_BYTES = 8

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Give this process namespaces of its own (`man 2 unshare`). Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """See `man 2 mount`. Raises OSError."""
    given = (ctypes.c_char_p(text.encode() or None) for text in (source, target, kind))
    done = _libc.mount(*given, ctypes.c_ulong(flags), ctypes.c_char_p(options.encode() or None))
    _check(done, f"mount {target}")


def bind(source: str, target: str, flags: int = MS_NOSUID | MS_NODEV) -> None:
    """Show the folder `source` as `target`. Raises OSError."""
    mount(source, target, flags=MS_BIND)
    mount("", target, flags=MS_BIND | MS_REMOUNT | flags)


def control_process(option: int, value: int = 0, more: object = 0) -> None:
    """See `man 2 prctl`. Raises OSError."""
    _check(_libc.prctl(option, value, more, 0, 0), f"prctl {option}")


def name_process(name: str) -> None:
    """Set the name in `ps` and `top`; 15 characters at most."""
    _check(_libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0), "prctl")


def map_user(uid: int, gid: int) -> None:
    """In a new user namespace: this user and group have the same numbers as outside, and there are no others."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop_capabilities() -> None:
    """Give up all capabilities, and the possibility to get some by starting a program. Holds for this thread alone.
    Raises OSError."""
    for capability in range(LAST_CAPABILITY + 1):
        # The kernel has fewer: those that it does not know are refused.
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    control_process(PR_SET_NO_NEW_PRIVS, 1)
    header = _Header(CAPABILITY_VERSION, 0)
    _check(_libc.capset(ctypes.byref(header), (_Sets * 2)()), "capset")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def filter_system_calls(program: bytes) -> None:
    """Load a filter, in the kernel's binary form (BPF). It holds for this thread and all that it starts, for ever.
    Raises OSError."""
    code = ctypes.create_string_buffer(program, len(program))
    filled = _Program(len(program) // BPF_INSTRUCTION_BYTES, ctypes.addressof(code))
    _check(_libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filled), 0, 0), "seccomp")
