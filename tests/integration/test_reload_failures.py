"""Every way in which new code can be broken: the answer names its place, and the old code continues to answer."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.workers.failure import ErrorReport
from server.workers.pool import Workers
from tests.support.reload_code import Code, code, tool_file

__all__ = ["code"]  # a fixture


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, workers: Workers) -> Iterator[Code]:
    """Code that is live. Shared: each test leaves the files as they were."""
    made = Code(tmp_path_factory.mktemp("live") / "server", workers)
    made.reload()
    yield made
    made.close()


def broken(live: Code, path: str, text: str | bytes) -> ErrorReport:
    """Break a file of live code; gives the one error. The old code must continue to answer."""
    file = live.root / path
    before = file.read_bytes() if file.exists() else None
    live.write(path, text)
    try:
        (error,) = live.refused()
        assert live.ask() == "1"
    finally:
        file.unlink() if before is None else live.write(path, before)
    return error


def test_a_syntax_error_names_its_file_and_line(live: Code) -> None:
    error = broken(live, "tools/calculator.py", "a = 1\ndef f(:\n    pass\n")
    assert (error["file"], error["line"], error["type"]) == ("server/tools/calculator.py", 2, "SyntaxError")
    assert error["message"] == "invalid syntax"
    assert 'File "server/tools/calculator.py", line 2\n    def f(:\n' in str(error["traceback"])


def test_a_syntax_error_that_the_compiler_finds_late_shows_its_line_too(live: Code) -> None:
    error = broken(live, "tools/extra.py", "a = 1\nreturn a\n")
    assert (error["line"], error["message"]) == (2, "'return' outside function")
    assert "return a" in str(error["traceback"])


def test_all_files_with_syntax_errors_are_reported_and_none_runs(code: Code, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code.reload()
    code.write("agent/__init__.py", f"open({str(mark)!r}, 'w')\n")
    code.write("tools/calculator.py", "def f(:\n")
    code.write("tools/sub/deep.py", "x = = 1\n")
    code.write("model.py", "import\n")
    errors = code.refused()
    assert [error["file"] for error in errors] == [
        "server/model.py",
        "server/tools/calculator.py",
        "server/tools/sub/deep.py",
    ]
    assert not mark.exists()
    assert code.ask() == "1"


@pytest.mark.parametrize(
    "data",
    [
        b"name = '\xc3",  # the first half of a letter
        b"x = 1\0\n",
        b"# -*- coding: no-such-coding -*-\n",
        b"# -*- coding: ascii -*-\nname = '\xc3\xa9'\n",
        b"x = " + b"(" * 5000,
        b"x = " + b"-" * 100_000 + b"1",
    ],
)
def test_bytes_that_are_no_python_are_an_error_that_names_the_file(live: Code, data: bytes) -> None:
    error = broken(live, "tools/extra.py", data)
    assert error["file"] == "server/tools/extra.py"
    assert error["type"] in ("SyntaxError", "MemoryError", "RecursionError")


def test_half_of_the_byte_code_is_compiled_anew(code: Code) -> None:
    code.reload()
    assert code.workspace.live is not None
    first = code.workspace.live.folder
    for cached in first.rglob("*.pyc"):
        cached.write_bytes(cached.read_bytes()[:40])
    code.write("tools/other.py", tool_file(2, "other"))
    code.reload()  # with the byte-code of the files that have not changed
    assert code.ask() == "1"


def test_an_exception_half_way_leaves_nothing_of_the_module(live: Code) -> None:
    text = tool_file(3) + "\ndef fail():\n    return 1 / 0\n\nfail()\n"
    error = broken(live, "tools/calculator.py", text)
    assert (error["file"], error["line"]) == ("server/tools/calculator.py", 10)
    assert (error["type"], error["message"]) == ("ZeroDivisionError", "division by zero")
    lines = str(error["traceback"]).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == '  File "server/tools/calculator.py", line 12, in <module>'
    assert lines[2] == "    fail()"
    assert '  File "server/tools/calculator.py", line 10, in fail' in lines
    assert sum(line.startswith("  File ") for line in lines) == 2


def test_an_error_three_imports_deep_is_reported_where_it_is(code: Code) -> None:
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
def test_whatever_a_module_raises_is_reported(live: Code, text: str, kind: str, message: str) -> None:
    error = broken(live, "tools/extra.py", text)
    assert (error["file"], error["type"]) == ("server/tools/extra.py", kind)
    assert str(error["message"]).startswith(message)
    assert isinstance(error["line"], int)
    assert len(str(error["traceback"])) < 30_000


@pytest.mark.parametrize("text", ["def f(:", "1 / 0", "import os; os._exit(3)"])
def test_code_is_mended_after_a_refusal(code: Code, text: str) -> None:
    code.reload()
    code.write("tools/calculator.py", text)
    code.refused()
    assert code.ask() == "1"
    code.write("tools/calculator.py", tool_file(2))
    code.reload()
    assert code.ask() == "2"


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


def test_an_import_of_a_renamed_name_says_the_new_one(live: Code) -> None:
    error = broken(live, "tools/extra.py", "from server.sdk import likelihood\n")
    assert (error["file"], error["line"], error["type"]) == ("server/tools/extra.py", 1, "ImportError")
    assert error["message"] == "server.sdk.likelihood is called server.sdk.logprobs now."


@pytest.mark.parametrize(
    ("statement", "hint"),
    [
        ("from server.keep import keep", "keep is in server.sdk now: from server.sdk import keep."),
        (
            "from server.engine import usage",
            "usage, logprobs (likelihood before), Prepared and ResidentChatModel are in server.sdk now",
        ),
        (
            "from server.engine.usage import measured",
            "usage, logprobs (likelihood before), Prepared and ResidentChatModel are in",
        ),
        ("from server.runs.step import tell_step", "tell_step, tell_plan, call_tool and ToolFailedError are in"),
        ("import server.tool_schema", "arguments_schema is in server.sdk now"),
        ("from server.host import Host", "Tools and agents import server.sdk alone."),
        ("from server import store", "Tools and agents import server.sdk alone."),
    ],
)
def test_an_import_of_the_servers_own_says_where_the_name_is_now(live: Code, statement: str, hint: str) -> None:
    error = broken(live, "tools/extra.py", f"\n{statement}\n")
    assert (error["file"], error["line"], error["type"]) == ("server/tools/extra.py", 2, "ImportError")
    assert "is the server's own, and can't be imported in a worker" in error["message"]
    assert hint in error["message"]


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
def test_the_entry_points_must_be_there(live: Code, path: str, text: str, file: str, message: str) -> None:
    error = broken(live, path, text)
    assert (error["file"], error["message"]) == (file, message)


def test_a_folder_without_code_is_reported_part_by_part(code: Code) -> None:
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
def test_tools_are_checked(live: Code, body: str, message: str) -> None:
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
    error = broken(live, "tools/__init__.py", text)
    assert error["file"] == "server/tools/__init__.py"
    assert isinstance(error["line"], int)
    assert message in error["message"]


def test_no_tools_left_is_refused(live: Code) -> None:
    assert "no tools" in broken(live, "tools/calculator.py", "")["message"]


def test_two_tools_of_one_name_are_refused(live: Code) -> None:
    error = broken(live, "tools/twin.py", tool_file(5))
    assert (error["file"], error["type"]) == ("server/tools/__init__.py", "ValueError")
    assert error["message"] == "two tools are named calculator"


def test_an_exit_while_tools_are_built_is_refused(live: Code) -> None:
    error = broken(live, "tools/extra.py", "def build_tool(llm):\n    raise SystemExit(4)\n")
    assert (error["file"], error["line"], error["type"]) == ("server/tools/extra.py", 2, "SystemExit")


LOADED = ["at import", "while tools are built"]


def loading(statement: str, when: str) -> str:
    """A file whose fourth line is executed while it is loaded."""
    if when == "at import":
        return f"import ctypes, os, re, signal, threading, time\nprint('before it')\n\n{statement}\n"
    lines = "import ctypes, os, re, signal, threading, time\nprint('before it')\n"
    return f"{lines}def build_tool(llm):\n    {statement}\n"


@pytest.mark.parametrize("when", LOADED)
@pytest.mark.parametrize(
    ("statement", "kind", "how", "line"),
    [
        ("ctypes.string_at(0)", "SIGSEGV", "ended with SIGSEGV in server/tools/extra.py line 4", 4),
        ("os._exit(0)", "ProcessEndedError", "ended with exit code 0", None),
        ("os.kill(os.getpid(), 9)", "SIGKILL", "ended with SIGKILL", None),
        ("os.abort()", "SIGABRT", "ended with SIGABRT in server/tools/extra.py line 4", 4),
        ("signal.raise_signal(signal.SIGSTOP)", "SIGSTOP", "was stopped by SIGSTOP", None),
    ],
)
def test_a_crash_while_code_is_loaded_is_a_refusal(
    live: Code, statement: str, kind: str, how: str, line: int | None, when: str
) -> None:
    error = broken(live, "tools/extra.py", loading(statement, when))
    assert error["type"] == kind
    assert how in str(error["message"]) and "while the code was loaded" in str(error["message"])
    assert (error["file"], error["line"]) == (("server/tools/extra.py", line) if line else (None, None))
    assert "  | before it\n" in str(error["traceback"])


@pytest.mark.parametrize(
    ("statement", "when"),
    [
        ("while True: pass", "at import"),
        ("while True: pass", "while tools are built"),
        ("time.sleep(10**6)", "at import"),
        ("re.match('(a+)+$', 'a' * 50 + 'b')", "while tools are built"),
        ("threading.Lock().acquire() and [lock := threading.Lock(), lock.acquire(), lock.acquire()]", "at import"),
    ],
)
def test_a_hang_while_code_is_loaded_is_a_refusal_that_names_the_line(live: Code, statement: str, when: str) -> None:
    live.limit(2)
    try:
        error = broken(live, "tools/extra.py", loading(statement, when))
    finally:
        live.limit(60)
    assert (error["file"], error["line"], error["type"]) == ("server/tools/extra.py", 4, "TimeoutError")
    assert "did not finish within 2 seconds" in error["message"]
    lines = error["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-1].startswith("TimeoutError: ")
    assert f"    {statement}" in lines and '  File "server/tools/extra.py", line 4' in error["traceback"]


def test_what_refused_code_has_started_ends_with_it(live: Code, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    text = f"""
        import os, subprocess, threading, time
        started = [subprocess.Popen(["sleep", "600"]), subprocess.Popen(["sleep", "600"], start_new_session=True)]
        threading.Thread(target=time.sleep, args=(600,)).start()
        with open({str(pids)!r}, "w") as file:
            print(*(one.pid for one in started), file=file)
        1 / 0
    """
    broken(live, "tools/extra.py", text)
    assert [pid for pid in pids.read_text().split() if os.path.exists(f"/proc/{pid}")] == []


def test_tools_of_live_code_may_fail_to_build_and_be_built_later(code: Code) -> None:
    text = "import os\n" + tool_file(7, "extra") + "\ndef build_tool(llm):\n    return llm.tool\n"
    code.write("tools/extra.py", text)
    code.reload(build=False)
    (error,) = code.refused()
    assert (error["file"], error["type"]) == ("server/tools/extra.py", "AttributeError")
    live = code.workspace.live
    assert live is not None and live.tools is None
    code.write("tools/extra.py", tool_file(7, "extra"))
    code.reload()
    assert code.ask("extra") == "7"
