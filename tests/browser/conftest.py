"""A browser, and a server whose pages it opens."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

from tests.support.server_process import REPOSITORY, Server, end, start

PAGE_MILLISECONDS = 60_000
"""A deadline and no measure."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("There is no Chromium here: sudo apt install chromium")
    expect.set_options(timeout=PAGE_MILLISECONDS)
    with sync_playwright() as playwright:
        # Its own sandbox refuses to run as root.
        options = ["--no-sandbox"] if os.getuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over the repository's own code, model and tools loaded, for the tests of one file."""
    server = start(tmp_path_factory.mktemp("lab") / "server", REPOSITORY, {})
    try:
        server.wait_until_ready()
        yield server
    finally:
        end(server)


@pytest.fixture
def visit(browser: Browser, lab: Server) -> Iterator[Callable[..., Page]]:
    """`visit(path, width=1280, dark=False, signed_in=True)`: a page of the lab in a browser of its own, signed in by
    the printed link.

    At the end the test fails if a page logged an error or a warning, raised one, or asked another origin.
    """
    contexts: list[BrowserContext] = []
    faults: list[str] = []
    host = urlsplit(lab.url).netloc

    def console(message: ConsoleMessage) -> None:
        # A refused request is an ordinary answer; the pages show it.
        refused = message.text.startswith("Failed to load resource: the server responded with a status of 4")
        if message.type in ("error", "warning") and not refused:
            faults.append(f"console: {message.text} {message.location}")

    def request(sent: Request) -> None:
        parts = urlsplit(sent.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != host:
            faults.append(f"a request left the origin: {sent.url}")

    def response(answer: Response) -> None:
        if answer.status >= 500 or (answer.status >= 400 and "/ui/static/" in answer.url):
            faults.append(f"{answer.status}: {answer.url}")

    def opened(path: str, width: int = 1280, dark: bool = False, signed_in: bool = True) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
        )
        context.set_default_timeout(PAGE_MILLISECONDS)
        contexts.append(context)
        page = context.new_page()
        page.on("console", console)
        page.on("pageerror", lambda error: faults.append(f"page error: {error}"))
        page.on("request", request)
        page.on("response", response)
        if signed_in:
            page.goto(f"{lab.url}/?token={lab.token}")
        page.goto(f"{lab.url}{path}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults, "\n".join(faults)


@pytest.fixture
def fits() -> Callable[[Page], bool]:
    """Whether nothing of a page is wider than its window."""
    return lambda page: bool(
        page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    )


@pytest.fixture
def pictures() -> Path:
    """Where the pictures of the documentation are."""
    return REPOSITORY / "docs" / "images"
