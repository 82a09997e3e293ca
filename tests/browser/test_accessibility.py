"""Every page by axe's rules, empty and with content: https://github.com/dequelabs/axe-core"""

from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from server.web.pages import PAGES
from tests.support.server_process import Server
from tests.support.used_lab import SESSION, WORKSPACE, UsedLab, use

OF_ITS_OWN = [page for page in PAGES if "<" not in page.at]
GRAVE = ("serious", "critical")
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def used(lab: Server) -> UsedLab:
    """The server after a day of work."""
    return use(lab)


def faults(page: Page) -> list[str]:
    """What axe finds serious or critical, with the element."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:200]}"
        for one in found
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]


def steps(page: Page) -> None:
    page.locator(".work > summary").first.click()
    page.locator(".step summary").first.click()
    expect(page.locator(".step .block").first).to_be_visible()


def tokens(page: Page) -> None:
    page.get_by_role("button", name="Show each token's probability").click()
    page.locator(".tokens .token:not(.forced)").first.click()
    expect(page.locator("#step tbody tr")).to_have_count(5)


def fork(page: Page) -> None:
    page.get_by_role("button", name="Continue from here").click()
    page.get_by_text("More to change").click()
    expect(page.get_by_label("Temperature")).to_be_visible()


def beside(page: Page) -> None:
    expect(page.locator("#beside .tag").first).to_have_text("differs")
    expect(page.locator("#step h2").first).to_be_visible()


def failed(page: Page) -> None:
    expect(page.locator("#step").get_by_role("alert")).to_contain_text("sample 3 has no label")


def compared(page: Page) -> None:
    expect(page.locator("#rows tbody tr")).to_have_count(3)


def tool(page: Page) -> None:
    page.get_by_role("textbox", name="freezer", exact=True).fill("F9")
    page.get_by_role("button", name="Try").first.click()
    expect(page.locator(".tool .tag.bad")).to_be_visible()
    page.get_by_role("textbox", name="Question").fill("What is 6 * 7?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".exchange .markdown")).to_have_text("42")


def session(page: Page) -> None:
    expect(page.locator("table")).to_contain_text("growth.csv")
    page.get_by_role("button", name="Edit the notepad").click()
    expect(page.get_by_label("Found").first).to_be_visible()


def job(page: Page) -> None:
    expect(page.get_by_role("log")).to_contain_text("plate 12")


@pytest.mark.parametrize("shown", OF_ITS_OWN, ids=lambda page: page.name)
def test_axe_finds_nothing_serious(visit: Visit, shown: Any) -> None:
    for dark in (False, True):
        page = visit(f"/ui/{shown.at}", dark=dark)
        expect(page.locator("h1")).to_be_visible()
        if not shown.is_open:
            expect(page.locator("#model-state")).to_contain_text("embedded")
        assert not faults(page)


def test_axe_finds_nothing_serious_in_an_editor_before_it_has_a_file(visit: Visit) -> None:
    page = visit("/ui/ask")
    page.route("**/workspaces/**", lambda route: None)  # never answered
    page.goto(urljoin(page.url, "/ui/code"))
    expect(page.get_by_role("textbox", name="No file is open")).to_be_visible()
    assert not faults(page)
    page.unroute_all()


@pytest.mark.parametrize(
    ("path", "show"),
    [
        pytest.param("{address}", steps, id="steps"),
        pytest.param("/ui/runs/{run}", tokens, id="tokens"),
        pytest.param("/ui/runs/{long}?step=150", fork, id="fork"),
        pytest.param("/ui/runs/{fork}?beside={run}", beside, id="beside"),
        pytest.param("/ui/runs/{failed}", failed, id="failed"),
        pytest.param("/ui/compare/{comparison}", compared, id="compared"),
        pytest.param(f"/ui/code?workspace={WORKSPACE}&file=tools/freezer_temperature.py", tool, id="tool"),
        pytest.param(f"/ui/sessions?session={SESSION}&workspace={WORKSPACE}", session, id="session"),
        pytest.param("/ui/jobs?job={job}", job, id="job"),
    ],
)
def test_axe_finds_nothing_serious_where_there_is_content(
    visit: Visit, used: UsedLab, path: str, show: Callable[[Page], None]
) -> None:
    page = visit(path.format(**vars(used)))
    show(page)
    assert not faults(page)
    page.emulate_media(color_scheme="dark")
    assert not faults(page)
