"""Files that would run with their owner's rights outside, and programs that do."""

import errno
import os
import stat
import struct

from .probe import Given, checked, expect, libc, probe, system_call

USER, GROUP, BOTH = 0o4755, 0o2755, 0o6755
MODES = {"user": (USER,), "group": (GROUP,), "both": (BOTH,)}
NO_CALL = (errno.ENOSYS, errno.EOPNOTSUPP)
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400


def _fresh(name: str) -> str:
    if os.path.lexists(name):
        os.unlink(name)
    return name


def _file(name: str = "plain") -> str:
    os.close(os.open(_fresh(name), os.O_CREAT | os.O_WRONLY, 0o755))
    return name


def _has_bits(path: str) -> None:
    expect(os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID), "it is an ordinary file")


@probe(cases=MODES)
def by_chmod(given: Given, mode: int) -> None:
    os.chmod(_file(), mode)
    _has_bits("plain")


@probe(cases=MODES)
def by_fchmod(given: Given, mode: int) -> None:
    with open(_file()) as file:
        os.fchmod(file.fileno(), mode)
    _has_bits("plain")


@probe(cases=MODES)
def by_a_number_of_chmod(given: Given, mode: int) -> None:
    system_call(90, _file().encode(), mode)
    _has_bits("plain")


@probe()
def by_chmod_with_high_bits(given: Given) -> None:
    system_call(90, _file().encode(), 1 << 32 | USER)
    _has_bits("plain")


@probe()
def by_a_number_of_fchmodat(given: Given) -> None:
    system_call(268, AT_FDCWD, _file().encode(), USER)
    _has_bits("plain")


@probe(may_lack=NO_CALL)
def by_a_number_of_fchmodat2(given: Given) -> None:
    system_call(452, AT_FDCWD, _file().encode(), USER, 0)
    _has_bits("plain")


@probe(cases=MODES)
def by_open(given: Given, mode: int) -> None:
    os.close(os.open(_fresh("opened"), os.O_CREAT | os.O_WRONLY, mode))
    _has_bits("opened")


@probe()
def by_a_number_of_open(given: Given) -> None:
    os.close(system_call(2, _fresh("opened").encode(), os.O_CREAT | os.O_WRONLY, USER))
    _has_bits("opened")


@probe()
def by_a_number_of_creat(given: Given) -> None:
    os.close(system_call(85, _fresh("opened").encode(), USER))
    _has_bits("opened")


@probe(may_lack=NO_CALL)
def by_openat2(given: Given) -> None:
    how = struct.pack("QQQ", os.O_CREAT | os.O_WRONLY, USER, 0)
    os.close(system_call(437, AT_FDCWD, _fresh("opened").encode(), how, len(how)))
    _has_bits("opened")


@probe(may_lack=(*NO_CALL, errno.EISDIR))
def by_a_file_without_a_name(given: Given) -> None:
    descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR, USER)
    source, target = f"/proc/self/fd/{descriptor}".encode(), _fresh("named").encode()
    checked(libc.linkat(AT_FDCWD, source, AT_FDCWD, target, AT_SYMLINK_FOLLOW), "linkat")
    os.close(descriptor)
    _has_bits("named")


@probe()
def by_mknod(given: Given) -> None:
    os.mknod(_fresh("node"), stat.S_IFREG | USER)
    _has_bits("node")


@probe()
def by_mkfifo(given: Given) -> None:
    os.mkfifo(_fresh("pipe"), USER)
    _has_bits("pipe")


@probe()
def by_mkdir(given: Given) -> None:
    if os.path.isdir("folder"):
        os.rmdir("folder")
    os.mkdir("folder")
    os.chmod("folder", 0o2755)
    _has_bits("folder")


@probe()
def by_a_file_in_memory(given: Given) -> None:
    descriptor = os.memfd_create("program")
    try:
        os.fchmod(descriptor, USER)
        _has_bits(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@probe()
def in_the_temporary_folder(given: Given) -> None:
    path = _file("/tmp/hearth-probe")
    try:
        os.chmod(path, USER)
        _has_bits(path)
    finally:
        os.unlink(path)


@probe(may_lack=(errno.ENOENT,))
def starts_a_program_with_its_rights(given: Given) -> None:
    """Whether one of the system's programs would get the rights of its owner."""
    found = [
        entry.path for entry in os.scandir("/usr/bin") if entry.is_file() and entry.stat().st_mode & stat.S_ISUID
    ]
    if not found:
        raise OSError(errno.ENOENT, "the system has none")
    expect(not os.statvfs(found[0]).f_flag & os.ST_NOSUID, "the folder is mounted nosuid")
