"""Memory and number of processes of a sandbox: by a cgroup where the server may make one, and else by looking.

A cgroup counts all processes together, and the kernel holds its limits. Where there is none, each process has a limit
of its own (see `inside/zygote.py`), and `watch.py` looks at all of them a few times a second.
"""

import contextlib
import itertools
import logging
import os
import stat
import time
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)

V1 = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LARGE_SHARED = 16 * 2**20
"""Bytes of shared memory, from which on it is found out how many processes share it."""
REMOVE_SECONDS = 1.0
_numbers = itertools.count(1)


class Limits:
    """What each sandbox may take."""

    def __init__(self, memory_bytes: int, processes: int) -> None:
        """Finds out how that can be held here."""
        self.memory_bytes = memory_bytes
        self.processes = processes
        self._parents = _writable_groups(memory_bytes)
        self.held_by: Literal["cgroup", "watchdog"] = "cgroup" if self._parents else "watchdog"
        """What limits the memory of all processes of a sandbox together."""

    def group(self, init: int, interpreter: int) -> "ProcessGroup":
        """The processes of a sandbox, with these two; they are limited now. Raises OSError."""
        made: list[Path] = []
        name = f"hearth-{os.getpid()}-{next(_numbers)}"
        try:
            for parent in self._parents:
                folder = parent / name
                folder.mkdir()
                made.append(folder)
                for file, value in (
                    ("memory.max", self.memory_bytes),
                    ("memory.swap.max", 0),
                    ("memory.limit_in_bytes", self.memory_bytes),
                    ("memory.memsw.limit_in_bytes", self.memory_bytes),
                    ("pids.max", self.processes),
                ):
                    with contextlib.suppress(FileNotFoundError):  # the files of the other version
                        _write(folder / file, value)
                _write(folder / "cgroup.procs", interpreter)
        except OSError:
            _remove(made)
            raise
        return ProcessGroup(init, made)


class ProcessGroup:
    """The processes of a sandbox. All of them are below its `init`."""

    def __init__(self, init: int, groups: list[Path]) -> None:
        self._init = init
        self._groups = groups

    def usage(self) -> tuple[int, int, float]:
        """Number of processes, their memory in bytes (without what they share with the zygote), and their time of the
        processors so far, in seconds. Not counted: files in memory that no process has mapped, see `nameless_bytes`,
        and the buffers of pipes and sockets, which a cgroup counts."""
        pids = [self._init, *_below(self._init)]
        memory, seconds = 0, 0.0
        for pid in pids:
            with contextlib.suppress(OSError, ValueError, IndexError):
                memory += _own_bytes(pid)
                fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
                seconds += (int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / CLOCK_TICKS
        return len(pids), memory, seconds

    def nameless_bytes(self) -> dict[int, int]:
        """What files occupy that have no name and are still open or mapped, by the device: those that were deleted,
        and those that are in memory. No folder shows them."""
        found: dict[tuple[int, int], int] = {}
        for pid in _below(self._init):
            for kind in ("fd", "map_files"):
                with contextlib.suppress(OSError):  # it has ended; or only root may see what is mapped
                    for name in os.listdir(f"/proc/{pid}/{kind}"):
                        with contextlib.suppress(OSError):
                            status = os.stat(f"/proc/{pid}/{kind}/{name}")
                            if status.st_nlink == 0 and stat.S_ISREG(status.st_mode):
                                found[status.st_dev, status.st_ino] = status.st_blocks * 512
        sizes: dict[int, int] = {}
        for (device, _), size in found.items():
            sizes[device] = sizes.get(device, 0) + size
        return sizes

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel has killed one of them for that."""
        for folder in self._groups:
            with contextlib.suppress(OSError):
                for name in ("memory.events", "memory.oom_control"):
                    if (folder / name).exists():
                        lines = (folder / name).read_text().split("\n")
                        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines)
        return False

    def close(self) -> None:
        """Remove what was made for them. After their end."""
        _remove(self._groups)
        self._groups = []


def _own_bytes(pid: int) -> int:
    """Memory that a process has to itself: pages that it has written, and its part of those that it shares."""
    found, shared = 0, 0
    for line in Path(f"/proc/{pid}/status").read_text().split("\n"):
        if line.startswith(("RssAnon:", "VmSwap:")):
            found += int(line.split()[1]) * 1024
        elif line.startswith("RssShmem:"):
            shared = int(line.split()[1]) * 1024
    if shared >= LARGE_SHARED:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().split("\n"):
            if line.startswith("Pss_Shmem:"):
                shared = int(line.split()[1]) * 1024
    return found + shared


def _below(pid: int) -> list[int]:
    found = [pid]
    for process in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{process}/task"):
                with contextlib.suppress(OSError):
                    found += map(int, Path(f"/proc/{process}/task/{task}/children").read_text().split())
    return found[1:]


def _writable_groups(memory_bytes: int) -> list[Path]:
    """The cgroups in which this process may make others with a memory limit; empty: there are none."""
    try:
        lines = OWN_GROUPS.read_text().split("\n")
    except OSError:
        return []
    own = {kinds: path for line in lines if line for _, kinds, path in [line.split(":", 2)]}
    unified = V1 / own.get("", "").lstrip("/")
    parents = [V1 / kind / own[kind].lstrip("/") for kind in ("memory", "pids") if kind in own]
    # In version 2 a group with processes has no groups below it with limits: the new ones are made next to it.
    for chosen in (parents, [unified.parent] if "" in own else []):
        if chosen and all(_may_limit(parent, memory_bytes) for parent in chosen):
            return chosen
    return []


def _may_limit(parent: Path, memory_bytes: int) -> bool:
    trial = parent / f"hearth-{os.getpid()}-trial"
    try:
        trial.mkdir()
    except OSError:
        return False
    try:
        files = [trial / "memory.max", trial / "memory.limit_in_bytes", trial / "pids.max"]
        there = [file for file in files if file.exists()]
        if not there:
            return False
        for file in there:
            _write(file, memory_bytes if "memory" in file.name else 100)
        return True
    except OSError:
        return False
    finally:
        _remove([trial])


def _write(file: Path, value: int) -> None:
    # `write_text` would make the file.
    opened = os.open(file, os.O_WRONLY)
    try:
        os.write(opened, str(value).encode())
    finally:
        os.close(opened)


def _remove(groups: list[Path]) -> None:
    """Remove cgroups; the last processes in them may just be ending."""
    deadline = time.monotonic() + REMOVE_SECONDS
    for folder in groups:
        while True:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.005)  # the kernel does not say when the last process is gone
                    continue
                log.warning("The cgroup %s can't be removed: %s", folder, error)
            break
