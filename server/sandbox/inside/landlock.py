"""Landlock: files, signals and abstract sockets that a process and all that it starts may reach.

The kernel's documentation: https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import os
import struct

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of system calls, the same on all machines."""
ASK_VERSION = 1
PATH_BENEATH = 1
NEEDED_VERSION = 6
"""The first one that also keeps signals and abstract sockets inside."""

READ_FILE, READ_FOLDER, EXECUTE = 1 << 2, 1 << 3, 1 << 0
ALL_OF_FILES = (1 << 16) - 1
ALL_OF_TCP = 0b11
SIGNALS_AND_ABSTRACT_SOCKETS = 0b11
FOR_FILES = EXECUTE | 1 << 1 | READ_FILE | 1 << 14 | 1 << 15
"""The rights that a rule about a file, and not about a folder, may give."""

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The kernel's version of Landlock; 0 if it has none."""
    return max(int(_libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION)), 0)


def restrict(readable: list[str], writable: list[str]) -> None:
    """Let this process reach nothing but these files and folders. Raises OSError, and RuntimeError for a kernel that
    can't do all of it."""
    if version() < NEEDED_VERSION:
        raise RuntimeError(f"Landlock has version {version()} here, and {NEEDED_VERSION} is needed.")
    attributes = struct.pack("QQQ", ALL_OF_FILES, ALL_OF_TCP, SIGNALS_AND_ABSTRACT_SOCKETS)
    ruleset = _call(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    for path in readable:
        _allow(ruleset, path, READ_FILE | READ_FOLDER | EXECUTE)
    for path in writable:
        _allow(ruleset, path, ALL_OF_FILES & ~(1 << 6 | 1 << 11))  # no devices
    for path in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"):
        _allow(ruleset, path, READ_FILE | 1 << 1)
    _libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which the next call is refused
    _call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not os.path.isdir(path):
        rights &= FOR_FILES
    _call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", rights, opened), 0)
    os.close(opened)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return result
