"""Files that are being uploaded: written under a temporary name where no sandbox sees them, and hashed meanwhile."""

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import HearthError, StorageFullError, StoreError
from server.files.media_types import SAMPLE_BYTES, media_type

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LEFTOVER_SECONDS = 86_400
"""Age from which a file in the folder is a leftover of a server that was killed."""


class IncomingFile:
    """One file on its way. `uploaded_as`: the name that the client gave."""

    def __init__(self, path: Path, uploaded_as: str) -> None:
        """Raises `OSError`."""
        self.path = path
        self.uploaded_as = uploaded_as
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._head = self._tail = b""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Append `data`. Raises `StorageFullError` and `StoreError`."""
        try:
            write_all(self._file, data)
        except OSError as error:
            raise storage_error(error) from error
        self._hash.update(data)
        self.bytes += len(data)
        if len(self._head) < SAMPLE_BYTES:
            self._head += data[: SAMPLE_BYTES - len(self._head)]
        self._tail = (self._tail + data[-SAMPLE_BYTES:])[-SAMPLE_BYTES:]

    @property
    def sha256(self) -> str:
        """The hash of what was written, as hexadecimal digits."""
        return self._hash.hexdigest()

    def type_as(self, name: str) -> str:
        """Its media type under that name."""
        return media_type(self._head, self._tail, name)

    def close(self) -> None:
        """All of it was written."""
        os.close(self._file)
        self._file = -1

    def discard(self) -> None:
        """Remove the temporary name, if it is still there."""
        if self._file >= 0:
            self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class Incoming:
    """The files of one upload."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: list[IncomingFile] = []

    def begin(self, uploaded_as: str) -> IncomingFile:
        """A new and empty file. Raises `StorageFullError` and `StoreError`."""
        try:
            file = IncomingFile(self._folder / secrets.token_hex(16), uploaded_as)
        except OSError as error:
            raise storage_error(error) from error
        self.files.append(file)
        return file


@contextmanager
def incoming(folder: Path) -> Iterator[Incoming]:
    """The files of one upload; at the end of the block the temporary ones are removed."""
    upload = Incoming(folder)
    try:
        yield upload
    finally:
        for file in upload.files:
            file.discard()


def remove_leftovers(folder: Path) -> None:
    """Remove old files of `folder`. Another server may be writing the young ones. Raises `OSError`."""
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFTOVER_SECONDS:
                os.unlink(entry.path)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`. Raises `OSError`; a part may be written then."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def storage_error(error: OSError) -> HearthError:
    """The error for a client whose file can't be saved."""
    if error.errno in FULL:
        return StorageFullError(
            f"The upload does not fit on the server's disk: {error.strerror}. Nothing of it was saved. Delete files "
            "or sessions, or ask the server's owner for space in HEARTH_DATA_DIR."
        )
    return StoreError(f"The server can't use its folder for files: {error.strerror}.")
