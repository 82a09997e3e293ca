"""What every page has around it."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from server.web.pages import PAGES
from tests.support.server_process import Server

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
