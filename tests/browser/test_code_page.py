"""The page Code: edit, save and reload, ask, look back, try a tool."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.server_process import Server

SHOUT = '''from langchain_core.tools import tool


@tool
def shout(text: str, times: int = 1) -> str:
    """Write a text in capital letters."""
    return text.upper() * times
'''
TITLE = SHOUT.replace("upper", "title")
BROKEN = SHOUT.replace("return text", "return text text")
BROKEN_LINE = 7
PASTE = """(editor, text) => {
    const data = new DataTransfer();
    data.setData("text/plain", text);
    editor.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""
Visit = Callable[..., Page]


@pytest.fixture
def shout(lab: Server) -> Callable[[str], None]:
    """`shout(workspace)`: make a workspace with the tool `shout`, live."""

    def make(workspace: str) -> None:
        assert lab.session.put(f"/workspaces/{workspace}/files/tools/shout.py", data=SHOUT.encode()).ok
        assert lab.session.post("/reload_modules", json={"workspace": workspace}).ok

    return make


def opened(visit: Visit, workspace: str, **options: Any) -> Page:
    page = visit(f"/ui/code?workspace={workspace}&file=tools/shout.py", **options)
    expect(page.locator("#file-name")).to_have_text("tools/shout.py")
    expect(page.locator("#live .mono")).to_be_visible()
    return page


def write(page: Page, text: str) -> None:
    """Replace the editor's text."""
    page.get_by_label("Text of tools/").click()
    page.keyboard.press("Control+a")
    page.get_by_label("Text of tools/").evaluate(PASTE, text)


def ask(page: Page, question: str, answer: str) -> None:
    page.get_by_role("textbox", name="Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".exchange").first).to_contain_text("generation")
    expect(page.locator(".exchange .markdown").first).to_have_text(answer)


def text_of(lab: Server, workspace: str) -> str:
    return lab.session.get(f"/workspaces/{workspace}/files/tools/shout.py").text


def test_edit_reload_and_ask_in_one_window(visit: Visit, lab: Server, shout: Callable[[str], None]) -> None:
    shout("edith")
    page = opened(visit, "edith")
    ask(page, "Use shout on hello", "HELLO")
    write(page, TITLE)
    expect(page.locator("#file-kind")).to_have_text("yours, unsaved")
    page.keyboard.press("Control+s")
    expect(page.locator("#status")).to_contain_text("Live: generation")
    expect(page.locator("#status")).to_contain_text("Tools changed: shout")
    ask(page, "Use shout on hello", "Hello")
    assert text_of(lab, "edith") == TITLE


def test_an_error_is_at_its_line_and_the_old_code_answers(visit: Visit, shout: Callable[[str], None]) -> None:
    shout("erna")
    page = opened(visit, "erna")
    write(page, BROKEN)
    page.get_by_role("button", name="Save and reload").click()
    expect(page.locator("#status")).to_contain_text("continues to answer")
    expect(page.locator(".cm-line", has=page.locator(".cm-lintRange-error"))).to_have_text(
        "    return text text.upper() * times"
    )
    place = page.get_by_role("list", name="Errors of the code").get_by_role("button")
    expect(place).to_have_text(f"tools/shout.py:{BROKEN_LINE}")
    ask(page, "Use shout on hello", "HELLO")
    page.get_by_role("button", name="calculator.py").click()
    expect(page.locator("#file-name")).to_have_text("tools/calculator.py")
    place.click()
    expect(page.locator("#file-name")).to_have_text("tools/shout.py")
    expect(page.locator(".cm-activeLine")).to_have_text("    return text text.upper() * times")
    write(page, SHOUT)
    page.keyboard.press("Control+s")
    expect(page.locator("#status")).to_contain_text("Live: generation")
    expect(page.locator(".cm-lintRange-error")).to_have_count(0)


@pytest.mark.parametrize(("choice", "left"), [("Save my text", TITLE), ("Take their text", SHOUT + "# theirs\n")])
def test_nobody_overwrites_silently(
    visit: Visit, lab: Server, shout: Callable[[str], None], choice: str, left: str
) -> None:
    workspace = f"pair-{choice[:4].lower()}"
    shout(workspace)
    mine, theirs = opened(visit, workspace), opened(visit, workspace)
    write(theirs, SHOUT + "# theirs\n")
    theirs.keyboard.press("Control+s")
    expect(theirs.locator("#status")).to_contain_text("Live: generation")
    write(mine, TITLE)
    mine.keyboard.press("Control+s")
    expect(mine.get_by_role("alert")).to_contain_text("saved by somebody else")
    expect(mine.locator(".cm-deletedChunk").last).to_contain_text("# theirs")
    mine.keyboard.press("Control+s")
    expect(mine.locator("#status")).to_contain_text("choose a text first")
    assert text_of(lab, workspace) == SHOUT + "# theirs\n"
    mine.get_by_role("button", name=choice).click()
    expect(mine.get_by_role("alert")).to_have_count(0)
    mine.get_by_label("Text of tools/").click()
    mine.keyboard.press("Control+s")
    expect(mine.locator("#status")).to_contain_text("Live: generation")
    assert text_of(lab, workspace) == left


def test_compare_and_roll_back(visit: Visit, shout: Callable[[str], None]) -> None:
    shout("rosa")
    page = opened(visit, "rosa")
    write(page, TITLE)
    page.keyboard.press("Control+s")
    expect(page.locator("#status")).to_contain_text("Live: generation")
    page.get_by_label("Compare with").select_option(index=3)
    expect(page.locator(".cm-deletedChunk")).to_contain_text("text.upper()")
    page.get_by_label("Compare with").select_option(label="main")
    expect(page.locator(".cm-changedLine")).to_have_count(len(TITLE.splitlines()))
    page.locator("#generations-card > summary").click()
    page.get_by_role("button", name="Difference from").click()
    expect(page.locator("dialog .added")).to_contain_text("text.title()")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Roll back to").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.locator("#status")).to_contain_text("Rolled back")
    ask(page, "Use shout on hello", "HELLO")
    page.locator(".generation").first.locator("summary").click()
    expect(page.locator(".generation").first.get_by_role("link", name="Use shout on hello")).to_be_visible()


def test_a_tool_is_tried_with_a_value_and_with_a_recorded_one(visit: Visit, shout: Callable[[str], None]) -> None:
    shout("toni")
    page = opened(visit, "toni")
    tool = page.locator(".tool").first  # the one of the open file
    expect(tool.locator("summary").first).to_contain_text("shout")
    tool.get_by_role("textbox", name="text", exact=True).fill("hi")
    tool.get_by_label("times (optional)").fill("2")
    tool.get_by_role("button", name="Try").click()
    expect(tool.locator("pre.block")).to_have_text("HIHI")
    tool.get_by_label("times (optional)").fill('"many"')
    tool.get_by_role("button", name="Try").click()
    expect(tool.locator(".bad").last).to_contain_text("times: Input should be a valid integer")
    ask(page, "Use shout on hello", "HELLO")
    expect(tool.locator("summary").first).to_contain_text("1 call")
    recorded = tool.get_by_label("Input of a recorded call")
    recorded.focus()
    expect(recorded.locator("option")).to_have_count(2)
    recorded.select_option(index=1)
    expect(tool.get_by_role("textbox", name="text", exact=True)).to_have_value("hello")
    tool.get_by_role("button", name="Try").click()
    expect(tool.locator("pre.block")).to_have_text("HELLO")


def test_a_new_workspace_by_the_keyboard_alone(visit: Visit, lab: Server) -> None:
    page = visit("/ui/code")
    expect(page.locator("#main-note")).to_be_visible()
    expect(page.get_by_role("button", name="Reload")).to_be_enabled()
    press_to(page, "#start-workspace input")
    page.keyboard.type("keya")
    page.keyboard.press("Enter")
    expect(page.locator("#main-note")).to_be_hidden()
    press_to(page, "#new-file input")
    page.keyboard.type("whisper")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Text of tools/whisper.py")).to_be_focused()
    page.keyboard.press("Control+End")
    page.keyboard.type("# done")
    page.keyboard.press("Control+s")
    expect(page.locator("#status")).to_contain_text("Live: generation")
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Text of tools/whisper.py")).not_to_be_focused()
    assert lab.session.get("/workspaces/keya/files/tools/whisper.py").text.endswith("# done")


def press_to(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(60):
        if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {selector}")


def test_a_file_of_main_is_copied_at_the_first_save_and_can_go_back(visit: Visit, lab: Server) -> None:
    lab.session.put("/workspaces/mina/files/tools/words.csv", data=b"a,b\r\n")
    page = visit("/ui/code?workspace=mina&file=tools/weekday.py")
    expect(page.locator("#file-kind")).to_have_text("from main")
    page.get_by_label("Text of tools/").click()
    page.keyboard.press("Control+End")
    page.keyboard.type("# mine")
    page.keyboard.press("Control+s")
    expect(page.locator("#file-kind")).to_have_text("changed")
    path = "/workspaces/mina/files/tools/weekday.py"
    assert lab.session.get(path).text.endswith("# mine")
    page.get_by_role("button", name="Back to main's").click()
    page.get_by_role("button", name="Drop it").click()
    expect(page.locator("#file-kind")).to_have_text("from main")
    assert lab.session.get(path).status_code == 404
    page.get_by_role("button", name="words.csv").click()
    page.get_by_label("Text of tools/words.csv").click()
    page.keyboard.press("Control+End")
    page.keyboard.type("c")
    expect(page.locator("#file-kind")).to_have_text("yours, unsaved")
    page.keyboard.press("Control+s")
    expect(page.locator("#file-kind")).to_have_text("yours")
    assert lab.session.get("/workspaces/mina/files/tools/words.csv").content == b"a,b\r\nc"


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(
    visit: Visit, fits: Callable[[Page], bool], shout: Callable[[str], None], dark: bool
) -> None:
    shout("fay")
    page = opened(visit, "fay", width=360, dark=dark)
    expect(page.locator(".tool").first).to_be_visible()
    page.locator("#generations-card > summary").click()
    page.locator("#files > summary").click()
    assert fits(page)
