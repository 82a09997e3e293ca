"""Now: what the server does at this moment."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.support.server_process import Server
from tests.support.waiting_lab import WAITING


def test_a_question_in_flight_is_shown_and_stopped(visit: Callable[..., Page], lab: Server) -> None:
    saved = lab.session.put("/workspaces/patient/files/tools/calculator.py", data=WAITING)
    assert saved.status_code == 201, saved.text
    page = visit("/ui/now")
    expect(page.locator("#models")).to_contain_text("embedded")
    expect(page.locator("#runs")).to_contain_text("Nobody asks")
    asked = lab.session.post(
        "/run_script",
        json={"question": "What is 37 * 52?", "workspace": "patient"},
        headers={"Prefer": "respond-async"},
    )
    assert asked.status_code == 202, asked.text
    row = page.locator("#runs tbody tr")
    expect(row).to_contain_text("What is 37 * 52?")
    expect(page.locator("#workers")).to_contain_text("patient")
    row.get_by_role("button", name="Stop").click()
    expect(page.locator("#runs")).to_contain_text("Nobody asks")
    assert lab.session.get(f"/runs/{asked.json()['run_id']}").json()["state"] == "cancelled"


def test_the_last_hour_is_a_picture_with_a_name(visit: Callable[..., Page]) -> None:
    page = visit("/ui/now", dark=True)
    expect(page.get_by_role("img", name="Tokens a second in the last hour")).to_be_visible()


def test_a_model_that_is_not_there_is_said(visit: Callable[..., Page]) -> None:
    page = visit("/ui/now")
    page.get_by_role("button", name="Load a model").click()
    page.get_by_role("textbox", name="Model").fill("/no/such/folder")
    page.get_by_label("Replace the default model").uncheck()
    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.locator("#model-error").get_by_role("alert")).to_contain_text("/no/such/folder")
