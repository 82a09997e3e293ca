"""Makes the pictures of docs/pages.md: `make pictures`. Each page has its content and stays small."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.support.server_process import Server
from tests.support.used_lab import SESSION, WORKSPACE, UsedLab, use

HEIGHT = 800
COLOURS = 200
MOST_BYTES = 60_000
WIDTH, PHONE = 1280, 360

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def used(lab: Server) -> UsedLab:
    """The server after a day of work."""
    return use(lab)


def answered(page: Page) -> None:
    expect(page.locator(".answer")).to_have_count(3)
    page.locator(".work > summary").last.click()
    page.locator(".step summary").last.click()
    expect(page.locator(".step .block").last).to_be_visible()


def step(page: Page) -> None:
    expect(page.locator("#step .prompt").first).to_be_visible()


def probabilities(page: Page) -> None:
    page.get_by_role("button", name="Show each token's probability").click()
    page.locator(".tokens .token:not(.forced)").nth(6).click()
    expect(page.locator("#step tbody tr")).to_have_count(5)
    page.locator(".tokens").scroll_into_view_if_needed()
    page.mouse.wheel(0, HEIGHT)


def beside(page: Page) -> None:
    expect(page.locator("#beside .tag").first).to_be_visible()
    expect(page.locator("#step h2").first).to_be_visible()


def code(page: Page) -> None:
    page.get_by_role("textbox", name="freezer", exact=True).fill("F7")
    page.get_by_role("button", name="Try").first.click()
    expect(page.locator(".tool .tag.good")).to_be_visible()


def rows(page: Page) -> None:
    expect(page.locator("tbody tr").first).to_be_visible()


def search(page: Page) -> None:
    page.get_by_label("Search").fill("alarm of freezer F7")
    page.keyboard.press("Enter")
    expect(page.locator(".result").first).to_be_visible()


def log(page: Page) -> None:
    expect(page.get_by_role("log")).to_contain_text("plate 12")


def models(page: Page) -> None:
    expect(page.locator("#models")).to_contain_text("ready")


def audit(page: Page) -> None:
    expect(page.locator("#audit tbody tr").first).to_be_visible()


PICTURES: dict[str, tuple[str, Callable[[Page], None], tuple[str, ...]]] = {
    "ask": ("{address}", answered, ("light", "dark", "phone")),
    "run": ("/ui/runs/{run}", step, ("light", "dark", "phone")),
    "tokens": ("/ui/runs/{run}", probabilities, ("light",)),
    "side-by-side": ("/ui/runs/{fork}?beside={run}", beside, ("light",)),
    "code": (f"/ui/code?workspace={WORKSPACE}&file=tools/freezer_temperature.py", code, ("light",)),
    "compare": ("/ui/compare/{comparison}", rows, ("light",)),
    "sessions": (f"/ui/sessions?session={SESSION}&workspace={WORKSPACE}", rows, ("light",)),
    "documents": (f"/ui/documents?collection=handbook&workspace={WORKSPACE}", search, ("light",)),
    "jobs": ("/ui/jobs?job={job}", log, ("light",)),
    "now": ("/ui/now", models, ("light",)),
    "people": ("/ui/people", audit, ("light",)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_page_has_its_picture(visit: Callable[..., Page], used: UsedLab, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("PICTURES", tmp_path))
    path, show, kinds = PICTURES[name]
    for kind in kinds:
        page = visit(path.format(**vars(used)), width=PHONE if kind == "phone" else WIDTH, dark=kind == "dark")
        expect(page.locator("#model-state")).to_contain_text("embedded")
        show(page)
        page.evaluate("document.activeElement.blur()")
        picture = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
        file = folder / f"{name}-{kind}.png"
        picture.convert("RGB").quantize(COLOURS).save(file, optimize=True)
        assert file.stat().st_size <= MOST_BYTES, file
