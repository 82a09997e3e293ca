"""What a page of somebody else can do with the cookie of a browser."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser

from tests.support.server_process import Server


@pytest.fixture
def foreign_page() -> Iterator[str]:
    """A page at another port of this machine, as a notebook server has it: to a browser it is the same site, and the
    cookies are sent."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>foreign</title>")

        def log_message(self, *_: object) -> None:
            """Not into the tests' output."""

    site = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{site.server_port}"
    site.shutdown()
    site.server_close()


def test_a_browser_sends_the_cookie_and_is_refused(browser: Browser, empty_server: Server, foreign_page: str) -> None:
    with browser.new_context() as context:
        context.add_cookies(
            [{"name": "hearth_session", "value": "x", "url": empty_server.url, "httpOnly": True, "sameSite": "Lax"}]
        )
        page = context.new_page()
        page.goto(foreign_page)
        page.evaluate(
            """async (url) => { await fetch(url, {method: "POST", mode: "no-cors", credentials: "include"}) }""",
            f"{empty_server.url}/load_tools",
        )
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text))
        page.set_content(f'<iframe src="{empty_server.url}/health"></iframe>')
        page.wait_for_function("() => document.querySelector('iframe').contentDocument === null")
        page.frames[1].wait_for_load_state()
        framed = page.frames[1].content()
    # Without the cookie it would be 401.
    assert re.findall(r"POST /load_tools (\d+)", empty_server.output)[-1] == "403"
    assert '"status"' not in framed
    assert any("frame-ancestors" in text for text in refused), refused
