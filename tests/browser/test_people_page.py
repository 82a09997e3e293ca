"""People: from the first account to two colleagues in two browsers."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.server_process import REPOSITORY, Server, end, start

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of these tests' own: accounts are made in it."""
    server = start(tmp_path_factory.mktemp("people") / "server", REPOSITORY, {})
    try:
        server.wait_until_ready()
        yield server
    finally:
        end(server)


def ask(page: Page, lab: Server, workspace: str, question: str) -> None:
    page.goto(f"{lab.url}/ui/ask?workspace={workspace}")
    page.get_by_role("textbox").first.fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def test_two_colleagues_see_nothing_of_each_other(visit: Callable[..., Page], lab: Server) -> None:
    # Who opens the link is alone, and meets no login.
    alice = visit("/ui/people")
    expect(alice.locator("#you")).to_contain_text("You have the server's link")
    form = alice.locator("#first-form")
    form.get_by_label("Your username").fill("alice")
    form.get_by_label("Password, at least 8 characters").fill(PASSWORD)
    form.get_by_role("button").click()
    expect(alice.locator("#you")).to_contain_text("alice")
    expect(alice.locator("#you")).to_contain_text("admin")

    alice.locator("#invite-form").get_by_role("button").click()
    link = alice.locator("#invitation code").inner_text()

    bob = visit("/ui/login", signed_in=False)
    bob.goto(link)
    bob.get_by_label("Username").fill("bob")
    bob.get_by_label(re.compile("Password")).fill(PASSWORD)
    bob.get_by_role("button", name="Register").click()
    expect(bob).to_have_url(f"{lab.url}/ui/ask")

    ask(alice, lab, "main", "What is 37 * 52?")
    expect(alice.locator("main")).to_contain_text("1924")
    ask(bob, lab, "main", "What is 6 * 7?")
    expect(bob.locator("main")).to_contain_text("42")
    for page, own, other in (
        (alice, "What is 37 * 52?", "What is 6 * 7?"),
        (bob, "What is 6 * 7?", "What is 37 * 52?"),
    ):
        page.goto(f"{lab.url}/ui/runs")
        expect(page.get_by_role("link", name=own)).to_be_visible()
        expect(page.get_by_role("link", name=other)).to_have_count(0)

    # A guest of the people's page: bob administers nothing.
    bob.goto(f"{lab.url}/ui/people")
    expect(bob.locator("#you")).to_contain_text("researcher")
    expect(bob.locator("#admin")).to_be_hidden()
    # The audit log knows who came.
    alice.goto(f"{lab.url}/ui/people")
    expect(alice.locator("#audit")).to_contain_text("account.registered")
    expect(alice.locator("#people")).to_contain_text("bob")


def test_a_key_works_until_it_is_revoked(visit: Callable[..., Page], lab: Server) -> None:
    page = visit("/ui/login", signed_in=False)
    page.get_by_label("Username").fill("alice")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{lab.url}/ui/ask")
    page.goto(f"{lab.url}/ui/people")
    page.get_by_label("What it is for").fill("a notebook")
    page.get_by_role("button", name="New key").click()
    key = page.locator("#new-key code").inner_text()
    header = {"Authorization": f"Bearer {key}"}
    assert lab.session.get("/auth/me", headers=header).json()["username"] == "alice"
    page.locator("#keys").get_by_role("button", name="Revoke").click()
    expect(page.locator("#keys")).to_contain_text("You have none")
    assert lab.session.get("/auth/me", headers=header).status_code == 401


def test_a_wrong_password_is_said_and_nothing_more(visit: Callable[..., Page]) -> None:
    page = visit("/ui/login", signed_in=False)
    page.get_by_label("Username").fill("alice")
    page.get_by_label("Password").fill("wrong password")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()


def test_logging_out_leads_to_the_login(visit: Callable[..., Page], lab: Server) -> None:
    page = visit("/ui/login", signed_in=False)
    page.get_by_label("Username").fill("bob")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{lab.url}/ui/ask")
    page.goto(f"{lab.url}/ui/people")
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{lab.url}/ui/login")
    page.goto(f"{lab.url}/ui/runs")
    expect(page).to_have_url(re.compile("/ui/login"))
