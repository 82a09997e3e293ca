"""Opening what is in a folder that hostile code can change: relative to a descriptor, and through no link.

With openat2 the kernel resolves the whole path that way: https://man7.org/linux/man-pages/man2/openat2.2.html. Where
the kernel or a container's filter has no openat2, each component is opened on its own.
"""

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SYS_OPENAT2 = 437
"""The same number on every architecture of Linux that Python supports."""
HAS_OPENAT2 = sys.platform == "linux"
"""Elsewhere the number is that of another system call."""
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x02, 0x04, 0x08
ATTEMPTS = 20
"""openat2 gives up with EAGAIN when something is renamed at the same time."""
UNAVAILABLE = (errno.ENOSYS, errno.EPERM)
"""No such system call; or a filter of a container refuses it."""
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW
"""A FIFO and a file with a lease don't block."""
FOLDER = READ | os.O_DIRECTORY

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_root(folder: Path) -> int:
    """A descriptor of a session's own folder, whose parents nobody else can change. Raises `OSError`."""
    try:
        root = os.open(folder, FOLDER)
    except PermissionError:
        # Code has changed the mode of its working directory.
        os.chmod(folder, 0o700)
        return os.open(folder, FOLDER)
    if os.fstat(root).st_mode & 0o700 != 0o700:
        os.fchmod(root, 0o700)
    return root


def open_beneath(root: int, path: str, flags: int = READ) -> int:
    """A descriptor of what is at the relative `path` below the folder `root`. Raises `OSError`: ELOOP or ENOTDIR
    where there is a link, EXDEV for an absolute path, ENOENT for one with `..`."""
    encoded = os.fsencode(path)
    if b"\0" in encoded or ".." in path.split("/"):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if not HAS_OPENAT2:
        return open_by_components(root, path, flags)
    how = _OpenHow(flags, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    for _ in range(ATTEMPTS):
        found: int = _libc.syscall(
            ctypes.c_long(SYS_OPENAT2),
            ctypes.c_int(root),
            ctypes.c_char_p(encoded),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if found >= 0:
            return found
        number = ctypes.get_errno()
        if number in UNAVAILABLE:
            return open_by_components(root, path, flags)
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


def open_by_components(root: int, path: str, flags: int = READ) -> int:
    """What `open_beneath` does, without openat2."""
    *folders, last = path.split("/")
    if any(part in ("", "..") for part in (*folders, last)):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    folder = os.dup(root)
    try:
        for part in folders:
            inner = os.open(part, FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(last, flags | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


@contextmanager
def opened(descriptor: int) -> Iterator[int]:
    """Closes the descriptor at the end of the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_regular(root: int, path: str) -> tuple[int, os.stat_result]:
    """A regular file below `root`, to read. Raises `OSError`, and EINVAL if it is something else."""
    descriptor = open_beneath(root, path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status
