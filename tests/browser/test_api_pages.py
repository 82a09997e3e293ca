"""`/docs` and `/redoc`: the API in a browser. `visit` fails on what their policy refuses and on foreign requests."""

from collections.abc import Callable

import pytest
import requests
from playwright.sync_api import Locator, Page, expect

from server.web.api_pages import PATHS
from tests.support.server_process import Server


def opened(page: Page, tag: str, method: str, path: str) -> Locator:
    """An operation of Swagger UI, expanded and ready to be tried."""
    page.get_by_placeholder("Filter by tag").fill(tag)
    page.locator(".opblock-tag", has_text=tag).click()
    operation = page.locator(f".opblock-{method}", has=page.locator(f'[data-path="{path}"]'))
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    return operation


def test_swagger_ui_sends_requests_with_the_cookie(visit: Callable[..., Page]) -> None:
    page = visit("/docs")
    operation = opened(page, "workspaces", "get", "/workspaces")
    with page.expect_response("**/workspaces") as answered:
        operation.get_by_role("button", name="Execute").click()
    assert answered.value.status == 200
    assert "authorization" not in answered.value.request.headers
    expect(operation.locator(".live-responses-table .response .response-col_status").first).to_contain_text("200")
    expect(operation.locator(".live-responses-table .microlight").first).to_contain_text('"workspace": "main"')


def test_swagger_ui_may_change_something(visit: Callable[..., Page]) -> None:
    page = visit("/docs")
    operation = opened(page, "pages", "post", "/ui/markdown")
    operation.locator("textarea").fill('{"texts": ["*hello*"]}')
    with page.expect_response("**/ui/markdown") as answered:
        operation.get_by_role("button", name="Execute").click()
    assert answered.value.json() == {"html": ["<p><em>hello</em></p>\n"]}


def test_redoc_shows_an_operation(visit: Callable[..., Page]) -> None:
    page = visit("/redoc")
    page.locator(".menu-content").get_by_text("comparisons", exact=True).click()
    page.locator(".menu-content").get_by_text("Ask two versions the same questions").click()
    section = page.locator("[data-section-id$='comparisons/post'], [id$='comparisons_post']").first
    expect(section).to_be_visible()
    expect(section.get_by_text("at_once").first).to_be_visible()


def test_the_menu_leads_there(visit: Callable[..., Page]) -> None:
    page = visit("/ui/runs")
    page.get_by_role("link", name="API").click()
    expect(page.locator("h1, .info h2").first).to_contain_text("Hearth")
    assert page.url.endswith("/docs")


@pytest.mark.parametrize("path", PATHS.values())
def test_nobody_else_sees_them(visit: Callable[..., Page], lab: Server, path: str) -> None:
    assert requests.get(lab.url + path, timeout=60).status_code == 401
    page = visit(path, signed_in=False)
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.get_by_label("Token").fill(lab.token)
    page.get_by_role("button", name="Open").click()
    expect(page.locator("#api")).to_contain_text("Hearth")
    assert page.url == lab.url + path
