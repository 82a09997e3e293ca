"""The system calls that code in the sandbox can't make.

A list of what is refused, and not of what is allowed: with an allow-list, packages such as numpy fail at random after
an update. The namespaces are the boundary; the filter takes away what is known to lead across it.
"""

import errno
import socket
import tempfile

import pyseccomp as seccomp

REFUSED = (
    # Other processes.
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd"),
    # Namespaces and mounts.
    *("unshare", "setns", "mount", "umount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "statmount", "listmount", "open_tree_attr"),
    # Parts of the kernel with a history of faults, which computing does not need.
    *("bpf", "userfaultfd", "perf_event_open", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("add_key", "request_key", "keyctl", "vmsplice", "modify_ldt", "fanotify_init", "lookup_dcookie"),
    # Files by a number in place of a path.
    *("open_by_handle_at", "name_to_handle_at"),
    # The machine.
    *("reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "swapon", "swapoff"),
    *("acct", "quotactl", "quotactl_fd", "syslog", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex"),
    *("sethostname", "setdomainname", "iopl", "ioperm", "vhangup", "nfsservctl", "uselib", "ustat", "sysfs"),
    *("move_pages", "migrate_pages", "mbind", "set_mempolicy", "set_mempolicy_home_node", "personality"),
    # A file that is only in memory and can be executed.
    "memfd_secret",
)
UNKNOWN = ("clone3", "openat2", "fchmodat2")
"""Calls whose arguments a filter can't see: as if the kernel was older, so that libraries use the earlier call."""
REFUSED_WITHOUT_NAMESPACES = (
    # The machine's shared memory, queues and semaphores, which Landlock does not know.
    *("shmget", "shmat", "shmctl", "msgget", "msgsnd", "msgrcv", "msgctl"),
    *("semget", "semop", "semtimedop", "semctl", "mq_open", "mq_unlink"),
    # What it does not check of files. Watching one says when others use it.
    *("chown", "lchown", "fchown", "fchownat", "inotify_init", "inotify_init1"),
    *("setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr"),
    *("removexattrat", "file_setattr"),
)
WITHOUT_EFFECT = ("chmod", "fchmod", "fchmodat", "utime", "utimes", "futimesat", "utimensat")
"""Without namespaces: mode and times of a file. Landlock does not check them: code could change those of all files of
the server's user. They succeed and do nothing, because copying a file calls them."""
OF_OTHER_PROCESSES = {
    "prlimit64": 0,
    "sched_setaffinity": 0,
    "sched_setscheduler": 0,
    "sched_setparam": 0,
    "sched_setattr": 0,
    "setpriority": 1,
    "ioprio_set": 1,
}
"""Without namespaces: calls for this process, which is 0, or for another one; and the place of that argument."""
NUMBERS = {
    "openat2": 437,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "memfd_secret": 447,
    "set_mempolicy_home_node": 450,
    "fchmodat2": 452,
    "statmount": 457,
    "listmount": 458,
    "setxattrat": 463,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_setattr": 469,
}
"""Calls that are newer than some versions of libseccomp. The numbers are the same on all machines."""

NEW_NAMESPACES = (0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00020000, 0x00000080)
"""Flags of clone(2)."""
SET_ID_BITS = (0o4000, 0o2000)
MODES = {
    "chmod": 1,
    "fchmod": 1,
    "fchmodat": 2,
    "creat": 1,
    "mkdir": 1,
    "mkdirat": 2,
    "mknod": 1,
    "mknodat": 2,
    "open": 2,
    "openat": 3,
}
"""The place of a file's mode among the arguments of a call."""
DEVICE_KINDS = (0o020000, 0o060000)
FILE_KIND = 0o170000
TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423
UNRESOLVED = -1
NO_ERROR = 0


def program(has_namespaces: bool) -> bytes:
    """The filter, in the kernel's binary form. `has_namespaces`: whether each sandbox has its own. Without them, code
    must have no sockets, and reaches more of the machine by its system calls.

    Calls of another architecture, such as those by `int 0x80`, end the process.
    """
    made = seccomp.SyscallFilter(seccomp.ALLOW)
    made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    for name in REFUSED:
        _refuse(made, name, errno.EPERM)
    for name in UNKNOWN:
        _refuse(made, name, errno.ENOSYS)
    for flag in NEW_NAMESPACES:
        _refuse(made, "clone", errno.EPERM, seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    if has_namespaces:
        for name in ("socket", "socketpair"):
            _refuse(made, name, errno.EAFNOSUPPORT, seccomp.Arg(0, seccomp.NE, socket.AF_UNIX))
    else:
        _refuse(made, "socket", errno.EAFNOSUPPORT)
        _refuse(made, "socketpair", errno.EAFNOSUPPORT, seccomp.Arg(0, seccomp.NE, socket.AF_UNIX))
        for name in REFUSED_WITHOUT_NAMESPACES:
            _refuse(made, name, errno.EPERM)
        for name in WITHOUT_EFFECT:
            _refuse(made, name, NO_ERROR)
        for name, place in OF_OTHER_PROCESSES.items():
            _refuse(made, name, errno.EPERM, seccomp.Arg(place, seccomp.NE, 0))
    # A file that is set-user-ID would be so outside, too.
    for name, place in MODES.items():
        if not has_namespaces and name in WITHOUT_EFFECT:
            continue
        for bit in SET_ID_BITS:
            _refuse(made, name, errno.EPERM, seccomp.Arg(place, seccomp.MASKED_EQ, bit, bit))
    for place, name in ((1, "mknod"), (2, "mknodat")):
        for kind in DEVICE_KINDS:
            _refuse(made, name, errno.EPERM, seccomp.Arg(place, seccomp.MASKED_EQ, FILE_KIND, kind))
    for request in (TIOCSTI, TIOCLINUX, TIOCSETD):
        _refuse(made, "ioctl", errno.EPERM, seccomp.Arg(1, seccomp.MASKED_EQ, 0xFFFFFFFF, request))
    return _exported(made)


def _refuse(made: seccomp.SyscallFilter, name: str, error: int, *arguments: seccomp.Arg) -> None:
    number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
    if number == UNRESOLVED:
        number = NUMBERS.get(name, UNRESOLVED)
    if number >= 0:  # negative: this machine's kernels don't have the call
        made.add_rule(seccomp.ERRNO(error), number, *arguments)


def _exported(made: seccomp.SyscallFilter) -> bytes:
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()
