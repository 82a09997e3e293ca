"""Hostile texts of models, tools, people and files, in every place where a page shows them: none acts."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.support.hostile_text import HOSTILE
from tests.support.server_process import Server

WORKSPACE = "hostile"
SESSION = "of-hostile-texts"
AGENT = '''
from .agent import Agent, AgentResult, Step


class Parrot(Agent):
    """Says everything that it is asked, as each thing that a page shows."""

    name = "parrot"

    def __call__(self, question, history=()):
        steps = [
            Step(question, "tool " + question, {question: question}, question),
            Step(question, "tool", {}, question, error=question, traceback=question),
        ]
        return AgentResult(question, question[:100], steps, {})
'''
TOOL = '''
from langchain_core.tools import tool


@tool
def describe(text: str) -> str:
    """Describe <img src=x onerror=globalThis.acted=1> a text."""
    raise RuntimeError(text)
'''
ALL = "\n\n".join(HOSTILE)


def named(text: str) -> str:
    """A hostile text as a file's name."""
    return text.replace("/", "|").replace("\x00", "").replace("\n", " ").strip()[:100]


@pytest.fixture(scope="module")
def hostile(lab: Server) -> dict[str, Any]:
    """What the pages show: runs, sessions, files, documents, a comparison."""
    session = lab.session
    for path, text in (("agent/parrot.py", AGENT), ("tools/describe.py", TOOL)):
        assert session.put(f"/workspaces/{WORKSPACE}/files/{path}", data=text).status_code == 201
    asked = {"agent": "parrot", "workspace": WORKSPACE}
    answers = [session.post("/run_script", json={"question": ALL, "session_id": SESSION, **asked})]
    answers += [session.post("/run_script", json={"question": one, **asked}) for one in HOSTILE if "\x00" not in one]
    refused = [answer.text for answer in answers if answer.status_code != 200]
    assert not refused, refused[0]
    files = [("files", (f"{named(one)}.txt", one.encode())) for one in HOSTILE]
    sent = session.post(f"/sessions/{SESSION}/files", params={"workspace": WORKSPACE}, files=files)
    assert sent.status_code == 201, sent.text
    for number, one in enumerate(HOSTILE[:20]):
        document = {"text": f"{one}\n\nThe freezer is cold.", "name": f"{number} {named(one)}"}
        added = session.post("/collections/notes/documents", params={"workspace": WORKSPACE}, json=document)
        assert added.status_code in (200, 201, 202), added.text
    questions = [{"question": one, "expected": one} for one in HOSTILE[:10] if "\x00" not in one]
    side = {"agent": "parrot"}
    compared = session.post(
        "/comparisons",
        json={"questions": questions, "a": side, "b": side, "workspace": WORKSPACE, "name": HOSTILE[0]},
    )
    assert compared.status_code == 202, compared.text
    comparison = compared.json()["comparison_id"]
    lab.wait_until(lambda: session.get(f"/comparisons/{comparison}").json()["state"] == "done", "the comparison")
    return {"run": answers[0].json()["run_id"], "comparison": comparison}


def harmless(page: Page) -> None:
    """Nothing has acted. What asks another origin, or breaks the page's policy, fails in the fixture `visit`."""
    assert page.evaluate("globalThis.acted") is None
    for inside in page.frames[1:]:
        raise AssertionError(f"the page has a frame: {inside.url}")


@pytest.mark.parametrize(
    "path",
    [
        "/ui/runs",
        "/ui/runs/{run}",
        "/ui/runs/{run}?step=2",
        "/ui/runs/{run}?step=3",
        "/ui/runs/{run}?beside={run}",
        f"/ui/ask?session={SESSION}",
        "/ui/sessions",
        f"/ui/sessions?session={SESSION}",
        f"/ui/documents?collection=notes&from={WORKSPACE}",
        "/ui/code",
        "/ui/compare",
        "/ui/compare/{comparison}",
    ],
)
def test_nothing_acts(
    visit: Callable[..., Page], fits: Callable[[Page], bool], hostile: dict[str, Any], path: str
) -> None:
    path = path.format(**hostile)
    page = visit(path + ("&" if "?" in path else "?") + f"workspace={WORKSPACE}")
    # A word that all of the texts have: so they are there.
    expect(page.locator("main")).to_contain_text("acted")
    harmless(page)
    assert fits(page)


def test_the_texts_are_shown_as_they_are(visit: Callable[..., Page], hostile: dict[str, Any]) -> None:
    page = visit(f"/ui/runs/{hostile['run']}?workspace={WORKSPACE}")
    for one in HOSTILE[:5]:
        expect(page.locator("#step")).to_contain_text(one)
    page.goto(f"{page.url.split('/ui/')[0]}/ui/ask?session={SESSION}&workspace={WORKSPACE}")
    expect(page.locator("main")).to_contain_text(HOSTILE[0])
    harmless(page)


def test_an_address_can_not_act(visit: Callable[..., Page]) -> None:
    for text in HOSTILE[:10]:
        page = visit(f"/ui/runs?text={quote(text)}&workspace={quote(text)}&agent={quote(text)}")
        expect(page.locator("#model-state")).to_contain_text("embedded")
        harmless(page)


def test_a_failing_tool_shows_its_traceback_as_text(visit: Callable[..., Page], lab: Server, hostile: object) -> None:
    page = visit(f"/ui/code?workspace={WORKSPACE}")
    expect(page.locator("main")).to_contain_text("describe")
    made = lab.session.post("/tools/describe/call", json={"input": {"text": ALL}, "workspace": WORKSPACE})
    assert made.status_code == 200, made.text
    harmless(page)
