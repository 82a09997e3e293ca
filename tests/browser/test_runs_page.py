"""Runs: what the model saw, and continuing from a step."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.server_process import Server

QUESTION = "What is 37 * 52?"


@pytest.fixture(scope="module")
def run(lab: Server) -> dict[str, Any]:
    """A run with one step and an answer."""
    answer: dict[str, Any] = lab.session.post("/run_script", json={"question": QUESTION}).json()
    return answer


def test_the_list_finds_a_run_by_its_question(visit: Callable[..., Page], run: dict[str, Any]) -> None:
    page = visit("/ui/runs")
    page.get_by_label("Question contains").fill("37 * 5")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("link", name=QUESTION).first.click()
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    expect(page.locator("#facts")).to_contain_text("done")


def test_a_step_shows_the_prompt_and_what_is_new_in_it(visit: Callable[..., Page], run: dict[str, Any]) -> None:
    page = visit(f"/ui/runs/{run['run_id']}")
    expect(page.locator("#step")).to_contain_text("Step 1: calculator")
    expect(page.locator("#step .prompt").first).to_contain_text(QUESTION)
    # By keyboard: the answer is the option after the last step.
    page.locator("#steps").press("End")
    expect(page.locator("#step")).to_contain_text("1924")
    expect(page.locator("#step")).to_contain_text("are those of model call 1")
    expect(page.locator("#step ins", has_text="1924").first).to_be_visible()


def test_each_token_has_its_probability_and_alternatives(visit: Callable[..., Page], run: dict[str, Any]) -> None:
    page = visit(f"/ui/runs/{run['run_id']}")
    page.get_by_role("button", name="Show each token's probability").click()
    tokens = page.locator("#step .tokens .token")
    expect(tokens.first).to_be_visible()
    tokens.first.click()
    expect(page.locator("#step table tbody tr")).to_have_count(5)
    expect(page.locator("#step .token.forced").nth(1)).to_be_visible()


def test_a_run_continues_with_another_result_of_its_tool(visit: Callable[..., Page], run: dict[str, Any]) -> None:
    page = visit(f"/ui/runs/{run['run_id']}")
    page.get_by_role("button", name="Continue from here").click()
    page.get_by_label("Result of the tool, as the model reads it").fill("7777")
    page.locator("#fork").get_by_role("button", name="Continue").click()
    expect(page).to_have_url(re.compile("beside="))
    expect(page.locator("#beside")).to_contain_text("7777")
    expect(page.locator("#beside")).to_contain_text("1924")
    expect(page.locator("#beside .tag").first).to_have_text("differs")
    expect(page.locator("#facts")).to_contain_text("forked from")


def test_a_fork_that_is_refused_says_why(visit: Callable[..., Page], run: dict[str, Any]) -> None:
    page = visit(f"/ui/runs/{run['run_id']}")
    page.get_by_role("button", name="Continue from here").click()
    page.get_by_text("More to change").click()
    page.get_by_label("Input of the tool, as JSON").fill("{")
    page.locator("#fork").get_by_role("button", name="Continue").click()
    expect(page.locator("#fork").get_by_role("alert")).to_be_visible()


def test_a_run_that_is_not_there_is_said(visit: Callable[..., Page], fits: Callable[[Page], bool]) -> None:
    page = visit("/ui/runs/0123456789abcdef", width=360)
    expect(page.get_by_role("alert")).to_contain_text("There is no run")
    assert fits(page)


def test_the_page_of_a_run_fits_a_phone(
    visit: Callable[..., Page], fits: Callable[[Page], bool], run: dict[str, Any]
) -> None:
    page = visit(f"/ui/runs/{run['run_id']}", width=360)
    expect(page.locator("#step")).to_contain_text("Step 1: calculator")
    assert fits(page)
