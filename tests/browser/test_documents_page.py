"""Documents: added, found on their page, deleted."""

import importlib.util
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.support.pdf_documents import text_pages, with_labels
from tests.support.server_process import Server

if importlib.util.find_spec("faiss") is None:
    pytest.skip("requirements-documents.txt is not installed", allow_module_level=True)

Visit = Callable[..., Page]


def test_a_first_document_by_keyboard(visit: Visit) -> None:
    page = visit("/ui/documents")
    expect(page.get_by_text("No documents yet")).to_be_visible()
    page.get_by_label("Into the collection").fill("notes")
    page.get_by_label("Files", exact=True).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.type("cooling.md")
    page.keyboard.press("Tab")
    page.keyboard.type("The warpage is 37 micrometres. <b>Cool slowly.</b>")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("collection=notes"))
    expect(page.locator(".tag.good")).to_have_text("ready")
    page.get_by_label("Search").focus()
    page.keyboard.type("warpage")
    page.keyboard.press("Enter")
    expect(page.locator(".result")).to_contain_text("<b>Cool slowly.</b>")
    page.locator(".result").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").locator("mark")).to_contain_text("37 micrometres")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_files_with_printed_pages_and_a_refused_one(visit: Visit, fits: Callable[[Page], bool]) -> None:
    page = visit("/ui/documents", width=360)
    page.get_by_label("Into the collection").fill("papers")
    paper = with_labels(text_pages(3), [(0, "r", 1), (2, "D", 1)])
    page.locator("input[type=file]").set_input_files(
        [
            FilePayload(name="<i>paper.pdf", mimeType="application/pdf", buffer=paper),
            FilePayload(name="broken.pdf", mimeType="application/pdf", buffer=b"%PDF-1.7\n"),
        ]
    )
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status").filter(has_text="Added")).to_contain_text("broken.pdf")
    page.get_by_role("link", name="papers").click()
    expect(page).to_have_url(re.compile("collection=papers"))
    page.locator("button.name").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("status")).to_have_text("Page i")
    dialog.get_by_role("button", name="Next page").click()
    expect(dialog.get_by_role("status")).to_have_text("Page ii")
    dialog.get_by_role("button", name="Close").click()
    page.locator("input[type=file]").set_input_files(
        [FilePayload(name="broken.pdf", mimeType="application/pdf", buffer=b"%PDF-1.7\n")]
    )
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("broken.pdf")
    assert fits(page)


def test_what_others_add_and_delete_is_seen_at_once(visit: Visit, lab: Server) -> None:
    place = "/collections/shared/documents"
    first = lab.session.post(place, json={"name": "one.md", "text": "The first."}).json()["documents"][0]
    page = visit("/ui/documents?collection=shared")
    expect(page.locator("tbody tr")).to_have_count(1)
    lab.session.post(place, json={"name": "two.md", "text": "The second."})
    expect(page.locator("tbody tr")).to_have_count(2)
    lab.session.delete(f"{place}/{first['document_id']}")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Delete two.md").click()
    page.get_by_role("button", name="Delete the document").click()
    expect(page.get_by_text("No documents", exact=True)).to_be_visible()
    page.get_by_role("button", name="Delete the collection").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete the collection").click()
    expect(page).to_have_url(re.compile("/ui/documents$"))
    assert lab.session.get(place).status_code == 404


def test_a_page_is_read_by_its_citation_alone(lab: Server) -> None:
    document = lab.session.post(
        "/collections/own/documents?session=kiln", json={"name": "a.txt", "text": "Hot."}
    ).json()
    place = f"/documents/{document['documents'][0]['document_id']}/pages"
    found = lab.session.get(f"{place}/0", params={"session": "kiln"}).json()
    assert (found["text"], found["page"], found["pages"], found["start"]) == ("Hot.", 0, 1, 0)
    assert lab.session.get(f"{place}/0").status_code == 404
    assert lab.session.get(f"{place}/1", params={"session": "kiln"}).status_code == 404
    assert lab.session.get(f"{place}/x", params={"session": "kiln"}).status_code == 422
