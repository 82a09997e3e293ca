"""Stored pictures: one file for each content, in the folder of its session, or in one for questions without any."""

import contextlib
import hashlib
import os
import re
import secrets
from pathlib import Path

from server.errors import ImageNotFoundError
from server.files.folders import SessionFolders
from server.files.incoming import storage_error, write_all
from server.images.image_part import ImagePart

ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg"}
MOST_BYTES = 1 << 30
"""Of the pictures in one folder. The ones that were not used for longest are removed first."""
STORED = re.compile(r"([0-9a-f]{64})-(\d{1,5})x(\d{1,5})(\.png|\.jpg)")


class ImageStore:
    """Safe for any number of threads, and for several servers. No sandbox sees its files. Deleting a session removes
    its pictures with its folder."""

    def __init__(self, folders: SessionFolders, max_bytes: int = MOST_BYTES) -> None:
        self._folders = folders
        self._max_bytes = max_bytes

    def add(
        self,
        workspace: str,
        session: str | None,
        name: str,
        content: bytes,
        size: tuple[int, int],
        media_type: str,
        notes: tuple[str, ...] = (),
    ) -> ImagePart:
        """Store a picture; the same one twice is one file. Raises `StorageFullError`, `StoreError`."""
        digest = hashlib.sha256(content).hexdigest()
        file = f"{digest}-{size[0]}x{size[1]}{ENDINGS[media_type]}"
        try:
            folder = self._folder(workspace, session)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / file
            if not _touch(path):
                self._make_room(folder, len(content))
                _write(path, content)
        except OSError as error:
            raise storage_error(error) from error
        return ImagePart(name, digest, *size, media_type, len(content), path, notes)

    def find(self, workspace: str, session: str | None, sha256: str, name: str) -> ImagePart:
        """A stored picture. Raises `ImageNotFoundError`."""
        for part in self.all(workspace, session):
            if part.sha256 == sha256:
                return ImagePart(name, *_rest(part))
        raise ImageNotFoundError(
            f"The picture {name!r} is not stored any more: its session was deleted, or newer ones took its place. "
            "Send it again."
        )

    def all(self, workspace: str, session: str | None) -> list[ImagePart]:
        """The pictures of a session, the one that was used last first. They are called after their hash."""
        try:
            entries = [
                (entry.stat(), found, entry.path)
                for entry in os.scandir(self._folder(workspace, session))
                if (found := STORED.fullmatch(entry.name))
            ]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error) from error
        types = {ending: media_type for media_type, ending in ENDINGS.items()}
        return [
            ImagePart(
                f"image-{found[1][:8]}",
                found[1],
                int(found[2]),
                int(found[3]),
                types[found[4]],
                status.st_size,
                Path(path),
            )
            for status, found, path in sorted(entries, key=lambda one: one[0].st_mtime_ns, reverse=True)
        ]

    def read(self, part: ImagePart) -> bytes:
        """Its bytes. Raises `ImageNotFoundError`."""
        try:
            return part.path.read_bytes()
        except OSError:
            raise ImageNotFoundError(
                f"The picture {part.name!r} was removed since it was sent. Send it again."
            ) from None

    def _folder(self, workspace: str, session: str | None) -> Path:
        # Beside the folders `files` and `state`, the only ones that the session's code can see.
        if session is not None:
            return self._folders.of(workspace, session).files.parent / "images"
        return self._folders.root / "images"

    def _make_room(self, folder: Path, size: int) -> None:
        files = [(entry.stat(), entry.path) for entry in os.scandir(folder) if STORED.fullmatch(entry.name)]
        total = sum(status.st_size for status, _ in files) + size
        for status, path in sorted(files, key=lambda one: one[0].st_mtime_ns):
            if total <= self._max_bytes:
                return
            with contextlib.suppress(FileNotFoundError):  # another thread was faster
                os.unlink(path)
            total -= status.st_size


def _rest(part: ImagePart) -> tuple[str, int, int, str, int, Path]:
    return part.sha256, part.width, part.height, part.media_type, part.bytes, part.path


def _touch(path: Path) -> bool:
    """Whether it is there; then it counts as just used."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, also if the server is killed meanwhile."""
    draft = path.with_name(f"{secrets.token_hex(8)}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(descriptor, content)
        finally:
            os.close(descriptor)
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise
