"""Removing a folder that hostile code has filled: links, folders without permissions, deep folders."""

import errno
import os
import secrets
import stat
from pathlib import Path

from server.files.beneath import FOLDER, opened

MAX_ROUNDS_WITHOUT_PROGRESS = 10
CHANGED = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP)
"""Something was changed between two steps, or a listing missed an entry. The next round sees what is there."""


def remove_tree(folder: Path) -> None:
    """Remove `folder`, which only this user can enter, with all that is in it. Raises `OSError`.

    A folder below a folder is first moved to the top. So no path gets long, no recursion deep, and no more than two
    descriptors are open, whatever is in it.
    """
    with opened(os.open(folder, FOLDER)) as top:
        os.fchmod(top, 0o700)
        fruitless = 0
        while names := os.listdir(top):
            removed = [_remove_entry(top, name) for name in names]
            # Code that still runs may add files while they are removed.
            fruitless = 0 if any(removed) else fruitless + 1
            if fruitless > MAX_ROUNDS_WITHOUT_PROGRESS:
                raise OSError(errno.ENOTEMPTY, "something adds files while they are removed", str(folder))
    os.rmdir(folder)


def _remove_entry(top: int, name: str) -> bool:
    """Whether the entry is gone. The folders in it are moved to `top`."""
    try:
        if not _is_folder(top, name):
            os.unlink(name, dir_fd=top)
            return True
        with opened(_open_folder(top, name)) as inner, os.scandir(inner) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    # Moving a folder takes the permission to write to it.
                    os.close(_open_folder(inner, entry.name))
                    os.rename(entry.name, f"moved-{secrets.token_hex(8)}", src_dir_fd=inner, dst_dir_fd=top)
                else:
                    os.unlink(entry.name, dir_fd=inner)
        os.rmdir(name, dir_fd=top)
    except OSError as error:
        if error.errno not in CHANGED:
            raise
        return False
    return True


def _is_folder(folder: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _open_folder(folder: int, name: str) -> int:
    """A descriptor of a folder, with all permissions for its owner."""
    try:
        descriptor = os.open(name, FOLDER, dir_fd=folder)
    except PermissionError:
        _permit(folder, name)
        return os.open(name, FOLDER, dir_fd=folder)
    if os.fstat(descriptor).st_mode & 0o700 != 0o700:
        os.fchmod(descriptor, 0o700)
    return descriptor


def _permit(folder: int, name: str) -> None:
    """Set a folder's permissions without following a link that has replaced it."""
    if not hasattr(os, "O_PATH"):
        os.chmod(name, 0o700, dir_fd=folder, follow_symlinks=False)
        return
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
    with opened(os.open(name, flags, dir_fd=folder)) as path:
        # chmod does not take such a descriptor, but its name.
        os.chmod(f"/proc/self/fd/{path}", 0o700)
