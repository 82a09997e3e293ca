"""The body of an upload as it arrives: a short one in memory, a longer one in a file without a name."""

import io
import tempfile
from pathlib import Path
from typing import IO, NoReturn

from server.errors import HearthError
from server.files.incoming import storage_error, write_all

MEMORY_BYTES = 512 * 1024


class SpooledBody:
    """A buffer as waitress writes to it. The file is in the data folder, because the folder for temporary files may
    be in memory. It ends with the request, even if the server is killed.

    A full disk is reported when the view reads the body. Raised here, it would end the connection without an answer.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._size = 0
        self._memory = io.BytesIO()
        self._file: IO[bytes] | None = None
        self._failure: HearthError | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        """Add `data` to the end."""
        self._size += len(data)
        if self._is_closed or self._failure is not None:
            return
        if self._file is None and self._size <= MEMORY_BYTES:
            self._memory.write(data)
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115 - closed by close()
                write_all(self._file.fileno(), self._memory.getvalue())
                self._memory = io.BytesIO()
            write_all(self._file.fileno(), data)
        except OSError as error:
            self.close()
            self._failure = storage_error(error)

    def getfile(self) -> IO[bytes]:
        """The whole body, to read. Its methods raise `StorageFullError` or `StoreError` if it could not be saved."""
        if self._failure is not None:
            return io.BufferedReader(_Unreadable(self._failure))
        file = self._file or self._memory
        file.seek(0)
        return file

    def close(self) -> None:
        """Give memory and disk back."""
        self._is_closed = True
        self._memory = io.BytesIO()
        if self._file is not None:
            self._file.close()


class _Unreadable(io.RawIOBase):
    def __init__(self, failure: HearthError) -> None:
        self._failure = failure

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> NoReturn:
        raise self._failure
