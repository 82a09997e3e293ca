"""Folders for processes in the sandbox that are no session's."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from server.errors import ImageRefusedError
from server.files.beneath import open_regular, open_root, opened
from server.files.folders import SessionFolders
from server.files.incoming import LEFTOVER_SECONDS, storage_error, write_all
from server.files.removal import remove_tree

PREFIX = "picture-"
"""No session's folder has such a name."""


class Scratch:
    """One folder, which the sandbox can change. `name`: below the folder of all sessions."""

    def __init__(self, root: Path) -> None:
        """Raises `StoreError`, `StorageFullError`."""
        self.name = PREFIX + secrets.token_hex(16)
        self._folder = root / self.name
        self._files = self._folder / "files"
        try:
            for folder in (self._folder, self._files, self._folder / "state"):
                folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise storage_error(error) from error

    def write(self, name: str, content: bytes) -> None:
        """Write a new file; an old one of that name is removed. Raises `StoreError`, `StorageFullError`."""
        try:
            with opened(open_root(self._files)) as root:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=root)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with opened(os.open(name, flags, 0o600, dir_fd=root)) as file:
                    write_all(file, content)
        except OSError as error:
            raise storage_error(error) from error

    def read(self, name: str, size: int) -> bytes:
        """A file of exactly that `size` that the sandbox has written. Raises `ImageRefusedError` if it has not."""
        content = b""
        try:
            with opened(open_root(self._files)) as root:
                descriptor, status = open_regular(root, name)
                with opened(descriptor), open(descriptor, "rb", closefd=False) as file:
                    content = file.read(size + 1) if status.st_size == size else b""
        except OSError:
            content = b""
        if len(content) != size:
            raise ImageRefusedError("The picture has made its decoder write something else than pixels.")
        return content

    def remove(self) -> None:
        """Remove it with all that is in it. Raises `OSError`."""
        remove_tree(self._folder)


@contextlib.contextmanager
def scratch(folders: SessionFolders) -> Iterator[Scratch]:
    """A folder for the time of this block."""
    made = Scratch(folders.root)
    try:
        yield made
    finally:
        made.remove()


def remove_leftovers(folders: SessionFolders) -> None:
    """Remove old folders of a server that was killed. Another server may be using the young ones."""
    for folder in folders.root.glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS:
                remove_tree(folder)
