"""A disk of a server's own, which a test may fill and free: a file system in memory. Mounting one needs root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE_BYTES = 4 * 2**30
PAGE_BYTES = 4096


class NotMountedError(Exception):
    """This process may not mount a file system."""


class SmallDisk:
    """Mounted at a folder until `close`."""

    def __init__(self, folder: Path) -> None:
        """Raises `NotMountedError`."""
        self.folder = folder
        folder.mkdir(parents=True)
        mounted = self._mount("-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs")
        if mounted.returncode:
            folder.rmdir()
            raise NotMountedError(mounted.stderr.strip())

    @contextmanager
    def full(self, free_bytes: int = 0) -> Iterator[None]:
        """Within it nothing more fits than `free_bytes`: the disk is as small as what is on it."""
        used = os.statvfs(self.folder)
        pages = (used.f_blocks - used.f_bfree) * used.f_frsize // PAGE_BYTES
        self._resize((pages + 1) * PAGE_BYTES + free_bytes)
        try:
            yield
        finally:
            self._resize(SIZE_BYTES)

    def close(self) -> None:
        """Unmount it, with all that is on it."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def _resize(self, size: int) -> None:
        # What is written meanwhile may need more; a few pages more are as full.
        for more in (0, 256, 4096):
            resized = self._mount("-o", f"remount,size={size + more * PAGE_BYTES}")
            if not resized.returncode:
                return
        raise AssertionError(resized.stderr)

    def _mount(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["mount", *options, os.fspath(self.folder)], capture_output=True, text=True, check=False
        )
