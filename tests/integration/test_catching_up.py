"""Noticing changed code: before each question, or when a file is saved. Both reload as any reload does."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from server.errors import ReloadFailedError, RunCancelledError
from server.reload import Snapshot
from server.reload import snapshot as snapshots
from tests.support.reload_code import Code, code, tool_file, wait_until
from tests.support.server_process import Server

__all__ = ["code"]  # a fixture


def settle(code: Code) -> None:
    """Wait until the files are old enough for their stamp to be trusted, and let it be seen."""
    wait_until(lambda: snapshots.read_stamp(code.root).settled, "files that have settled")
    code.workspace.catch_up(build=True)


def test_a_change_is_loaded_and_reported(code: Code) -> None:
    assert code.workspace.catch_up(build=True) is not None
    assert code.workspace.catch_up(build=True) is None
    code.write("tools/calculator.py", tool_file(2))
    report = code.workspace.catch_up(build=True)
    assert report is not None and report.changed == ["tools.calculator"]
    assert code.ask() == "2"


def test_unchanged_files_are_not_read(code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    code.reload()
    settle(code)
    reads: list[Path] = []
    read = snapshots._read

    def counted(path: Path) -> bytes:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(snapshots, "_read", counted)
    assert code.workspace.catch_up(build=True) is None
    assert reads == []
    os.utime(code.root / "tools/calculator.py")
    assert code.workspace.catch_up(build=True) is None
    assert reads != [], "touched, so it was read, and found to be the same"


def test_edits_that_the_clock_hides(code: Code) -> None:
    place = code.root / "tools/calculator.py"
    code.reload()
    settle(code)
    state = place.stat()
    for number in (2, 3, 4):
        # Of the same size, within the same moment, with the time of the last change set back.
        place.write_text(tool_file(number))
        os.utime(place, ns=(state.st_atime_ns, state.st_mtime_ns))
        code.workspace.catch_up(build=True)
        assert code.ask() == str(number)


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "replaced", "package"])
def test_every_kind_of_change(code: Code, change: str) -> None:
    other = code.write("tools/other.py", tool_file("other", "other"))
    code.reload()
    settle(code)
    if change == "added":
        code.write("tools/more.py", tool_file("more", "more"))
    elif change == "removed":
        other.unlink()
    elif change == "renamed":
        other.rename(other.with_name("others.py"))
    elif change == "replaced":
        code.write("tools/other.py", tool_file("again", "other"))
    else:
        (other.parent / "other").mkdir()
        other.rename(other.parent / "other" / "__init__.py")
    before = code.workspace.live
    report = code.workspace.catch_up(build=True)
    assert report is not None and code.workspace.live is not before
    assert code.workspace.catch_up(build=True) is None


def test_broken_files_are_refused_in_the_same_words_until_they_change(code: Code) -> None:
    code.reload()
    code.write("tools/calculator.py", "broken(")
    with pytest.raises(ReloadFailedError) as first:
        code.workspace.catch_up(build=True)
    wait_until(lambda: snapshots.read_stamp(code.root).settled, "files that have settled")
    with pytest.raises(ReloadFailedError) as second:
        code.workspace.catch_up(build=True)
    assert second.value.message == first.value.message
    assert code.ask() == "1"
    code.write("tools/calculator.py", tool_file(2))
    code.workspace.catch_up(build=True)
    assert code.ask() == "2"


def test_broken_files_are_loaded_once_also_where_nothing_is_live(code: Code, tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    count = f"with open({str(loads)!r}, 'a') as file: file.write('x')\n"
    code.write("tools/calculator.py", count + "1 / 0")
    messages = set()
    for _ in range(3):
        with pytest.raises(ReloadFailedError, match="ZeroDivisionError") as refusal:
            code.workspace.catch_up(build=True)
        messages.add(refusal.value.message)
        assert code.workspace.live is None
    assert len(messages) == 1 and loads.read_text() == "x"
    with pytest.raises(ReloadFailedError):
        code.reload()
    assert loads.read_text() == "xx", "an explicit reload loads them again"
    code.write("tools/calculator.py", count + tool_file(2))
    assert code.workspace.catch_up(build=True) is not None
    assert code.workspace.catch_up(build=True) is None
    assert code.ask() == "2" and loads.read_text() == "xxx"


def test_a_caller_that_waits_for_somebodys_reload_may_stop(code: Code, tmp_path: Path) -> None:
    loading, may_end = tmp_path / "loading", tmp_path / "may_end"
    first = code.reload(build=False).generation
    wait = f"""
        import os, time
        open({str(loading)!r}, "w").close()
        while not os.path.exists({str(may_end)!r}):
            time.sleep(0.01)
    """
    code.write("tools/waits.py", wait)
    code.write("tools/calculator.py", tool_file(2))

    def check() -> None:
        raise RunCancelledError("Stopped.")

    with ThreadPoolExecutor(1) as pool:
        reload = pool.submit(code.reload)
        try:
            wait_until(loading.exists, "the import")
            for call in (
                lambda: code.workspace.catch_up(True, check),
                lambda: code.workspace.build_tools(check),
                lambda: code.workspace.pin_earlier(first, check).__enter__(),
            ):
                with pytest.raises(RunCancelledError):
                    call()
            assert not reload.done()
        finally:
            may_end.touch()
        assert reload.result().previous == first
    assert code.workspace.catch_up(True, check) is None
    assert code.ask() == "2"


def test_what_was_brought_back_stays_until_the_files_change(code: Code) -> None:
    first = code.reload().generation
    code.write("tools/calculator.py", tool_file(2))
    code.workspace.catch_up(build=True)
    code.reload(snapshot=Snapshot(code.store.files(first)))
    assert code.workspace.catch_up(build=True) is None
    assert code.ask() == "1"
    code.write("tools/calculator.py", tool_file(3))
    code.workspace.catch_up(build=True)
    assert code.ask() == "3"


def test_a_dry_run_hides_nothing(code: Code) -> None:
    code.reload()
    code.write("tools/calculator.py", tool_file(2))
    code.reload(dry_run=True)
    assert code.workspace.catch_up(build=True) is not None
    assert code.ask() == "2"


# A real server

CALCULATOR = '''
from langchain_core.tools import tool


@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression, like `2 * (3 + 4)` or `sqrt(2)`."""
    return "{answer}"
'''


def ask(server: Server, workspace: str = "main") -> dict[str, Any]:
    answer = server.session.post("/run_script", json={"question": "What is 37 * 52?", "workspace": workspace})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_on_request_the_next_question_has_the_new_code(start_server: Callable[..., Server], code_copy: Path) -> None:
    server = start_server(code=code_copy, RELOAD="on_request")
    place = code_copy / "server" / "tools" / "calculator.py"
    before = place.read_text()
    assert ask(server)["answer"] == "1924"
    for answer in ("one", "two"):
        place.write_text(CALCULATOR.format(answer=answer))
        assert ask(server)["answer"] == answer
    place.write_text("broken(")
    stale = ask(server)
    assert stale["answer"] == "two"
    assert stale["not_reloaded"]["errors"][0]["file"] == "server/tools/calculator.py"
    assert "not_reloaded" in ask(server)
    place.write_text(before)
    mended = ask(server)
    assert mended["answer"] == "1924" and "not_reloaded" not in mended

    own = "/workspaces/alice/files/tools/calculator.py"
    for answer in ("hers", "hers anew"):
        server.session.put(own, data=CALCULATOR.format(answer=answer).encode())
        assert ask(server, "alice")["answer"] == answer
    assert ask(server)["answer"] == "1924"


def test_code_that_is_saved_is_live_without_a_question(start_server: Callable[..., Server], code_copy: Path) -> None:
    server = start_server(code=code_copy, RELOAD="watch")
    place = code_copy / "server" / "tools" / "calculator.py"
    before = place.read_text()

    def live(workspace: str = "main") -> Any:
        return server.session.get("/generations", params={"workspace": workspace}).json()["live"]

    def history() -> Any:
        return server.session.get("/generations").json()["generations"]

    first = live()
    # Many saves in a row are few reloads, and the last bytes win.
    for number in range(50):
        place.write_text(CALCULATOR.format(answer=number))
    server.wait_until(lambda: ask(server)["answer"] == "49", "the last bytes")
    taken = len(history())
    assert 2 <= taken < 25
    place.write_text("broken(")
    server.wait_until(lambda: "main: The code could not be loaded" in server.output, "the refusal in the log")
    place.write_text(before)
    server.wait_until(lambda: live() == first, "the first code again")

    # A workspace follows main, and its own files.
    server.session.put("/workspaces/alice/files/tools/calculator.py", data=CALCULATOR.format(answer="hers").encode())
    assert ask(server, "alice")["answer"] == "hers"
    hers = live("alice")
    (code_copy / "server" / "tools" / "more.py").write_text("MORE = 1\n")
    server.wait_until(lambda: live("alice") != hers, "the change of main in the workspace")
