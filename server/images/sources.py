"""Where a picture comes from: a data URL, a file of the session, or an address on the web."""

import base64
import binascii
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from server.errors import ImageRefusedError, InvalidRequestError, TooLargeError
from server.files.session_files import SessionFiles

FILE_SCHEME = "hearth-file:"
"""In a URL: the name of a file of the session follows."""
DATA_URL = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)

URL = re.compile(r"(?:data|https?|hearth-file|file):", re.IGNORECASE)

Fetch = Callable[[str], bytes]
"""The bytes at an address of the web, which are bounded. Raises a `HearthError`."""


@dataclass(frozen=True)
class Sent:
    """A picture as it was sent. `name`: None, if it has none."""

    content: bytes
    name: str | None


class Sources:
    """Safe for any number of threads."""

    def __init__(self, files: SessionFiles, max_bytes: int, fetch: Fetch | None) -> None:
        """`max_bytes`: of a picture. `fetch`: for addresses on the web; None: they are refused."""
        self._files = files
        self._max_bytes = max_bytes
        self._fetch = fetch

    def from_url(self, url: str, workspace: str, session: str | None) -> Sent:
        """The picture at `url`: `data:`, `hearth-file:NAME`, or `https:`.

        Raises `InvalidRequestError`, `TooLargeError`, `ImageRefusedError`, what `SessionFiles.open` raises, and what
        `fetch` raises.
        """
        scheme = url[:20].partition(":")[0].lower()
        if scheme == "data":
            return Sent(self._from_data(url), None)
        if url.startswith(FILE_SCHEME):
            return self.from_file(unquote(url.removeprefix(FILE_SCHEME)), workspace, session)
        if scheme in ("http", "https"):
            if self._fetch is None:
                raise InvalidRequestError(
                    "This server fetches no pictures from the web. Send the picture itself, as a data URL, or upload "
                    f"it to the session and write {FILE_SCHEME}NAME."
                )
            content = self._fetch(url)
            self._check(len(content))
            return Sent(content, _last_part(url))
        raise InvalidRequestError(
            f"A picture is a data URL, like data:image/png;base64,..., or a file of the session, like "
            f"{FILE_SCHEME}chart.png. Files of the server itself can't be named."
        )

    def from_file(self, name: str, workspace: str, session: str | None) -> Sent:
        """A file of the session. Raises what `from_url` raises."""
        if session is None:
            raise InvalidRequestError(
                f"{name[:100]!r} is the name of a session's file, and the question has no session_id. Send the "
                "picture as a data URL, or name the session."
            )
        opened = self._files.open(workspace, session, name)
        try:
            self._check(opened.status.st_size)
            # No further than the limit: code may be appending to it.
            with open(opened.descriptor, "rb", closefd=False) as file:
                return Sent(file.read(self._max_bytes), name)
        finally:
            os.close(opened.descriptor)

    def _from_data(self, url: str) -> bytes:
        found = DATA_URL.match(url[:1000])
        if found is None:
            raise InvalidRequestError("The data URL has no comma. It looks like data:image/png;base64,iVBORw0KGgo...")
        self._check((len(url) - found.end()) * 3 // 4)
        rest = url[found.end() :]
        if ";base64" not in found[2].lower():
            content = unquote_to_bytes(rest)
        else:
            try:
                # Some clients break the lines, or leave out the padding.
                packed = re.sub(r"\s+", "", unquote(rest) if "%" in rest else rest)
                content = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
            except (binascii.Error, ValueError):
                raise ImageRefusedError("The base64 of the picture's data URL is damaged or cut off.") from None
        if not content:
            raise ImageRefusedError("The data URL of the picture is empty.")
        return content

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise TooLargeError(
                f"A picture may have {self._max_bytes} bytes (HEARTH_MAX_IMAGE_BYTES), and this one has {size}. Save "
                "it smaller, or as JPEG."
            )


def _last_part(url: str) -> str | None:
    return unquote(urlsplit(url).path.rpartition("/")[2])[:100] or None


def is_url(source: str) -> bool:
    """Whether a picture is named by a URL, and not by the name of a session's file."""
    return bool(URL.match(source))
