"""Reading a document: from its bytes to its text by page. Parsers run in a sandbox, since any file may be hostile."""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.documents.text import Text, text_of
from server.errors import FileRefusedError, QueueFullError, TooLargeError
from server.files.beneath import open_regular, open_root, opened
from server.files.folders import STAGED, SessionFolder, SessionFolders
from server.files.incoming import LEFTOVER_SECONDS, storage_error, write_all
from server.files.media_types import SAMPLE_BYTES, media_type
from server.files.names import cleaned
from server.files.removal import remove_tree
from server.sandbox.inside.interpreter import TEXTS
from server.sandbox.sandboxes import Sandboxes
from server.store.document_types import Document

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Documents that are read at the same time; the others wait."""
WAIT_SECONDS = 120.0
MOST_BYTES = 512 * 2**20
"""Of a document."""
MOST_TEXT_BYTES = 64 * 2**20
"""Of its text: more than the 10 million characters that the sandbox sends."""
CHUNK_BYTES = 1 << 20


class _Written(BaseModel):
    """What the sandbox says of the texts that it has written. A hostile file may have made it."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(max_length=100)
    pages: Annotated[list[tuple[str | None, int]], Field(min_length=1, max_length=20_000)]
    skipped: list[str] = Field(max_length=100)


@dataclass(frozen=True)
class Content:
    """The bytes of a document: in memory, in a file of the server's own, or open as a descriptor."""

    data: bytes | Path | int


@dataclass(frozen=True)
class ReadDocument:
    """A document as it was read. `skipped`: what was not read, and why."""

    sha256: str
    bytes: int
    media_type: str
    kind: str
    text: Text
    skipped: list[str]


class Reader:
    """Reads documents. Safe for any number of threads."""

    def __init__(self, sandboxes: Sandboxes, folders: SessionFolders) -> None:
        self._sandboxes = sandboxes
        self._folders = folders
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def read(
        self, name: str, content: Content, find: Callable[[str], Document | None] = lambda sha256: None
    ) -> ReadDocument | Document:
        """Read a document that is called `name`. `find`: the document that these bytes give, by their hash; it is
        returned then, and nothing is read. Raises `FileRefusedError` for what has no text or can't be read,
        `TooLargeError`, `QueueFullError`, `SandboxUnavailableError`, and errors of the disk."""
        if not self._places.acquire(timeout=WAIT_SECONDS):
            raise QueueFullError(f"{AT_ONCE} documents are being read. Try again in a moment.", retry_after=5)
        try:
            with self._staged() as folder:
                # The extension tells one kind of text from another; nothing else of the name is used.
                file = f"document{Path(cleaned(name)).suffix}"
                sha256, size, kind = _copy(content, folder.files / file, name)
                if (known := find(sha256)) is not None:
                    return known
                reply = self._sandboxes.write_texts(folder, file)
                if "refused" in reply:
                    raise FileRefusedError(f"{name!r} can't be read: {str(reply['refused'])[:2000]}")
                found, pages = _checked(name, reply, folder)
        finally:
            self._places.release()
        return ReadDocument(sha256, size, kind, found.kind, text_of(pages), found.skipped)

    def remove_leftovers(self) -> None:
        """Remove folders of a server that was killed. Another server may be using the young ones."""
        for folder in self._folders.root.glob(f"{STAGED}*"):
            try:
                if time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS:
                    remove_tree(folder)
            except OSError:
                log.exception("the folder of a document that was being read can't be removed")

    @contextmanager
    def _staged(self) -> Iterator[SessionFolder]:
        """Folders for one document, which no session sees."""
        try:
            folder = self._folders.stage()
        except OSError as error:
            raise storage_error(error) from error
        try:
            yield folder
        finally:
            try:
                remove_tree(folder.files.parent)
            except OSError:
                log.exception("the folder of a document that was read can't be removed")


def text_given(text: str) -> ReadDocument:
    """A document that is given as text. It needs no parser."""
    data = text.encode()
    return ReadDocument(
        hashlib.sha256(data).hexdigest(), len(data), "text/plain", "text", text_of([(None, text)]), []
    )


def _copy(content: Content, target: Path, name: str) -> tuple[str, int, str]:
    """Copy the bytes to `target`. Returns their hash, their number, and the media type."""
    digest, size, head, tail = hashlib.sha256(), 0, b"", b""
    try:
        with opened(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as out:
            for part in _parts(content):
                size += len(part)
                if size > MOST_BYTES:
                    raise TooLargeError(f"{name!r} is larger than {MOST_BYTES} bytes, the maximum for a document.")
                write_all(out, part)
                digest.update(part)
                head = head or part[:SAMPLE_BYTES]
                tail = (tail + part[-SAMPLE_BYTES:])[-SAMPLE_BYTES:]
    except OSError as error:
        raise storage_error(error) from error
    return digest.hexdigest(), size, media_type(head, tail, name)


def _parts(content: Content) -> Iterator[bytes]:
    match content.data:
        case bytes() as data:
            yield data
        case Path() as path:
            with path.open("rb") as file:
                while part := file.read(CHUNK_BYTES):
                    yield part
        case descriptor:
            place = 0
            while part := os.pread(descriptor, CHUNK_BYTES, place):
                place += len(part)
                yield part


def _checked(
    name: str, reply: dict[str, object], folder: SessionFolder
) -> tuple[_Written, list[tuple[str | None, str]]]:
    """What the sandbox has written, and label and text of each page. Raises `FileRefusedError`."""
    try:
        found = _Written.model_validate(reply)
        with opened(open_root(folder.state)) as root:
            descriptor, status = open_regular(root, TEXTS)
            with opened(descriptor):
                if status.st_size > MOST_TEXT_BYTES or min(size for _, size in found.pages) < 0:
                    raise ValueError("it is too long")
                data = os.pread(descriptor, MOST_TEXT_BYTES + 1, 0)
        if len(data) != sum(size for _, size in found.pages):
            raise ValueError("its pages have other lengths")
        pages, start = [], 0
        for label, size in found.pages:
            pages.append((label and label[:100].replace("\0", ""), data[start : start + size].decode()))
            start += size
    except (ValidationError, ValueError, OSError) as error:
        raise FileRefusedError(f"{name!r} can't be read: it has made its reader send nonsense.") from error
    return found, pages
