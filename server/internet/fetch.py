"""Loading from the web: the one function that opens a connection to an address that others have chosen."""

import importlib.util
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from server.bounds import shortened
from server.errors import FetchFailedError, FetchRefusedError, HearthError, RunCancelledError
from server.files.media_types import SAMPLE_BYTES, TEXT, media_type
from server.internet.addresses import AllowList, Target, check_url
from server.observability import metrics

if TYPE_CHECKING:
    import requests

    from server.internet.connection import Guard

PACKAGE = "requests_hardened"
MISSING = "the package requests-hardened is missing: install requirements-documents.txt"
MOST_REDIRECTS = 5
MOST_FETCHES = 16
"""At the same time. Each takes a thread."""
WAIT_SECONDS = 10.0
"""Maximum time for a place among them."""
NOTICE_SECONDS = 0.1
CHUNK_BYTES = 1 << 16
END_SECONDS = 1.0
"""After the deadline, for the thread to end: a resolver can't be interrupted, and is left alone."""
USER_AGENT = "Hearth (fetches a page for a person)"
REDIRECTS = (301, 302, 303, 307, 308)
ENCODINGS = ("", "identity", "gzip", "x-gzip", "deflate")
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff")
OFFICE = "application/vnd.openxmlformats-officedocument."
DOCUMENTS = ("application/pdf", "application/json", "application/jsonl", "application/xml", "application/yaml")


@dataclass(frozen=True)
class FetchedPage:
    """What a URL gave. `media_type`: by the content; the server's claim only tells one kind of text from another.
    `charset`: as the server claims, or None."""

    url: str
    final_url: str
    """After redirects."""
    media_type: str
    content: bytes
    charset: str | None = None


@dataclass(frozen=True)
class Reply:
    """A response in full. `headers`: names in lower case."""

    status: int
    url: str
    headers: Mapping[str, str]
    content: bytes


class Fetcher:
    """Safe for any number of threads. Each fetch checks each of its hops, sends no cookies and no credentials, and
    has a deadline."""

    def __init__(self, allowed: AllowList, seconds: float, most_bytes: int, verify: bool | str = True) -> None:
        """`seconds`: for a whole fetch, with redirects. `most_bytes`: of a page, decompressed. `verify`: a file with
        the certificates of the authorities; True: the usual ones."""
        self._allowed = allowed
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._verify = verify
        self._places = threading.BoundedSemaphore(MOST_FETCHES)

    def fetch_page(self, url: str, should_stop: Callable[[], bool] = lambda: False) -> FetchedPage:
        """A page, a text, a PDF or an Office document. `should_stop` is asked now and then: whether to give up.

        Raises `FetchRefusedError` for what may not be loaded, `FetchFailedError` for what can't be, and
        `RunCancelledError`.
        """
        return self._fetched(url, _is_document, "a page, a text, a PDF or an Office document", should_stop)

    def fetch_image(self, url: str, should_stop: Callable[[], bool] = lambda: False) -> FetchedPage:
        """A picture: PNG, JPEG, GIF, WebP, BMP or TIFF. Not decoded. Raises what `fetch_page` raises."""
        return self._fetched(url, lambda kind: kind in IMAGES, "a picture", should_stop)

    def ask(
        self, url: str, body: object = None, headers: Mapping[str, str] | None = None, seconds: float | None = None
    ) -> Reply:
        """The reply of an API, of any status: with a `body`, which is sent as JSON, to POST, else to GET. `headers`
        go to this address alone: redirects are not followed. Raises what `fetch_page` raises."""
        return self._in_time(
            lambda guard: self._hop(guard, check_url(url, self._allowed), body, headers),
            self._seconds if seconds is None else min(seconds, self._seconds),
            lambda: False,
        )

    def _fetched(
        self, url: str, is_wanted: Callable[[str], bool], wanted: str, should_stop: Callable[[], bool]
    ) -> FetchedPage:
        began, outcome = time.monotonic(), "failed"
        try:
            reply = self._in_time(lambda guard: self._follow(guard, url), self._seconds, should_stop)
            if not 200 <= reply.status < 300:
                raise FetchFailedError(
                    f"{_host_of(reply.url)} replied {reply.status} for {shortened(reply.url, 300)}."
                )
            claimed = _claimed(reply.headers)
            kind = _kind(reply, claimed)
            if not is_wanted(kind):
                raise FetchFailedError(f"{shortened(reply.url, 300)} is {kind}, and not {wanted}.")
            outcome = "succeeded"
            return FetchedPage(url, reply.url, kind, reply.content, _charset(reply.headers))
        except FetchRefusedError:
            outcome = "refused"
            raise
        finally:
            metrics.FETCH_SECONDS.labels(outcome).observe(time.monotonic() - began)

    def _in_time(self, work: "Callable[[Guard], Reply]", seconds: float, should_stop: Callable[[], bool]) -> Reply:
        """The result of `work` on a thread of its own, which is left alone if it does not end with its connections:
        it looks a name up then."""
        if not is_installed():
            raise FetchFailedError(f"Nothing can be loaded: {MISSING}.")
        from server.internet.connection import Guard  # it imports requests

        if not self._places.acquire(timeout=WAIT_SECONDS):
            raise FetchFailedError(f"{MOST_FETCHES} pages are being loaded, and no more can be. Try again later.")
        guard = Guard(self._allowed, seconds)
        ended = threading.Event()
        result: list[Reply | BaseException] = []

        def do() -> None:
            try:
                result.append(work(guard))
            except BaseException as error:  # boundary: raised below, where somebody waits for it
                result.append(error)
            finally:
                guard.close()
                self._places.release()
                ended.set()

        threading.Thread(target=do, name="fetch", daemon=True).start()
        deadline = time.monotonic() + seconds
        while not ended.wait(NOTICE_SECONDS):
            if should_stop():
                guard.end()
                raise RunCancelledError("The run was cancelled while a page was loaded. Ask again.")
            if time.monotonic() > deadline:
                # What was read until then looks complete where a server says no length.
                guard.end()
                ended.wait(END_SECONDS)
                raise FetchFailedError(f"Loading took longer than {seconds:g} s.")
        found = result[0]
        if isinstance(found, HearthError):
            raise found
        if isinstance(found, BaseException):
            raise _as_failure(found) from found
        return found

    def _follow(self, guard: "Guard", url: str) -> Reply:
        """The reply after the redirects."""
        target, origin = check_url(url, self._allowed), None
        for _ in range(MOST_REDIRECTS + 1):
            origin = origin or target.origin
            reply = self._hop(guard, target)
            place = reply.headers.get("location")
            if reply.status not in REDIRECTS or not place:
                return reply
            before, target = target, check_url(_joined(target.url, place), self._allowed)
            if before.scheme == "https" and target.scheme == "http":
                raise FetchRefusedError(f"{before.host} redirects from https to http, which is not followed.")
        raise FetchFailedError(f"{_host_of(url)} redirects more than {MOST_REDIRECTS} times.")

    def _hop(
        self, guard: "Guard", target: Target, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request and its response. A session of its own: nothing of one hop reaches the next one."""
        from server.internet.connection import session

        sent = {"Accept-Encoding": "gzip, deflate", "Accept": "*/*", "Connection": "close", **(headers or {})}
        with session(guard, USER_AGENT) as opened:
            opened.verify = self._verify
            data = None if body is None else json.dumps(body).encode()
            if data is not None:
                sent["Content-Type"] = "application/json"
            guard.left  # noqa: B018 - raises after the deadline
            method = "GET" if data is None else "POST"
            with opened.request(method, target.url, data=data, headers=sent, stream=True) as response:
                lowered = {name.lower(): value for name, value in response.headers.items()}
                is_redirect = response.status_code in REDIRECTS
                content = b"" if is_redirect else self._body(guard, response, lowered, target)
                return Reply(response.status_code, target.url, lowered, content)

    def _body(
        self, guard: "Guard", response: "requests.Response", headers: Mapping[str, str], target: Target
    ) -> bytes:
        """Its body, decompressed, of at most so many bytes. Raises `FetchFailedError`."""
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ENCODINGS:
            raise FetchFailedError(f"{target.host} compresses its reply in a way that was not asked for.")
        content, most = bytearray(), self._most_bytes
        length = headers.get("content-length", "")
        too_long = FetchFailedError(
            f"{shortened(target.url, 300)} has more than {most:,} bytes (HEARTH_FETCH_BYTES)."
        )
        if length.isascii() and length.isdigit() and int(length[:20]) > most:
            raise too_long
        # Of a bomb, no more than a chunk is decompressed before its size is looked at.
        while chunk := response.raw.read(CHUNK_BYTES, decode_content=True):
            content += chunk
            if len(content) > most:
                raise too_long
            guard.left  # noqa: B018 - raises after the deadline
        return bytes(content)


def is_installed() -> bool:
    """Whether there is the package that connects."""
    return importlib.util.find_spec(PACKAGE) is not None


def _is_document(kind: str) -> bool:
    return kind.startswith(("text/", OFFICE)) or kind in DOCUMENTS or kind.endswith(("+xml", "+json"))


def _joined(base: str, place: str) -> str:
    try:
        # Headers are bytes, and requests reads them as Latin-1.
        return urljoin(base, place.encode("latin-1").decode())
    except (ValueError, UnicodeError):
        raise FetchRefusedError(f"{_host_of(base)} redirects to what is no URL.") from None


def _claimed(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _charset(headers: Mapping[str, str]) -> str | None:
    from email.message import Message

    message = Message()
    message["content-type"] = headers.get("content-type", "")
    found = message.get_content_charset()
    return found if found is not None and found.isascii() and len(found) < 40 else None


def _kind(reply: Reply, claimed: str) -> str:
    """The media type: by the content. Only of a text the server's claim is believed, if it claims a text."""
    head, tail = reply.content[:SAMPLE_BYTES], reply.content[-SAMPLE_BYTES:]
    found = media_type(head, tail, reply.url.partition("?")[0].rpartition("/")[2])
    claims_text = claimed.startswith("text/") or claimed in DOCUMENTS or claimed.endswith(("+xml", "+json"))
    is_legacy_text = found == "application/octet-stream" and b"\0" not in head and claims_text
    if is_legacy_text:
        return claimed
    if found == TEXT and claims_text and claimed != "application/pdf":
        return "text/html" if claimed == "application/xhtml+xml" else claimed
    return "text/html" if claimed == "application/xhtml+xml" and found == "application/xml" else found


def _host_of(url: str) -> str:
    return url.split("/", 3)[2][:253] if url.count("/") > 1 else "the server"


def _as_failure(error: BaseException) -> HearthError:
    """An error of the network as one for the client, or a bug as it is."""
    import requests
    import urllib3

    refused: BaseException | None = error
    for _ in range(10):  # requests and urllib3 wrap it
        if isinstance(refused, FetchRefusedError):
            return refused
        refused = refused.__cause__ or refused.__context__ if refused is not None else None
    name = type(error).__name__
    if name == "InvalidIPAddress":
        return FetchRefusedError(
            f"It can't be loaded: its address {error} is not public. The server's owner may allow internal servers "
            "by HEARTH_FETCH_ALLOW."
        )
    if isinstance(error, requests.exceptions.SSLError):
        return FetchFailedError("Its certificate is not valid, or it can't do TLS.")
    if isinstance(error, requests.Timeout | TimeoutError):
        return FetchFailedError("It does not answer in time.")
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError | OSError | ValueError):
        return FetchFailedError(f"It can't be loaded: {shortened(str(error), 300)}.")
    return FetchFailedError(f"It can't be loaded: {name}.")
