"""Giving the files of an upload their names in a session's folder."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from server.errors import TooLargeError
from server.files.beneath import open_regular, opened
from server.files.incoming import IncomingFile
from server.files.names import cleaned, numbered
from server.files.tree import MAX_ENTRIES, walk

MAX_FILES = 1000
"""Files of a session, when one more is uploaded."""
READ_BYTES = 256 * 1024


@dataclass(frozen=True)
class SavedFile:
    """A file after its upload. `type`: media type. `uploaded_as`: the name that the client gave."""

    name: str
    bytes: int
    sha256: str
    type: str
    uploaded_as: str


class Placement:
    """Puts files into a session's folder, the descriptor `root`. For one upload: it knows what was there before."""

    def __init__(self, root: int, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._tree = walk(root)
        self._count, self._total = len(self._tree.files), self._tree.total_bytes

    def place_all(self, files: Sequence[IncomingFile]) -> list[SavedFile]:
        """All of them or none. Raises `TooLargeError` and `OSError`."""
        new: list[str] = []
        try:
            saved = []
            for file in files:
                name, is_new = self._place(file)
                new += [name] * is_new
                saved.append(SavedFile(name, file.bytes, file.sha256, file.type_as(name), file.uploaded_as))
        except BaseException:
            for name in new:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._root)
            raise
        return saved

    def _place(self, file: IncomingFile) -> tuple[str, bool]:
        """The file's name, and whether it is a new file."""
        # Each taken name is a file, or an entry that was left out.
        for name in islice(numbered(cleaned(file.uploaded_as)), MAX_ENTRIES):
            if self._is_same(name, file):
                return name, False
            if name in self._tree.files:
                continue
            self._check_room(file)
            try:
                # Fails if the name is taken, whatever it is taken by.
                os.link(file.path, name, dst_dir_fd=self._root, follow_symlinks=False)
            except FileExistsError:
                continue
            self._count, self._total = self._count + 1, self._total + file.bytes
            return name, True
        raise TooLargeError(f"The session has too many files called {file.uploaded_as!r}. Delete some.")

    def _is_same(self, name: str, file: IncomingFile) -> bool:
        """Whether a file of that name exists and has the same bytes."""
        try:
            descriptor, status = open_regular(self._root, name)
        except OSError:
            return False  # there is none, or it can't be read: then it is another one
        with opened(descriptor):
            if status.st_size != file.bytes:
                return False
            found, position = hashlib.sha256(), 0
            # No further than its size at the beginning: code may be appending to it.
            while position < status.st_size:
                data = os.pread(descriptor, READ_BYTES, position)
                if not data:
                    break
                found.update(data)
                position += len(data)
        return found.hexdigest() == file.sha256

    def _check_room(self, file: IncomingFile) -> None:
        if not self._tree.is_complete:
            raise TooLargeError(
                f"The session's folder has more than {MAX_ENTRIES} files and folders. Delete some before you upload."
            )
        if self._count >= MAX_FILES:
            raise TooLargeError(f"A session may have {MAX_FILES} files. Delete some, or use another session.")
        if self._total + file.bytes > self._max_bytes:
            raise TooLargeError(
                f"With {cleaned(file.uploaded_as)} the session's files would be larger than {self._max_bytes} bytes, "
                "the limit of HEARTH_SESSION_FILES_BYTES. Delete some, or use another session."
            )
