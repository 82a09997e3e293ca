"""Looks at the sandboxes a few times a second, for limits that the kernel does not hold for a sandbox as a whole."""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from server.sandbox.limits import Limits
from server.sandbox.process import SandboxProcess

log = logging.getLogger(__name__)

SECONDS = 0.25
FOLDER_EVERY = 4
"""Looks at the size of the folder each so many times."""
IDLE_CPU_SECONDS = 5.0
"""Time of the processors that code may use after its cell has ended, by threads or processes that it has left."""
MOST_FILES = 20_000
"""In a session's folder."""


class Watched:
    """A sandbox that has a session."""

    def __init__(self, process: SandboxProcess, folders: list[Path], most_bytes: int) -> None:
        """`folders`: which it can change; `most_bytes`: the maximum size of all of them together."""
        self.process = process
        self.is_running = False
        """Whether a cell runs."""
        self._folders = folders
        self._most_bytes = most_bytes
        self._idle_from: float | None = None
        self._looked_at = 0.0
        """The time of the processors at the last look at its files. What has not run since has written none."""

    def check(self, limits: Limits, with_folder: bool) -> str | None:
        """Why it has to be ended; None: it has not."""
        count, memory, seconds = self.process.group.usage()
        if count > limits.processes + 1:  # the first one is the sandbox's own
            return f"it had {count} processes, and {limits.processes} are the maximum (HEARTH_SANDBOX_PROCESSES)"
        if limits.held_by == "watchdog" and memory > limits.memory_bytes:
            return out_of_memory(limits)
        if self.is_running:
            self._idle_from = None
        elif self._idle_from is None:
            self._idle_from = seconds
        elif seconds - self._idle_from > IDLE_CPU_SECONDS:
            return f"what it had left running used the processor for {IDLE_CPU_SECONDS:g} s after the cell's end"
        if with_folder and (self.is_running or seconds != self._looked_at):
            self._looked_at = seconds
            return self._too_many_files(limits)
        return None

    def _too_many_files(self, limits: Limits) -> str | None:
        files, size = _size(self._folders)
        nameless = self.process.group.nameless_bytes()
        size += nameless.pop(self._folders[0].stat().st_dev, 0)
        if size > self._most_bytes:
            return (
                f"the session's files were {size >> 20} MiB, and {self._most_bytes >> 20} MiB are the maximum "
                "(HEARTH_SESSION_FILES_BYTES)"
            )
        if files > MOST_FILES:
            return f"the session had more than {MOST_FILES} files, or folders in each other too deeply"
        if limits.held_by == "watchdog" and sum(nameless.values()) > limits.memory_bytes:
            return out_of_memory(limits)
        return None


class Watcher:
    """A thread that ends the sandboxes which exceed a limit."""

    def __init__(self, limits: Limits, watched: Callable[[], Iterable[Watched]]) -> None:
        self._limits = limits
        self._watched = watched
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="sandbox watcher", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End."""
        self._closed.set()

    def _watch(self) -> None:
        rounds = 0
        while not self._closed.wait(SECONDS):
            rounds += 1
            began = time.monotonic()
            for one in self._watched():
                try:
                    reason = one.check(self._limits, rounds % FOLDER_EVERY == 0)
                except (OSError, ValueError):  # it has just ended
                    continue
                if reason is not None:
                    log.warning("A sandbox was ended: %s", reason)
                    one.process.kill(reason)
            # With many files in many folders, looking takes a while: not all the time.
            self._closed.wait(min(time.monotonic() - began, 2.0))


def out_of_memory(limits: Limits) -> str:
    """The reason for a sandbox's end."""
    return f"it used more memory than {limits.memory_bytes / 2**30:g} GiB (HEARTH_SANDBOX_MEMORY_GB)"


def _size(folders: list[Path]) -> tuple[int, int]:
    """Number of files in `folders` and what they occupy, in bytes. Stops at `MOST_FILES`. A folder with a path that
    is too long to be looked at counts as too many files."""
    files, size = 0, 0
    waiting = [str(folder) for folder in folders]
    while waiting and files <= MOST_FILES:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if files > MOST_FILES:
                        break
        except OSError as error:  # it was removed meanwhile, or its code has closed it to everybody
            if error.errno == errno.ENAMETOOLONG:
                return MOST_FILES + 1, size
    return files, size
