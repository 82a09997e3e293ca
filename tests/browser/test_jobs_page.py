"""Jobs: started, followed, cancelled and started again."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.server_process import Server

Visit = Callable[..., Page]
TOOLS = '''
import time
from pathlib import Path

from langchain_core.tools import tool

from server.sdk import check_cancelled, progress


@tool(extras={"background": True})
def attend(file: str, word: str) -> str:
    """Wait for a file."""
    print(f"I wait for {word}", flush=True)
    progress(1, 4, word)
    while not Path(file).exists():
        check_cancelled()
        time.sleep(0.02)
    return word
'''
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def waiting(lab: Server) -> Path:
    """The folder of the files that `attend` waits for."""
    assert lab.session.put("/workspaces/jobs/files/tools/attend.py", data=TOOLS.encode()).ok
    answer = lab.session.post("/reload_modules", json={"workspace": "jobs"})
    assert answer.status_code == 200, answer.text
    return lab.output_file.parent


def start(lab: Server, file: Path, word: str = "it") -> str:
    body: dict[str, Any] = {"tool": "attend", "input": {"file": str(file), "word": word}, "workspace": "jobs"}
    return str(lab.session.post("/jobs", json=body).json()["job_id"])


def test_a_job_is_started_by_keyboard_and_followed_to_its_end(visit: Visit, waiting: Path) -> None:
    page = visit("/ui/jobs?workspace=jobs")
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    page.get_by_label("Tool").select_option("attend")
    field = page.get_by_label("Its input")
    expect(field).to_have_value(re.compile('"file": ""'))
    field.fill("{no JSON")
    page.get_by_role("button", name="Start the job").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not JSON")
    field.fill(json.dumps({"file": str(waiting / "first"), "word": HOSTILE}))
    page.get_by_role("button", name="Start the job").press("Enter")
    expect(page.get_by_role("log")).to_contain_text(f"I wait for {HOSTILE}")
    expect(page.get_by_text(f"1 of 4, {HOSTILE}")).to_be_visible()
    (waiting / "first").touch()
    expect(page.locator(".tag.good")).to_have_text("succeeded")
    expect(page.locator("pre", has_text=HOSTILE).last).to_be_visible()
    page.reload()
    expect(page.get_by_role("log")).to_contain_text(f"I wait for {HOSTILE}")
    page.get_by_role("button", name="Start it again").click()
    expect(page.get_by_text("Repeats")).to_be_visible()


def test_the_list_changes_with_the_jobs(
    visit: Visit, lab: Server, waiting: Path, fits: Callable[[Page], bool]
) -> None:
    job = start(lab, waiting / "second", "x" * 300)
    page = visit("/ui/jobs?workspace=jobs", width=360)
    row = page.locator("tr", has_text=job)
    expect(row).to_contain_text("1 of 4")
    assert fits(page)
    other = start(lab, waiting / "third")
    expect(page.locator("tr", has_text=other)).to_contain_text("running")
    page.get_by_role("button", name=f"Cancel {other}").click()
    expect(page.locator("tr", has_text=other)).to_contain_text("cancelled")
    (waiting / "second").touch()
    expect(row).to_contain_text("succeeded")
    page.get_by_label("State").select_option("cancelled")
    expect(row).to_have_count(0)
    page.reload()
    expect(page.get_by_label("State")).to_have_value("cancelled")
    expect(page.locator("tr", has_text=other)).to_be_visible()


def test_a_job_that_begins_when_another_has_ended_is_listed(visit: Visit, lab: Server, waiting: Path) -> None:
    ending = start(lab, waiting / "fifth")
    page = visit("/ui/jobs?workspace=jobs")
    expect(page.locator("tr", has_text=ending)).to_contain_text("running")
    for number in range(3):
        (waiting / ("fifth" if not number else f"next {number}")).touch()
        expect(page.locator("tr", has_text=ending)).to_contain_text("succeeded")
        # As many run as before the end, and often as at the last sample.
        following = start(lab, waiting / f"next {number + 1}")
        expect(page.locator("tr", has_text=following)).to_contain_text("running")
        ending = following
    assert lab.session.delete(f"/jobs/{ending}").ok


def test_a_job_is_cancelled_on_its_page(visit: Visit, lab: Server, waiting: Path) -> None:
    job = start(lab, waiting / "fourth")
    page = visit(f"/ui/jobs?job={job}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status").first).to_have_text("cancelled")
    page.goto(f"{lab.url}/ui/jobs?job=no-such-job")
    expect(page.get_by_role("alert")).to_contain_text("no-such-job")
