"""Sessions: found, read, corrected, with their files and variables, deleted."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.support.server_process import Server

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def session(lab: Server) -> str:
    """A session with two questions and a variable; and another one."""
    for name, question in (
        ("monday", "What is 37 * 52?"),
        ("monday", "What is 6 * 7?"),
        ("tuesday", "What is 8 * 9?"),
    ):
        answer = lab.session.post("/run_script", json={"question": question, "session_id": name})
        assert answer.status_code == 200, answer.text
    return "monday"


def test_no_session_yet(visit: Visit) -> None:
    page = visit("/ui/sessions?workspace=main")
    page.get_by_role("link", name="Ask a question", exact=True).click()
    expect(page).to_have_url(re.compile("/ui/ask"))


def test_a_session_is_found_by_keyboard_and_opened_in_ask(visit: Visit, session: str) -> None:
    page = visit("/ui/sessions")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label("Search").focus()
    page.keyboard.type("MON")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(session)
    expect(page.get_by_text("1924").first).to_be_visible()
    page.get_by_role("link", name="Open in Ask").click()
    expect(page.locator(".exchange")).to_have_count(2)


def test_the_notepad_is_corrected_and_never_overwritten_unseen(visit: Visit, lab: Server, session: str) -> None:
    page = visit(f"/ui/sessions?session={session}")
    page.get_by_role("button", name="Edit the notepad").click()
    page.get_by_label("Found").first.fill("it was <b>1924</b>")
    page.get_by_role("button", name="Forget question 2").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("it was <b>1924</b>")).to_be_visible()
    [entry] = lab.session.get(f"/sessions/{session}/notepad").json()["entries"]
    assert (entry["turn"], entry["found"]) == (1, "it was <b>1924</b>")
    page.get_by_role("button", name="Edit the notepad").click()
    page.get_by_label("Found").first.fill("mine")
    lab.session.put(f"/sessions/{session}/notepad", json={"entries": [{**entry, "found": "theirs"}]})
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("has changed meanwhile")
    assert lab.session.get(f"/sessions/{session}/notepad").json()["entries"][0]["found"] == "theirs"


def test_files_are_uploaded_read_and_deleted(visit: Visit, lab: Server, session: str) -> None:
    page = visit(f"/ui/sessions?session={session}", width=360)
    table = b"name,value\n<script>,1\nb,2\n"
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload files").click()
    chooser.value.set_files([FilePayload(name="<i>data.csv", mimeType="text/csv", buffer=table)])
    row = page.locator("tr", has_text="data.csv")
    expect(row).to_contain_text("26 bytes")
    row.get_by_role("button", name="What is in").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("How code reads it").click()
    expect(dialog.locator("pre").last).to_contain_text("read_csv")
    dialog.get_by_role("button", name="Close").click()
    with page.expect_download() as download:
        row.get_by_role("link").click()
    assert download.value.path().read_bytes() == table
    row.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    expect(row).to_be_visible()
    row.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete the file").click()
    expect(row).to_have_count(0)


def test_variables_are_shown_and_downloaded(
    visit: Visit, lab: Server, session: str, fits: Callable[[Page], bool]
) -> None:
    code = "import pandas\nframe = pandas.DataFrame({'<b>': [1, 2], 'long ' * 30: [3, 4]})\nword = '<i>hello</i>'"
    assert lab.session.post(f"/sessions/{session}/code", json={"code": code}).status_code == 200
    page = visit(f"/ui/sessions?session={session}", width=360)
    page.get_by_role("button", name="Show the variables").click()
    page.get_by_role("button", name="Show frame").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 rows, 2 columns")
    expect(dialog.get_by_role("columnheader", name="<b>")).to_be_visible()
    assert fits(page)
    dialog.get_by_role("button", name="Close").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download word").click()
    assert download.value.path().read_text() == "<i>hello</i>"


def test_a_session_is_deleted(visit: Visit, lab: Server, session: str) -> None:
    page = visit("/ui/sessions?session=tuesday")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete the session").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert lab.session.get("/sessions/tuesday").status_code == 404
