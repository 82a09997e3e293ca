"""The files of sessions: added, listed, read and deleted."""

import contextlib
import errno
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from server.errors import (
    ConflictError,
    FileNotInSessionError,
    ForbiddenError,
    HearthError,
    StoreError,
)
from server.files.beneath import FOLDER, open_beneath, open_regular, open_root, opened
from server.files.folders import SessionFolder, SessionFolders
from server.files.incoming import Incoming, incoming, remove_leftovers, storage_error
from server.files.media_types import SAMPLE_BYTES, UNKNOWN, media_type
from server.files.placement import Placement, SavedFile
from server.files.removal import remove_tree
from server.files.tree import walk

log = logging.getLogger(__name__)

LOCKS = 64
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EINVAL, errno.ENXIO, errno.ENAMETOOLONG)
"""There is no such file, or it is a link, a FIFO, a socket or a folder."""


@dataclass(frozen=True)
class ListedFile:
    """A file of a session. `modified`: seconds since 1970, as the session's code may have set it."""

    name: str
    bytes: int
    type: str
    modified: float


@dataclass(frozen=True)
class Listing:
    """A part of a session's files, by name. `left_out`: links and whatever else is no file. `is_complete`: whether
    all entries of its folders were looked at. `has_more`: whether there are files after these."""

    files: list[ListedFile]
    left_out: int
    is_complete: bool
    has_more: bool


@dataclass(frozen=True)
class OpenFile:
    """A file that is open for reading; the caller closes `descriptor`."""

    descriptor: int
    status: os.stat_result
    type: str


class SessionFiles:
    """The files of all sessions. Safe for any number of threads, and for code that changes the files meanwhile."""

    def __init__(self, folders: SessionFolders, max_bytes: int) -> None:
        """`max_bytes`: the maximum size of a session's files. Raises `StoreError`."""
        self._folders = folders
        self._max_bytes = max_bytes
        # A session always has the same lock; two sessions may share one.
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        try:
            folders.make_own()
            remove_leftovers(folders.incoming)
        except OSError as error:
            raise StoreError(f"Files can't be saved: {error}. HEARTH_DATA_DIR chooses another folder.") from error

    def incoming(self) -> "contextlib.AbstractContextManager[Incoming]":
        """A context for the files of one upload."""
        return incoming(self._folders.incoming)

    def add(self, workspace: str, session: str, upload: Incoming) -> list[SavedFile]:
        """Save all files of an upload, or none. A name that is taken gets a number, unless the file of that name has
        the same bytes. Raises `TooLargeError`, `StorageFullError`, `StoreError`."""
        with self._lock(workspace, session), _reported():
            folder = self._folders.make(workspace, session).files
            with opened(open_root(folder)) as root:
                return Placement(root, self._max_bytes).place_all(upload.files)

    def listing(self, workspace: str, session: str, limit: int, after: str) -> Listing:
        """The first `limit` files whose names are greater than `after`; none if the session has no folder."""
        with self._root(workspace, session) as root:
            if root is None:
                return Listing([], 0, True, False)
            tree = walk(root)
            names = sorted(name for name in tree.files if name > after)
            listed = [
                ListedFile(name, status.st_size, _type_of(root, name), status.st_mtime)
                for name, status in ((name, tree.files[name]) for name in islice(names, limit))
            ]
        return Listing(listed, tree.left_out, tree.is_complete, len(names) > limit)

    def bytes_of(self, sessions: Iterable[SessionFolder]) -> int:
        """The size of all files and variables of sessions. A folder need not exist."""
        total = 0
        for session in sessions:
            for folder in (session.files, session.state):
                with contextlib.suppress(FileNotFoundError), opened(open_root(folder)) as root:  # deleted meanwhile
                    total += walk(root).total_bytes
        return total

    def open(self, workspace: str, session: str, name: str) -> OpenFile:
        """Open a file. Raises `FileNotInSessionError`, `ForbiddenError`, `ConflictError`."""
        with self._root(workspace, session) as root, _reported(name, session):
            if root is None:
                raise _absent(name, session)
            descriptor, status = open_regular(root, name)
            try:
                return OpenFile(descriptor, status, _sampled(descriptor, status.st_size, name))
            except BaseException:
                os.close(descriptor)
                raise

    def delete(self, workspace: str, session: str, name: str) -> None:
        """Delete a file; a link and a special file too. Raises `FileNotInSessionError`, `ForbiddenError`."""
        with self._root(workspace, session) as root, _reported(name, session):
            if root is None:
                raise _absent(name, session)
            folder, _, last = name.rpartition("/")
            with opened(open_beneath(root, folder or ".", FOLDER)) as parent:
                if last in ("", ".", "..") or "\0" in last:
                    raise _absent(name, session)
                try:
                    os.unlink(last, dir_fd=parent)
                except (IsADirectoryError, PermissionError) as error:
                    # Linux reports a folder by the first one, POSIX by the second one.
                    if isinstance(error, IsADirectoryError) or _is_folder(parent, last):
                        raise _absent(name, session) from error
                    raise

    def delete_all(self, workspace: str, session: str) -> bool:
        """Remove the folder of a session, with all that is in it. Returns whether there was one. Raises
        `StoreError`."""
        grave = self._folders.removed / secrets.token_hex(16)
        with self._lock(workspace, session):
            try:
                grave.mkdir(mode=0o700)
                # From now on a new session of this name has a new folder.
                os.rename(self._folders.of(workspace, session).files.parent, grave / "session")
            except FileNotFoundError:
                grave.rmdir()
                return False
            except OSError as error:
                raise StoreError(f"The files of the session can't be removed: {error.strerror}.") from error
        try:
            remove_tree(grave)
        except OSError as error:
            raise StoreError(
                f"The session {session!r} is deleted, but some of its files could not be removed: {error.strerror}. "
                f"The server's owner can remove {grave}."
            ) from error
        return True

    def remove_leftovers(self) -> None:
        """Remove what an earlier server could not. Takes as long as there are files."""
        for grave in self._folders.removed.iterdir():
            try:
                remove_tree(grave)
            except OSError:
                log.exception("files of a deleted session can't be removed")

    def _lock(self, workspace: str, session: str) -> threading.Lock:
        return self._locks[hash((workspace, session)) % LOCKS]

    @contextmanager
    def _root(self, workspace: str, session: str) -> Iterator[int | None]:
        """The session's folder; None: it has none."""
        try:
            root = open_root(self._folders.of(workspace, session).files)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise storage_error(error) from error
        with opened(root):
            yield root


def _type_of(root: int, name: str) -> str:
    """The media type of a file by its content; unknown if it can't be read."""
    try:
        descriptor, status = open_regular(root, name)
    except OSError:
        return UNKNOWN  # no permission, or removed since it was listed
    with opened(descriptor):
        return _sampled(descriptor, status.st_size, name)


def _sampled(descriptor: int, size: int, name: str) -> str:
    head = os.pread(descriptor, SAMPLE_BYTES, 0)
    return media_type(head, os.pread(descriptor, SAMPLE_BYTES, max(0, size - SAMPLE_BYTES)), name)


def _is_folder(parent: int, name: str) -> bool:
    try:
        os.close(os.open(name, FOLDER, dir_fd=parent))
    except OSError:
        return False
    return True


@contextmanager
def _reported(name: str = "", session: str = "") -> Iterator[None]:
    """Turns errors of the operating system about a file into errors for the client."""
    try:
        yield
    except OSError as error:
        raise _as_hearth_error(error, name, session) from error


def _as_hearth_error(error: OSError, name: str, session: str) -> HearthError:
    if name and error.errno in ABSENT:
        return _absent(name, session)
    if name and error.errno in (errno.EACCES, errno.EPERM):
        return ForbiddenError(f"Code of the session has changed the permissions of {name!r}, so it can't be used.")
    if name and error.errno == errno.EAGAIN:
        return ConflictError(f"Code of the session is using {name!r}. Try again in a moment.")
    return storage_error(error)


def _absent(name: str, session: str) -> FileNotInSessionError:
    return FileNotInSessionError(
        f"The session {session!r} has no file {name!r}. GET /sessions/{session}/files lists its files; links and "
        "special files are not among them."
    )
