"""What every page has around it."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from server.web.pages import PAGES
from tests.support.server_process import REPOSITORY, Server, end, start

OF_ITS_OWN = [page for page in PAGES if "<" not in page.at]


@pytest.mark.parametrize("page", OF_ITS_OWN, ids=lambda page: page.name)
@pytest.mark.parametrize("width", [360, 1280])
def test_a_page_fits_a_phone_and_a_laptop(
    visit: Callable[..., Page], fits: Callable[[Page], bool], page: object, width: int
) -> None:
    shown = visit(f"/ui/{page.at}", width=width)  # type: ignore[attr-defined]
    expect(shown.locator("h1")).to_be_visible()
    assert fits(shown)


def test_the_link_leads_to_a_clean_address(visit: Callable[..., Page], lab: Server) -> None:
    page = visit("/ui/now")
    page.goto(f"{lab.url}/?token={lab.token}")
    assert page.url == f"{lab.url}/ui/ask"


def test_the_theme_stays(visit: Callable[..., Page]) -> None:
    page = visit("/ui/now")
    page.get_by_role("button", name="Light or dark").click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_page_that_is_not_there_is_a_page(visit: Callable[..., Page]) -> None:
    page = visit("/ui/nothing/at/all")
    expect(page.get_by_role("heading", level=1)).to_have_text("Page not found")
    page.get_by_role("link", name="Ask a question", exact=True).click()
    expect(page.get_by_label("Your question")).to_be_visible()


def test_the_navigation_marks_the_list_of_what_is_shown(visit: Callable[..., Page]) -> None:
    page = visit("/ui/runs/0123456789abcdef")
    expect(page.locator("nav [aria-current]")).to_have_text("Runs")


def test_without_javascript_a_page_says_so(browser: Browser, lab: Server) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{lab.url}/?token={lab.token}")
        expect(page.locator("noscript p")).to_contain_text("need JavaScript")
        expect(page.locator("noscript p")).to_be_visible()


def test_a_page_connects_again_after_a_restart(browser: Browser, tmp_path: Path) -> None:
    server = start(tmp_path / "first", REPOSITORY, {})
    settings: dict[str, object] = {
        "PORT": urlsplit(server.url).port,
        "DATA_DIR": tmp_path / "first" / "data",
        "TOKEN": server.token,
    }
    try:
        server.wait_until_ready()
        with browser.new_context() as context:
            page = context.new_page()
            page.goto(f"{server.url}/?token={server.token}")
            state = page.locator("#model-state")
            expect(state).to_have_text("embedded")
            end(server)
            expect(state).to_have_text("not connected")
            page.get_by_label("Your question").fill("What is 6 * 7?")
            page.get_by_role("button", name="Ask", exact=True).click()
            expect(page.locator(".toast")).to_contain_text("can't be reached")
            server = start(tmp_path / "second", REPOSITORY, settings)
            expect(state).to_have_text("embedded")
            page.get_by_role("button", name="Ask", exact=True).click()
            expect(page.locator(".answer .markdown")).to_have_text("42")
    finally:
        end(server)
