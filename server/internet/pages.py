"""Pages of the web as texts: loaded, read in the sandbox, and cached."""

import hashlib
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.errors import FetchFailedError, FetchRefusedError
from server.files.folders import SessionFolders
from server.files.removal import remove_tree
from server.internet.fetch import FetchedPage, Fetcher
from server.sandbox.sandboxes import Sandboxes

FRESH_SECONDS = 600.0
"""Age until which a page is not loaded again."""
MOST_PAGES = 256
MOST_CHARACTERS = 20_000_000
"""Of all cached pages."""
LONGEST_TEXT = 500_000
FOLDER = "page-"
"""Begins the name of a folder for one page. No session's folder has such a name."""
FILE = "page"
HTML = ("text/html", "application/xhtml+xml")


class PageText(BaseModel):
    """What the sandbox has read. Hostile: a page may have made it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    title: str | None = Field(max_length=400)
    text: str = Field(max_length=LONGEST_TEXT)
    skipped: list[str] = Field(max_length=50)


@dataclass(frozen=True)
class WebPage:
    """A page. `hash`: SHA-256 of its bytes. `loaded`: when, in seconds of the epoch. `age`: seconds since then."""

    url: str
    final_url: str
    media_type: str
    hash: str
    page: PageText
    loaded: float

    @property
    def age(self) -> float:
        """Seconds since it was loaded."""
        return max(0.0, time.time() - self.loaded)


@dataclass(frozen=True)
class WebDocument:
    """What a URL names, for a collection of documents. `text`: of an HTML page, what a reader sees of it."""

    final_url: str
    content: bytes
    text: str | None


class WebPages:
    """Safe for any number of threads. A URL is loaded again after `FRESH_SECONDS`; bytes that were read before are
    not read again."""

    def __init__(self, fetcher: Fetcher | None, sandboxes: Sandboxes, folders: SessionFolders) -> None:
        """`fetcher`: None if nothing may be loaded (HEARTH_FETCH)."""
        self._fetcher = fetcher
        self._sandboxes = sandboxes
        self._folders = folders
        self._lock = threading.Lock()
        self._by_url: OrderedDict[str, WebPage] = OrderedDict()
        self._by_hash: OrderedDict[tuple[str, str, str | None], PageText] = OrderedDict()

    def get(self, url: str, should_stop: Callable[[], bool] = lambda: False) -> WebPage:
        """The page. Raises what `Fetcher.fetch_page` raises, `FetchFailedError` for a page without a text, and
        `SandboxUnavailableError`."""
        with self._lock:
            found = self._by_url.get(url)
        if found is not None and found.age < FRESH_SECONDS:
            return found
        return self._load(url, self._fetch(url, should_stop))

    def document(self, url: str) -> WebDocument:
        """What the URL names, loaded now. Raises what `get` raises."""
        fetched = self._fetch(url, lambda: False)
        text = self._load(url, fetched).page.text if fetched.media_type in HTML else None
        return WebDocument(fetched.final_url, fetched.content, text)

    def _fetch(self, url: str, should_stop: Callable[[], bool]) -> FetchedPage:
        if self._fetcher is None:
            raise FetchRefusedError("This server loads no pages from the web. Its owner may set HEARTH_FETCH=on.")
        return self._fetcher.fetch_page(url, should_stop)

    def _load(self, url: str, fetched: FetchedPage) -> WebPage:
        digest = hashlib.sha256(fetched.content).hexdigest()
        key = (digest, fetched.media_type, fetched.charset)
        with self._lock:
            text = self._by_hash.get(key)
        if text is None:
            text = self._read(fetched)
        page = WebPage(url, fetched.final_url, fetched.media_type, digest, text, time.time())
        self._save(key, page)
        return page

    def remove_leftovers(self) -> None:
        """Remove the folders of pages that a killed server has left."""
        with suppress(OSError):
            for folder in self._folders.root.glob(f"{FOLDER}*"):
                process = folder.name.removeprefix(FOLDER).partition("-")[0]
                if not os.path.exists(f"/proc/{process}"):  # another server may use the folder
                    with suppress(OSError):
                        remove_tree(folder)

    def _read(self, fetched: FetchedPage) -> PageText:
        folder = self._write(fetched.content)
        try:
            reply = self._sandboxes.read_page(folder.name, FILE, _kind(fetched.media_type), fetched.charset)
        finally:
            with suppress(OSError):  # at the next start it is tried again
                remove_tree(folder)
        if "refused" in reply:
            raise FetchFailedError(f"{fetched.final_url} has no text: {str(reply['refused'])[:500]}")
        try:
            return PageText.model_validate(reply.get("page"))
        except ValidationError:
            raise FetchFailedError(f"{fetched.final_url} has made its reader send nonsense.") from None

    def _write(self, content: bytes) -> Path:
        """A new folder with the page in it, as a sandbox expects one."""
        folder = self._folders.root / f"{FOLDER}{os.getpid()}-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700, parents=True)
        for name in ("files", "state"):
            (folder / name).mkdir(mode=0o700)
        (folder / "files" / FILE).write_bytes(content)
        return folder

    def _save(self, key: tuple[str, str, str | None], page: WebPage) -> None:
        with self._lock:
            self._by_url[page.url] = page
            self._by_url.move_to_end(page.url)
            self._by_hash[key] = page.page
            self._by_hash.move_to_end(key)
            size = sum(len(one.text) for one in self._by_hash.values())
            while len(self._by_hash) > MOST_PAGES or size > MOST_CHARACTERS:
                size -= len(self._by_hash.popitem(last=False)[1].text)
            left = {id(one) for one in self._by_hash.values()}
            for url, one in list(self._by_url.items()):
                if id(one.page) not in left or one.age > FRESH_SECONDS:
                    del self._by_url[url]


def _kind(media_type: str) -> str:
    """How the sandbox reads it. Raises `FetchFailedError` for what has to be a file of a session."""
    if media_type in HTML:
        return "html"
    if media_type == "application/pdf":
        return "pdf"
    if media_type.startswith("application/vnd."):
        raise FetchFailedError(f"It is {media_type}, and no page. Upload it as a file to read it.")
    return "text"
