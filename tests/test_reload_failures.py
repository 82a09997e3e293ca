"""Every way in which new code can be broken: told with its place, and the old code goes on answering."""

import sys
import threading
import time
from types import ModuleType

import pytest

from server.runs.abandoned import abandoned_tools
from tests.reload_code import Code, code, private_modules, tool_file

__all__ = ["code"]  # a fixture


def load_then_break(code: Code, path: str, text: str | bytes) -> dict[str, object]:
    """Break a file of loaded code; gives the one error. The old code must go on answering."""
    code.reload()
    code.write(path, text)
    (error,) = code.refused()
    assert code.ask() == "1"
    code.write("tools/calculator.py", tool_file(2))
    if path != "tools/calculator.py":
        (code.root / path).unlink()
    code.reload()
    assert code.ask() == "2"
    return dict(error)


def test_a_syntax_error_names_its_file_and_line(code: Code) -> None:
    error = load_then_break(code, "tools/calculator.py", "a = 1\ndef f(:\n    pass\n")
    assert (error["file"], error["line"], error["type"]) == ("server/tools/calculator.py", 2, "SyntaxError")
    assert error["message"] == "invalid syntax"
    assert 'File "server/tools/calculator.py", line 2\n    def f(:\n' in str(error["traceback"])


def test_a_syntax_error_that_the_compiler_finds_late_shows_its_line_too(code: Code) -> None:
    error = load_then_break(code, "tools/extra.py", "a = 1\nreturn a\n")
    assert (error["line"], error["message"]) == (2, "'return' outside function")
    assert "return a" in str(error["traceback"])


def test_all_files_with_syntax_errors_are_told_and_none_runs(code: Code) -> None:
    code.reload()
    code.write("agent/__init__.py", "import sys\nsys.ran_too_early = True\n")
    code.write("tools/calculator.py", "def f(:\n")
    code.write("tools/sub/deep.py", "x = = 1\n")
    code.write("model.py", "import\n")
    errors = code.refused()
    assert [error["file"] for error in errors] == [
        "server/model.py",
        "server/tools/calculator.py",
        "server/tools/sub/deep.py",
    ]
    assert not hasattr(sys, "ran_too_early")
    assert code.ask() == "1"


@pytest.mark.parametrize(
    "data",
    [
        b"name = '\xc3",  # the first half of a letter
        b"# \xc3\n",
        b"x = 1\0\n",
        b"# -*- coding: no-such-coding -*-\n",
        b"# -*- coding: ascii -*-\nname = '\xc3\xa9'\n",
        b"x = " + b"(" * 5000,
        b"x = " + b"-" * 100_000 + b"1",
    ],
)
def test_bytes_that_are_no_python_are_an_error_that_names_the_file(code: Code, data: bytes) -> None:
    error = load_then_break(code, "tools/extra.py", data)
    assert error["file"] == "server/tools/extra.py"
    assert error["type"] in ("SyntaxError", "MemoryError", "RecursionError")


def test_an_exception_half_way_leaves_nothing_of_the_module(code: Code) -> None:
    text = tool_file(3) + "\ndef fail():\n    return 1 / 0\n\nfail()\n"
    error = load_then_break(code, "tools/calculator.py", text)
    assert (error["file"], error["line"]) == ("server/tools/calculator.py", 10)
    assert (error["type"], error["message"]) == ("ZeroDivisionError", "division by zero")
    lines = str(error["traceback"]).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == '  File "server/tools/calculator.py", line 12, in <module>'
    assert lines[2] == "    fail()"
    assert '  File "server/tools/calculator.py", line 10, in fail' in lines
    assert sum(line.startswith("  File ") for line in lines) == 2


def test_an_error_three_imports_deep_is_told_where_it_is(code: Code) -> None:
    code.write("tools/a.py", "from server.tools import b\n")
    code.write("tools/b.py", "from . import c\n")
    code.write("tools/c.py", "VALUE = 1\n")
    code.reload()
    code.write("tools/c.py", "\nVALUE = missing\n")
    (error,) = code.refused()
    assert (error["file"], error["line"], error["type"]) == ("server/tools/c.py", 2, "NameError")
    assert [line for line in error["traceback"].splitlines() if "File" in line] == [
        '  File "server/tools/a.py", line 1, in <module>',
        '  File "server/tools/b.py", line 1, in <module>',
        '  File "server/tools/c.py", line 2, in <module>',
    ]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("import no_such_package_here", "ModuleNotFoundError", "No module named 'no_such_package_here'"),
        ("from server.tools import gone", "ImportError", "cannot import name 'gone' from 'server.tools'"),
        ("import server.tools.gone", "ModuleNotFoundError", "No module named 'server.tools.gone'"),
        ("from ..tools.gone import x", "ModuleNotFoundError", "No module named 'server.tools.gone'"),
        ("from server.errors import Gone", "ImportError", "cannot import name 'Gone' from 'server.errors'"),
        ("from .... import x", "ImportError", "attempted relative import beyond top-level package"),
        ("import sys; sys.exit(3)", "SystemExit", "3"),
        ("raise SystemExit", "SystemExit", "SystemExit"),
        ("raise KeyboardInterrupt('stop')", "KeyboardInterrupt", "stop"),
        ("class Own(BaseException): pass\nraise Own('mine')", "Own", "mine"),
        ("def f(): f()\nf()", "RecursionError", "maximum recursion depth exceeded"),
        ("import sys\nx = bytearray(sys.maxsize)", "MemoryError", "MemoryError"),
        ("raise GeneratorExit", "GeneratorExit", "GeneratorExit"),
        ("assert False, 'never'", "AssertionError", "never"),
    ],
)
def test_whatever_a_module_raises_is_told(code: Code, text: str, kind: str, message: str) -> None:
    error = load_then_break(code, "tools/extra.py", text)
    assert (error["file"], error["type"]) == ("server/tools/extra.py", kind)
    assert str(error["message"]).startswith(message)
    assert isinstance(error["line"], int)
    assert len(str(error["traceback"])) < 30_000


def test_the_first_load_of_all_may_be_broken(code: Code) -> None:
    code.write("tools/calculator.py", "1 / 0")
    code.refused()
    assert code.workspace.live is None
    code.write("tools/calculator.py", tool_file(2))
    code.reload()
    assert code.ask() == "2"


def test_a_module_that_is_gone_but_still_imported_is_an_error(code: Code) -> None:
    code.write("tools/rates.py", "RATE = 3")
    code.write("tools/extra.py", "from server.tools.rates import RATE")
    code.reload()
    (code.root / "tools/rates.py").unlink()
    (error,) = code.refused()
    assert (error["file"], error["line"]) == ("server/tools/extra.py", 1)
    assert error["message"] == "No module named 'server.tools.rates'"


def test_a_circle_of_imports_that_does_not_work_is_an_error(code: Code) -> None:
    code.reload()
    code.write("tools/a.py", "from server.tools.b import B\nA = 1\n")
    code.write("tools/b.py", "from server.tools.a import A\nB = 1\n")
    (error,) = code.refused()
    assert (error["file"], error["type"]) == ("server/tools/b.py", "ImportError")
    assert "circular import" in error["message"]


def test_what_a_failed_load_hooked_into_the_import_system_is_taken_out(code: Code) -> None:
    text = """
        import sys
        class Finder:
            def find_spec(self, *_): return None
        sys.meta_path.append(Finder())
        1 / 0
    """
    load_then_break(code, "tools/extra.py", text)


@pytest.mark.parametrize(
    ("path", "text", "file", "message"),
    [
        ("model.py", "x = 1", "server/model.py", "server.model must define load_model"),
        ("model.py", "load_model = 3", "server/model.py", "server.model must define load_model"),
        ("agent/__init__.py", "", "server/agent/__init__.py", "server.agent must define CustomAgentGuidance"),
        ("tools/__init__.py", "", "server/tools/__init__.py", "server.tools must define load_tools"),
        (
            "agent/__init__.py",
            "CustomAgentGuidance = print\ndef load_agents(): return ['react']",
            "server/agent/__init__.py",
            "server.agent.load_agents must give a dict of agents by their names, and gives ['react']",
        ),
    ],
)
def test_the_entry_points_must_be_there(code: Code, path: str, text: str, file: str, message: str) -> None:
    code.reload()
    code.write(path, text)
    (error,) = code.refused()
    assert (error["file"], error["message"]) == (file, message)
    assert code.ask() == "1"


def test_a_folder_without_code_is_told_part_by_part(code: Code) -> None:
    code.reload()
    for file in code.root.rglob("*.py"):
        file.unlink()
    assert [error["message"].split(",")[0] for error in code.refused()] == [
        "server.model must define load_model",
        "server.tools must define load_tools",
        "server.agent must define CustomAgentGuidance",
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return {}", "load_tools found no tools"),
        ("return [1]", "load_tools must give a dict of tools, not list"),
        ("return None", "load_tools must give a dict of tools, not NoneType"),
        ("return {'a': print}", "'a' must be a LangChain tool"),
        ("return {'other': made()}", "gives the tool 'fine' under another name, 'other'"),
        ("return {'not so fine': made(name='not so fine')}", "a tool's name takes only letters"),
        ("return {'fine': made(description=' ')}", "'fine' needs a description"),
        ("return {'fine': made(args_schema={'type': 'string'})}", "must be an object"),
        ("return {'fine': made(args_schema=Odd)}", "no JSON schema can be made of the arguments of 'fine'"),
    ],
)
def test_tools_are_checked(code: Code, body: str, message: str) -> None:
    text = f"""
        import collections.abc
        from langchain_core.tools import StructuredTool
        from pydantic import BaseModel

        class Odd(BaseModel):
            call: collections.abc.Callable

        def work(x: int = 0) -> str:
            return "1"

        def made(name="fine", description="Works.", args_schema=None):
            tool = StructuredTool.from_function(work, name=name, description="?", args_schema=args_schema)
            return tool.model_copy(update={{"description": description}})

        def load_tools(llm):
            {body}
    """
    code.reload()
    code.write("tools/__init__.py", text)
    (error,) = code.refused()
    assert error["file"] == "server/tools/__init__.py"
    assert isinstance(error["line"], int)
    assert message in error["message"]
    assert code.ask() == "1"


def test_no_tools_left_is_refused(code: Code) -> None:
    code.reload()
    (code.root / "tools/calculator.py").unlink()
    (error,) = code.refused()
    assert "no tools" in error["message"]
    assert code.ask() == "1"


def test_two_tools_of_one_name_are_refused(code: Code) -> None:
    error = load_then_break(code, "tools/twin.py", tool_file(5))
    assert (error["file"], error["type"]) == ("server/tools/__init__.py", "ValueError")
    assert error["message"] == "two tools are named calculator"


def test_an_exit_while_tools_are_built_is_refused(code: Code) -> None:
    error = load_then_break(code, "tools/extra.py", "def build_tool(llm):\n    raise SystemExit(4)\n")
    assert (error["file"], error["line"], error["type"]) == ("server/tools/extra.py", 2, "SystemExit")


def loaders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hearth-loader"]


def abandoned() -> list[str]:
    return [one.tool for one in abandoned_tools()]


def wait_until_no_loader_runs() -> None:
    limit = time.monotonic() + 10
    while loaders():
        assert time.monotonic() < limit
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\nwhile True:\n    x += 1\n", (2, 3)),
        ("def f():\n    while True:\n        pass\n\ndef build_tool(llm):\n    f()\n", (2, 3)),
    ],
    ids=["at import", "while tools are built"],
)
def test_an_endless_loop_is_given_up_and_ended(code: Code, text: str, line: tuple[int, ...]) -> None:
    code.workspace.deadline_seconds = 20
    code.reload()
    code.workspace.deadline_seconds = 0.2
    code.write("tools/extra.py", text)
    (error,) = code.refused()
    assert (error["file"], error["type"]) == ("server/tools/extra.py", "TimeoutError")
    assert error["line"] in line
    assert "did not finish within 0.2 seconds" in error["message"]
    frames = [row for row in error["traceback"].splitlines() if row.startswith("  File")]
    assert frames and all('"server/tools/' in row for row in frames)
    wait_until_no_loader_runs()
    assert code.ask() == "1"
    code.workspace.deadline_seconds = 20
    code.write("tools/extra.py", "")
    code.write("tools/calculator.py", tool_file(2))
    code.reload()
    assert code.ask() == "2"


def test_an_import_that_blocks_is_given_up_and_its_late_end_changes_nothing(
    code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = ModuleType("gate_of_the_test")
    vars(gate).update(opened=threading.Event(), passed=threading.Event())
    monkeypatch.setitem(sys.modules, "gate_of_the_test", gate)
    code.reload()
    before = private_modules()
    code.workspace.deadline_seconds = 0.2
    blocking = """
        import threading
        import gate_of_the_test as gate
        try:
            gate.opened.wait()
        except BaseException:
            pass
        gate.passed.set()
    """
    code.write("tools/extra.py", blocking)
    (error,) = code.refused()
    assert (error["file"], error["line"]) == ("server/tools/extra.py", 5)
    assert "gate.opened.wait()" in error["traceback"]
    assert "loading server/tools/extra.py, line 5" in abandoned()

    code.workspace.deadline_seconds = 20
    code.write("tools/extra.py", "")
    code.write("tools/calculator.py", tool_file(2))
    code.reload()
    assert code.ask() == "2"
    assert len(loaders()) == 1

    after = private_modules()
    gate.opened.set()
    assert gate.passed.wait(10)
    wait_until_no_loader_runs()
    assert "loading server/tools/extra.py, line 5" not in abandoned()
    assert private_modules() == after != before
    assert code.ask() == "2"


def test_tools_of_live_code_may_fail_to_build_and_be_built_later(code: Code) -> None:
    text = "import os\n" + tool_file(7, "extra") + "\ndef build_tool(llm):\n    return llm.tool\n"
    code.write("tools/extra.py", text)
    code.workspace.reload(None)
    (error,) = code.refused()
    assert (error["file"], error["type"]) == ("server/tools/extra.py", "AttributeError")
    live = code.workspace.live
    assert live is not None and live.tools is None
    code.write("tools/extra.py", tool_file(7, "extra"))
    code.reload()
    assert code.ask("extra") == "7"
