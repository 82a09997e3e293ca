"""The machine's state and settings in /proc and /sys. Nothing is written: opening to write is enough."""

import errno
import os

from .probe import Given, expect, probe, read_some

ABSENT = (errno.ENOENT,)
SET = (
    "sys/kernel/core_pattern",
    "sys/kernel/hostname",
    "sys/kernel/modprobe",
    "sys/kernel/panic",
    "sys/kernel/randomize_va_space",
    "sys/kernel/perf_event_paranoid",
    "sys/vm/drop_caches",
    "sys/vm/overcommit_memory",
    "sys/fs/file-max",
    "sys/fs/suid_dumpable",
    "sys/net/ipv4/ip_forward",
    "sysrq-trigger",
    "irq/default_smp_affinity",
    "mtrr",
)
SHOWN = (
    "kcore",
    "kallsyms",
    "kpagecount",
    "kpageflags",
    "kpagecgroup",
    "keys",
    "key-users",
    "timer_list",
    "slabinfo",
    "vmallocinfo",
    "iomem",
    "ioports",
    "interrupts",
    "partitions",
    "diskstats",
    "config.gz",
    "cmdline",
    "devices",
    "sched_debug",
    "sysvipc/shm",
    "bus/pci/devices",
)


@probe("root", cases={name: (f"/proc/{name}",) for name in SET}, may_lack=ABSENT)
def sets(given: Given, path: str) -> None:
    # /dev/null is in the place of what is hidden, and may be opened.
    descriptor = os.open(path, os.O_WRONLY)
    try:
        expect(os.fstat(descriptor).st_rdev != os.stat(os.devnull).st_rdev, "it is /dev/null")
    finally:
        os.close(descriptor)


@probe("root", cases={name: (f"/proc/{name}",) for name in SHOWN}, may_lack=(*ABSENT, errno.EPERM, errno.EIO))
def shows(given: Given, path: str) -> None:
    read_some(path)


@probe(
    cases={path: (path,) for path in ("/sys/class", "/sys/kernel", "/sys/fs/cgroup", "/sys/block")}, may_lack=ABSENT
)
def lists(given: Given, path: str) -> None:
    expect(os.listdir(path), "it is empty")


@probe("root", may_lack=(errno.ENOENT, errno.EROFS))
def moves_to_another_control_group(given: Given) -> None:
    for folder, _, names in os.walk("/sys/fs/cgroup"):
        if "cgroup.procs" in names:
            os.close(os.open(os.path.join(folder, "cgroup.procs"), os.O_WRONLY))
            return
    raise OSError(errno.ENOENT, "there are no control groups")
