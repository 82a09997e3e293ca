"""A request as it arrives: what is refused anyway is read and dropped, and never stored."""

import copy
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.utilities import BadRequest, Error, RequestEntityTooLarge
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request

from constants import Settings
from server.http.spooled_body import SpooledBody

LONGEST_CHUNK_LINE = 4096
READ_AND_DROPPED_BYTES = 16 * 1024 * 1024
"""A body over the limit is read up to here, so that the client sees the error and not a broken connection."""
FORM = "multipart/form-data"
UPLOADS = re.compile(
    r"/+(sessions/[^/]+/files|collections/[^/]+/documents|comparisons|v1/chat/completions"
    r"|api/upload|api/chat/completions)"
)
"""The paths whose forms may be as large as an upload."""
_TRANSFER_ENCODING = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


class Unauthorized(Error):
    """waitress' error for a long upload without the token: it is refused before it is read."""

    code = 401
    reason = "Unauthorized"


class RequestParser(HTTPRequestParser):
    """Stores the body of a request that may be answered, up to `MAX_BODY_BYTES`; an upload on disk, up to
    `MAX_UPLOAD_BYTES`. Any other body is dropped as it comes, so that the client reads its error and not a broken
    connection; the application refuses the request."""

    def __init__(
        self, settings: Settings, spool: Path, may_send_body: Callable[[Request], bool], adjustments: Adjustments
    ) -> None:
        """`spool`: the folder for uploads. `may_send_body`: whether the body of a request with this head is read."""
        super().__init__(adjustments)
        self._adjustments = adjustments
        self._settings = settings
        self._spool = spool
        self._may_send_body = may_send_body
        self._limit = settings.MAX_BODY_BYTES
        self._is_upload = False
        self._is_dropped = False

    def parse_header(self, header_plus: bytes) -> None:
        """See `HTTPRequestParser`. A request whose end two servers could see at different places is refused, and its
        connection is closed: https://www.rfc-editor.org/rfc/rfc9112#section-6.1"""
        super().parse_header(header_plus)
        if _TRANSFER_ENCODING.search(header_plus) and (not self.chunked or "CONTENT_LENGTH" in self.headers):
            raise ParsingError("Transfer-Encoding is for HTTP/1.1, and not together with Content-Length")
        is_form = self.headers.get("CONTENT_TYPE", "").strip().lower().startswith(FORM)
        if self.body_rcv is not None and self.command == "POST" and is_form and UPLOADS.fullmatch(self.path):
            self._is_upload = True
            self._limit = self._settings.MAX_UPLOAD_BYTES
            # Of this request alone.
            self.adj: Adjustments = copy.copy(self._adjustments)
            self.adj.max_request_body_size = self._limit + READ_AND_DROPPED_BYTES + 1
            self.body_rcv.buf = SpooledBody(self._spool)

    def received(self, data: bytes) -> int:
        """See `HTTPRequestParser`."""
        had_head = self.headers_finished
        consumed: int = super().received(data)
        refused: Error | None = self.error  # type: ignore[has-type]
        if self._is_upload and isinstance(refused, RequestEntityTooLarge):
            self.error = RequestEntityTooLarge(
                f"the upload is longer than {self._limit} bytes, the limit of HEARTH_MAX_UPLOAD_BYTES"
            )
        if self.error is None and self.body_rcv is not None:
            self._check_body(self.body_rcv, is_at_head=not had_head)
        if self.error is not None:
            # Otherwise waitress would ask a client that waits for it to send the body.
            self.expect_continue = False
        return consumed

    def _check_body(self, body: Any, is_at_head: bool) -> None:
        if len(getattr(body, "control_line", b"")) > LONGEST_CHUNK_LINE:
            self.error = BadRequest("Invalid chunk size")
            self.completed = True
        is_too_long = max(self.content_length, len(body)) > self._limit
        is_unauthorized = is_at_head and not self._is_authorized()
        if not self._is_dropped and (is_too_long or is_unauthorized):
            self._is_dropped = True
            stored, body.buf = body.buf, _Dropped(len(body))
            stored.close()
            if is_unauthorized and self.content_length > READ_AND_DROPPED_BYTES:
                self.error = Unauthorized("there is no token, or it is wrong. Send `Authorization: Bearer <token>`")
                self.completed = True

    def _is_authorized(self) -> bool:
        environ = {f"HTTP_{name}": value for name, value in self.headers.items()}
        environ |= {
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "SERVER_NAME": self.adj.server_name,
            "SERVER_PORT": "0",
        }
        try:
            return self._may_send_body(Request({**environ, "wsgi.url_scheme": self.url_scheme}))
        except HTTPException:
            return False


class _Dropped:
    """A buffer that only knows how much was written to it."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        self._size += len(data)

    def getfile(self) -> BytesIO:
        return BytesIO()

    def close(self) -> None:
        """Nothing is held."""
