"""`ETag`, `If-Match` and `If-None-Match`, so that nobody overwrites what they have not read:
https://www.rfc-editor.org/rfc/rfc9110#name-conditional-requests"""

import hashlib
from collections.abc import Callable

from flask import Request

from server.errors import FileChangedError, InvalidRequestError

Check = Callable[[bytes | None], None]
"""Gets what a file holds before a change, or None if there is none. Raises `FileChangedError`."""


def etag_of(data: bytes) -> str:
    """The value of the header `ETag` for a content."""
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def precondition(request: Request) -> Check | None:
    """What the request demands of the present content; None: nothing. Raises `InvalidRequestError` for a header
    without a value."""
    for name, value in (("If-Match", request.if_match), ("If-None-Match", request.if_none_match)):
        if name in request.headers and not value:
            raise InvalidRequestError(f'{name} has no value. Send the ETag that a read gave, such as "3f2a…", or *.')
    if not request.if_match and not request.if_none_match:
        return None

    def check(current: bytes | None) -> None:
        etag = None if current is None else etag_of(current)
        bare = "" if etag is None else etag.strip('"')
        if request.if_match and (etag is None or bare not in request.if_match):
            what = "There is no such file any more" if etag is None else "The file has changed since it was read"
            raise FileChangedError(f"{what}. Nothing was saved. Read it again, and choose a text.", etag=etag)
        if request.if_none_match and etag is not None and request.if_none_match.contains_weak(bare):
            raise FileChangedError("There is such a file already. Nothing was saved. Read it first.", etag=etag)

    return check
