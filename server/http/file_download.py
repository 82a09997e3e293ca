"""A file as a response: in chunks, in ranges, and never as a page that a browser would run."""

import os
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote

from flask import Request, Response

from server.files.session_files import OpenFile

CHUNK_BYTES = 256 * 1024
SHOWN = ("image/png", "image/jpeg")
"""What a browser may show. It saves everything else."""
ACTIVE = ("html", "xml", "svg", "javascript", "x-python")
"""Parts of the media types that a browser, or what it starts, might execute."""
LATEST = datetime.max.replace(tzinfo=UTC).timestamp() - 86_400


def download(request: Request, file: OpenFile, name: str) -> Response:
    """The response with the file's content, or a range of it. It closes the file at its end."""
    chunks = FileChunks(file.descriptor, file.status.st_size)
    try:
        response = Response(chunks, content_type=_safe(file.type))
        response.content_length = file.status.st_size
        response.headers["Content-Disposition"] = _disposition(file.type, name.rpartition("/")[2])
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
        response.headers["Cache-Control"] = "private, no-cache"
        status = file.status
        response.set_etag(f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}")
        response.last_modified = as_time(status.st_mtime)
        response.make_conditional(request, accept_ranges=True, complete_length=status.st_size)
    except BaseException:
        chunks.close()
        raise
    return response


class FileChunks:
    """The bytes of a file, up to the size that it had when it was opened.

    Not `wsgi.file_wrapper`: when the file is cut meanwhile, waitress would wait for the rest for ever, in the thread
    that serves everybody.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._position = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        wanted = min(CHUNK_BYTES, self._size - self._position)
        data = os.pread(self._descriptor, wanted, self._position) if wanted > 0 else b""
        if not data:
            raise StopIteration
        self._position += len(data)
        return data

    def seekable(self) -> bool:
        """For ranges."""
        return True

    def seek(self, position: int) -> None:
        """The next chunk begins there."""
        self._position = position

    def tell(self) -> int:
        """Where the next chunk begins."""
        return self._position

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def as_time(seconds: float) -> datetime:
    """A file's time. Code may have set it to any number: then the nearest one that has a date."""
    return datetime.fromtimestamp(min(max(seconds, 0), LATEST), UTC)


def _safe(kind: str) -> str:
    return "application/octet-stream" if any(part in kind for part in ACTIVE) else kind


def _disposition(kind: str, name: str) -> str:
    # https://www.rfc-editor.org/rfc/rfc6266: the second form is for all names.
    plain = "".join(one if one.isascii() and one.isprintable() and one not in '"\\%' else "_" for one in name)
    how = "inline" if kind in SHOWN else "attachment"
    return f"{how}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
