"""The main act of each page with the keyboard alone. Ask, Code, Documents, Jobs and Sessions have theirs in their own
files."""

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.support.server_process import Server

Visit = Callable[..., Page]
MOST_KEYS = 60
FOCUS = "element => [element === document.activeElement, parseFloat(getComputedStyle(element).outlineWidth)]"
PASSWORD = "correct horse battery"


def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until the element has the focus, and see that the focus is visible."""
    expect(wanted).to_be_visible()
    for _ in range(MOST_KEYS):
        page.keyboard.press("Tab")
        has_focus, outline = wanted.evaluate(FOCUS)
        if has_focus:
            assert outline > 0
            return
    raise AssertionError(f"{MOST_KEYS} times Tab do not reach {wanted}")


def press(page: Page, name: str, key: str = "Enter") -> None:
    """Reach a button and press it."""
    tab_to(page, page.get_by_role("button", name=name, exact=True))
    page.keyboard.press(key)


def test_the_first_tab_leads_past_the_navigation(visit: Visit) -> None:
    page = visit("/ui/runs")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Question contains")).to_be_focused()


def test_the_menu_of_a_phone(visit: Visit) -> None:
    page = visit("/ui/runs", width=360)
    press(page, "Menu")
    tab_to(page, page.get_by_role("link", name="Now", exact=True))
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/ui/now"))


def test_a_run_is_found_and_continued_with_another_result(visit: Visit, lab: Server) -> None:
    assert lab.session.post("/run_script", json={"question": "What is 12 * 12?"}).ok
    page = visit("/ui/runs")
    tab_to(page, page.get_by_role("link", name="What is 12 * 12?"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("listbox", name="Steps"))
    page.keyboard.press("End")
    expect(page.locator("#step")).to_contain_text("144")
    page.keyboard.press("Home")
    expect(page.locator("#step h2").first).to_have_text("Step 1: calculator")
    press(page, "Continue from here")
    expect(page.get_by_label("Result of the tool")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("7777")
    press(page, "Continue")
    expect(page.locator("#beside")).to_contain_text("7777")


def test_a_dialog_gives_the_focus_back(visit: Visit, lab: Server) -> None:
    run = lab.session.post("/run_script", json={"question": "What is 6 * 7?"}).json()["run_id"]
    page = visit(f"/ui/runs/{run}")
    press(page, "Continue from here")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Continue from here")).to_be_focused()


def test_two_versions_are_compared(visit: Visit) -> None:
    page = visit("/ui/compare")
    press(page, "Compare")
    expect(page.get_by_role("alert")).to_contain_text("There is no question")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("Arithmetic")
    for _ in range(4):
        page.keyboard.press("Shift+Tab")
    page.keyboard.type("What is 37 * 52? => 1924")
    press(page, "Compare")
    expect(page.locator("#rows tbody tr")).to_contain_text("1924")
    expect(page.get_by_role("heading", level=1)).to_have_text("Arithmetic")
    expect(page.locator("#progress")).to_contain_text("1 of 1")
    press(page, "Delete")
    expect(page.get_by_role("button", name="Keep")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/ui/compare$"))


def test_the_models_sleep_and_wake(visit: Visit) -> None:
    page = visit("/ui/now")
    press(page, "Sleep")
    expect(page.locator("#models")).to_contain_text("asleep")
    expect(page.get_by_role("button", name="Sleep")).to_be_focused()
    press(page, "Wake")
    expect(page.locator("#models")).to_contain_text("ready")


def test_the_first_account_and_its_login(visit: Visit) -> None:
    """The last one: from now on the server has accounts."""
    page = visit("/ui/people")
    tab_to(page, page.get_by_label("Your username"))
    page.keyboard.type("alice")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#you")).to_contain_text("alice")
    press(page, "Make a link")
    expect(page.locator("#invitation code")).to_contain_text("/ui/register#invitation=")
    other = visit("/ui/login", signed_in=False)
    tab_to(other, other.get_by_label("Username"))
    other.keyboard.type("alice")
    other.keyboard.press("Tab")
    other.keyboard.type(PASSWORD)
    other.keyboard.press("Enter")
    expect(other).to_have_url(re.compile("/ui/ask"))
