"""Limits of this process and of those that it starts. They can only become lower."""

import contextlib
import os
import resource
from pathlib import Path

SLACK = 256
"""Threads that the server, and other programs of its user, may start later."""


def limit(kind: int, value: int) -> None:
    """Set a limit of `resource`, or leave it where it is lower already."""
    most = resource.getrlimit(kind)[1]
    held = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (held, held))


def others() -> int:
    """How many processes and threads this user has, and may start meanwhile. Without a user namespace, the kernel
    counts them, too, against the number that a sandbox may have."""
    found = SLACK
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            if process.name.isdigit() and process.stat().st_uid == os.getuid():
                found += len(os.listdir(process / "task"))
    return found


def limit_memory(size: int) -> None:
    """Let each process allocate so many bytes in addition to what it has now (RLIMIT_DATA)."""
    status = Path("/proc/self/status")
    fields = [line.split() for line in status.read_text().splitlines()] if status.exists() else []
    used = next((int(field[1]) * 1024 for field in fields if field and field[0] == "VmData:"), 0)
    limit(resource.RLIMIT_DATA, used + size)
