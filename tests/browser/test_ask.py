"""Conversations: asked by mouse and by keyboard, left and found again, stopped, and with hostile text."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.support.paced_agent import Paced
from tests.support.server_process import Server

Visit = Callable[..., Page]
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
ASK = "/ui/ask?workspace=paced"


@pytest.fixture(scope="module")
def paced(lab: Server) -> Paced:
    """The agent whose answers the tests choose."""
    return Paced(lab)


def ask(page: Page, question: str, agent: str = "paced") -> None:
    """Ask by mouse, and wait until the question is on the page."""
    before = page.locator(".exchange").count()
    page.get_by_label("Agent").select_option(agent)
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".exchange")).to_have_count(before + 1)


def answer(page: Page) -> str:
    """The text of the last answer, after its end; also of what was not on the screen yet."""
    expect(page.locator(".exchange").last.locator("[role=status]")).to_have_text("Answered")
    return (page.locator(".answer").last.text_content() or "").strip()


def test_an_example_is_answered_and_survives_a_reload(visit: Visit) -> None:
    page = visit("/ui/ask")
    page.get_by_role("button", name="What is 37 * 52?").click()
    expect(page.locator(".exchange .work summary").first).to_have_text("1 step: calculator")
    assert answer(page) == "1924"
    expect(page.locator(".numbers")).to_contain_text(re.compile(r"first token .*tokens/s"))
    page.reload()
    expect(page.locator(".answer .markdown")).to_have_text("1924")
    expect(page.locator(".asked")).to_have_text("What is 37 * 52?")
    page.locator(".work > summary").click()
    page.locator(".step summary").click()
    expect(page.locator(".step .block").first).to_contain_text("37 * 52")


def test_a_conversation_by_keyboard_alone(visit: Visit) -> None:
    page = visit("/ui/ask")
    expect(page.get_by_label("Agent")).to_have_value("react")
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type("What is 6 * 7?")
    page.keyboard.press("Enter")
    assert answer(page) == "42"
    page.keyboard.type("What is")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("8 * 9?")
    page.keyboard.press("Enter")
    expect(page.locator(".exchange")).to_have_count(2)
    assert answer(page) == "72"
    expect(page.get_by_label("Your question")).to_have_value("")
    page.keyboard.press("Shift+Tab")
    focused = page.evaluate("document.activeElement.outerHTML")
    page.keyboard.press("Enter")
    assert "/ui/runs/" in focused
    expect(page).to_have_url(re.compile("/ui/runs/"))


def test_an_answer_comes_although_the_page_was_left(visit: Visit, paced: Paced) -> None:
    page = visit(ASK)
    question = paced.question("All is **well**.", waits=True, observation="a step")
    ask(page, question)
    expect(page.locator(".step")).to_contain_text("a step")
    address = page.url
    page.reload()
    expect(page.locator(".step")).to_contain_text("a step")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.goto(f"{paced.server.url}{ASK}")
    expect(page.locator(".recent .tag.live")).to_be_visible()
    page.locator(".recent a").first.click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    assert page.url.split("?")[1] == address.split("?")[1]
    paced.go_on(question)
    assert answer(page) == "All is well."
    expect(page.locator(".answer strong")).to_have_text("well")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_a_run_is_stopped_and_its_steps_stay(visit: Visit, paced: Paced, by: str) -> None:
    page = visit(ASK)
    ask(page, paced.question("never", waits=True))
    expect(page.locator(".step")).to_be_visible()
    if by == "mouse":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator(".exchange [role=status]")).to_have_text("Stopped")
    expect(page.locator(".step")).to_be_visible()
    page.reload()
    expect(page.locator(".answer .note")).to_contain_text("Stopped")


def test_hostile_text_is_text(visit: Visit, paced: Paced) -> None:
    page = visit(ASK, width=360)
    ask(
        page,
        paced.question(HOSTILE + "\n\n[x](javascript:alert(1)) ![p](http://192.0.2.1/p.png)", observation=HOSTILE),
    )
    assert HOSTILE in answer(page)
    page.locator(".work > summary").click()
    expect(page.locator(".step summary")).to_contain_text("<script>")
    assert page.title() != "owned"
    assert page.locator("#conversation img, #conversation script, #conversation a[href^=javascript]").count() == 0


def test_long_words_and_code_fit_a_phone(visit: Visit, paced: Paced, fits: Callable[[Page], bool]) -> None:
    page = visit(ASK, width=360)
    wide = "|" + "|".join(["column"] * 30) + "|\n" + "|" + "---|" * 30
    ask(page, paced.question(f"{'w' * 500}\n\n```\n{'c' * 500}\n```\n\n{wide}", observation="o" * 900))
    answer(page)
    assert fits(page)


def test_a_long_answer_is_shown_in_parts_and_a_longer_one_as_it_is(visit: Visit, paced: Paced) -> None:
    page = visit(ASK)
    ask(page, paced.question("\n\n".join(f"Paragraph **{number}** " + "of words " * 40 for number in range(250))))
    answer(page)
    assert page.locator(".answer .markdown").count() > 3
    assert page.locator(".answer strong").count() == 250
    ask(page, paced.question("**x** " * 40_000))
    answer(page)
    assert page.locator(".answer").last.locator("strong").count() == 0
    assert page.locator(".answer").last.evaluate("element => element.textContent.length") > 200_000


def test_a_citation_opens_its_page(visit: Visit, paced: Paced) -> None:
    text = "🔥 The celadon glaze was fired at 1240 degrees. It turned green."
    body = {"name": "celadon <b>.txt", "text": text}
    [document] = paced.server.session.post("/collections/glazes/documents?workspace=paced", json=body).json()[
        "documents"
    ]
    quote = "fired at 1240 degrees"
    said = "It was 1240 degrees."
    cited = {
        "document": document["name"],
        "document_id": document["document_id"],
        "page": 0,
        "page_label": None,
        "quote": quote,
        "start": text.index(quote),
        "end": text.index(quote) + len(quote),
        "score": 1.0,
        "at": len(said),
    }
    page = visit(ASK)
    ask(page, paced.question(f"{said} That is hot.", citations=[cited]))
    assert answer(page).startswith("It was 1240 degrees.1 That is hot.")
    page.get_by_role("button", name="Source 1").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("mark")).to_have_text(quote)
    expect(dialog.get_by_role("heading")).to_have_text(document["name"])
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_files_and_pictures(visit: Visit, paced: Paced) -> None:
    page = visit(ASK)
    png = bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001"
        "a5f645400000000049454e44ae426082"
    )
    name = "<b>figure.png"
    page.locator("#files").set_input_files([FilePayload(name=name, mimeType="image/png", buffer=png)])
    page.locator("#files").set_input_files([FilePayload(name="notes.txt", mimeType="text/plain", buffer=b"hello")])
    expect(page.locator(".chip").nth(1)).to_contain_text("5 bytes")
    page.get_by_role("button", name="Remove notes.txt").click()
    expect(page.locator(".chip")).to_have_count(1)
    saved = page.locator(".chip .text").inner_text()
    page.get_by_label("Agent").select_option("paced")
    # Pictures become a part of the question's text, which names the script of this agent.
    session = page.evaluate("new URLSearchParams(location.search).get('session')")
    files = paced.server.session.get(f"/sessions/{session}/files?workspace=paced").json()["files"]
    assert [one["name"] for one in files] == [saved]
    page.get_by_role("button", name=f"Remove {saved}").click()
    drop = "const data = new DataTransfer(); data.items.add(new File(['hello'], 'dropped.txt')); return data"
    dropped = page.evaluate_handle(f"() => {{ {drop} }}")
    page.dispatch_event("#conversation", "drop", {"dataTransfer": dropped})
    expect(page.locator(".chip")).to_contain_text("dropped.txt 5 bytes")
    paced.server.session.post(f"/sessions/{session}/files?workspace=paced", files={"files": ("plot.png", png)})
    ask(
        page,
        paced.question(
            "Here it is.", details={"figures": ["plot.png"], "files": ["plot.png", "data.csv"], "code": "plot()"}
        ),
    )
    answer(page)
    page.wait_for_function("() => document.querySelector('.made img')?.naturalWidth === 1")
    expect(page.locator(".made a.tag")).to_have_text("⤓ data.csv")


def test_an_error_names_what_to_do(visit: Visit, paced: Paced) -> None:
    page = visit(ASK)
    ask(page, "there is no script of this name")
    expect(page.locator(".exchange [role=status]")).to_have_text("Failed")
    expect(page.locator(".answer [role=alert]")).to_contain_text("paced")


def test_what_a_script_asks_in_the_same_session_comes_too(visit: Visit, lab: Server) -> None:
    page = visit("/ui/ask?session=together&workspace=main")
    expect(page.get_by_label("Agent")).to_have_value("react")
    body = {"question": "What is 6 * 7?", "session_id": "together"}
    assert lab.session.post("/run_script", json=body).status_code == 200
    expect(page.locator(".asked")).to_have_text("What is 6 * 7?")
    expect(page.locator(".answer .markdown")).to_have_text("42")


def test_a_refused_question_stays_in_its_field(visit: Visit) -> None:
    page = visit("/ui/ask")
    page.route(
        "**/run_script",
        lambda route: route.fulfill(
            status=429, json={"error": {"type": "queue_full", "message": "The queue is full."}}
        ),
    )
    page.get_by_label("Your question").fill("Am I lost?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".toast")).to_contain_text("The queue is full.")
    expect(page.get_by_label("Your question")).to_have_value("Am I lost?")


def test_the_reader_is_not_moved_while_text_comes(visit: Visit, paced: Paced) -> None:
    page = visit(ASK)
    ask(page, paced.question("\n\n".join(f"Paragraph {number}" for number in range(100))))
    answer(page)
    question = paced.question("\n\n".join(["More"] * 100), waits=True)
    ask(page, question)
    expect(page.locator(".step").last).to_be_visible()
    page.evaluate("scrollTo(0, 0)")
    expect(page.get_by_role("button", name="To the end")).to_be_visible()
    paced.go_on(question)
    answer(page)
    assert page.evaluate("scrollY") == 0
    page.get_by_role("button", name="To the end").click()
    page.wait_for_function("() => scrollY > 500")
