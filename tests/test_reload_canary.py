"""Code that would take the server down, tried in a process of its own first."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.reload import Workspace
from tests.reload_code import Code, code

__all__ = ["code"]  # a fixture


@pytest.fixture
def careful(code: Code) -> Iterator[Code]:
    """Code whose workspace has a canary."""
    code.workspace = Workspace("main", code.root, code.store, 20, canary=True)
    code.reload()
    yield code


@pytest.mark.parametrize(
    ("statement", "told", "line"),
    [
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV", 2),
        ("import os; os._exit(0)", "exit code 0", None),
    ],
)
def test_code_that_ends_its_process(careful: Code, statement: str, told: str, line: int | None) -> None:
    careful.write("tools/deadly.py", f"print('before')\n{statement}\n")
    [error] = careful.refused()
    assert (error["type"], error["line"]) == ("CrashError", line)
    assert told in error["message"]
    assert error["file"] == (None if line is None else "server/tools/deadly.py")
    assert careful.ask() == "1"


def test_other_errors_are_told_as_without_it(careful: Code) -> None:
    careful.write("tools/calculator.py", "x = 1\n1 / 0\n")
    careful.write("tools/other.py", "x = 1")
    [error] = careful.refused()
    assert (error["type"], error["file"], error["line"]) == ("ZeroDivisionError", "server/tools/calculator.py", 2)
    careful.write("tools/calculator.py", "broken(")
    careful.write("tools/other.py", "broken(")
    assert [error["type"] for error in careful.refused()] == ["SyntaxError", "SyntaxError"]


def test_what_the_code_prints_and_keeps_is_no_matter(careful: Code, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
        import os
        from server.keep import keep
        VALUE = keep("x", dict)
        print("[]")
        os.write(1, b"not the verdict")
        WHERE = os.getpid()
    """
    careful.write("tools/talks.py", text)
    careful.reload()
    assert os.getpid() == careful.module("tools.talks").WHERE
    assert "not the verdict" in capsys.readouterr().err


def test_code_may_start_a_process_that_lasts(careful: Code, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    text = f"""
        import subprocess
        LASTING = subprocess.Popen(["sleep", "300"])
        with open({str(mark)!r}, "a") as file:
            print(LASTING.pid, file=file)
    """
    careful.write("tools/starts.py", text)
    try:
        careful.reload()
        lasting = careful.module("tools.starts").LASTING
        assert len(mark.read_text().split()) == 2 and lasting.poll() is None
    finally:
        for process in mark.read_text().split():
            os.kill(int(process), signal.SIGKILL)
    lasting.wait()


def test_the_same_code_is_not_tried_again(careful: Code, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    careful.write("tools/marks.py", f"with open({str(mark)!r}, 'a') as file: file.write('x')")
    careful.reload()
    assert mark.read_text() == "xx", "once in the other process, once here"
    careful.reload()
    assert mark.read_text() == "xx"
