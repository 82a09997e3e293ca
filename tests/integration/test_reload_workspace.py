"""The workspace: what a reload changes and reports, who sees which code, and many callers at once."""

import contextlib
import json
import os
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from server.errors import ReloadFailedError, ToolsNotLoadedError
from server.reload import ReloadReport, Workspace
from tests.support.reload_code import LOOK, Code, code, process_state, tool_file, wait_until

__all__ = ["code"]  # a fixture

NO_TOOLS: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}


def test_the_first_load(code: Code) -> None:
    report = code.reload()
    live = code.workspace.live
    assert live is not None and report.seconds > 0
    assert report == ReloadReport(
        workspace="main",
        generation=live.hash,
        previous=None,
        changed=["agent", "model", "tools", "tools.calculator"],
        tools={"added": ["calculator"], "removed": [], "changed": []},
        seconds=report.seconds,
        rebuilt=[],
    )
    assert live.agents == ["react"] and live.tools is not None
    assert live.tools["calculator"].description == "Work something out."
    assert live.tools["calculator"].args_schema["properties"]["expression"]["type"] == "string"


def test_what_changed_is_reported(code: Code) -> None:
    for name in ("stays", "goes", "described", "typed", "edited", "rests", "deeper"):
        code.write(f"tools/{name}.py", tool_file(name, name))
    code.write("tools/rests.py", "from .rates import RATE\n" + tool_file(1, "rests"))
    code.write("tools/deeper.py", "from server.tools import rests\n" + tool_file(1, "deeper"))
    code.write("tools/rates.py", "RATE = 1")
    code.write("tools/shared.py", "TEXT, KIND = 'Old.', int")
    code.write("tools/far.py", FROM_AFAR)
    first = code.reload()

    (code.root / "tools/goes.py").unlink()
    code.write("tools/comes.py", tool_file(1, "comes"))
    code.write("tools/edited.py", tool_file(2, "edited"))
    code.write("tools/rates.py", "RATE = 2")
    report = code.reload()
    assert report.previous == first.generation
    assert report.changed == ["tools.comes", "tools.edited", "tools.goes", "tools.rates"]
    assert report.tools == {
        "added": ["comes"],
        "removed": ["goes"],
        "changed": ["deeper", "edited", "rests"],
    }

    # Only what the model is shown of it changes; no file of its own.
    code.write("tools/shared.py", "TEXT, KIND = 'New.', int")
    assert code.reload().tools["changed"] == ["far"]
    code.write("tools/shared.py", "TEXT, KIND = 'New.', str")
    assert code.reload().tools["changed"] == ["far"]
    code.write("agent/other.py", "")
    assert code.reload().tools == NO_TOOLS


FROM_AFAR = """
    import importlib
    from langchain_core.tools import StructuredTool
    from pydantic import create_model

    def build_tool(llm):
        shared = importlib.import_module(".shared", __package__)
        schema = create_model("Far", x=(shared.KIND, ...))
        return StructuredTool.from_function(print, name="far", description=shared.TEXT, args_schema=schema)
"""


def test_the_same_bytes_are_the_same_generation(code: Code) -> None:
    first = code.reload()
    live, pids = code.workspace.live, code.pids()
    for path in code.root.rglob("*.py"):
        os.utime(path, (1, 1))
    report = code.reload()
    assert code.workspace.live is live and code.pids() == pids
    assert (report.generation, report.previous) == (first.generation, first.generation)
    assert (report.changed, report.tools) == ([], NO_TOOLS)


def test_content_decides_and_nothing_else(code: Code) -> None:
    """Edits of the same size, within the same second and under the same time of change, back and forth; byte-code is
    cached meanwhile."""
    file = code.root / "tools/calculator.py"
    hashes = set()
    for number in [1, 2, 3, 1, 2, 3] * 2:
        file.write_text(tool_file(number))
        os.utime(file, (1_000_000, 1_000_000))
        hashes.add(code.reload().generation)
        assert code.ask() == str(number)
    assert len(hashes) == 3
    assert not list(code.root.rglob("__pycache__")), "nothing is written beside a person's files"


def test_a_tool_that_is_renamed(code: Code) -> None:
    code.reload()
    code.write("tools/calculator.py", tool_file(2, "counter"))
    assert code.reload().tools == {"added": ["counter"], "removed": ["calculator"], "changed": []}
    assert code.ask("counter") == "2"
    assert code.workspace.live is not None and list(code.workspace.live.tools or {}) == ["counter"]


def test_deleted_and_made_again(code: Code) -> None:
    code.write("tools/extra.py", tool_file(1, "extra"))
    code.reload()
    (code.root / "tools/extra.py").unlink()
    assert code.reload().tools["removed"] == ["extra"]
    code.write("tools/extra.py", tool_file(2, "extra"))
    assert code.reload().tools["added"] == ["extra"]
    assert code.ask("extra") == "2"


def test_code_whose_tools_are_not_built(code: Code) -> None:
    with pytest.raises(ToolsNotLoadedError), code.workspace.pin():
        pass
    with pytest.raises(ToolsNotLoadedError):
        code.workspace.build_tools()
    report = code.reload(build=False)
    assert report.tools == NO_TOOLS
    live = code.workspace.live
    assert live is not None and live.tools is None
    with pytest.raises(ToolsNotLoadedError), code.workspace.pin():
        pass
    with code.workspace.pin(with_tools=False) as pinned:
        assert pinned is live
    report = code.reload()
    assert code.workspace.live is live
    assert (report.changed, report.tools["added"]) == ([], ["calculator"])
    assert code.ask() == "1"


def test_building_tools_leaves_the_code_alone(code: Code) -> None:
    code.reload(build=False)
    live, pids = code.workspace.live, code.pids()
    code.write("tools/calculator.py", tool_file(2))
    code.workspace.build_tools()
    assert code.workspace.live is live and code.pids() == pids and code.ask() == "1"
    assert live is not None
    tools = live.tools
    code.workspace.build_tools()
    assert live.tools is tools


def test_a_dry_run_changes_nothing(code: Code) -> None:
    first = code.reload()
    live, pids = code.workspace.live, code.pids()
    code.write("tools/calculator.py", tool_file(2))
    code.write("tools/extra.py", tool_file(3, "extra"))
    report = code.reload(dry_run=True)
    assert report.changed == ["tools.calculator", "tools.extra"]
    assert report.tools == {"added": ["extra"], "removed": [], "changed": ["calculator"]}
    assert report.previous == first.generation != report.generation
    wait_until(lambda: code.workspace.live is live and code.pids() == pids, "the end of the worker of the dry run")
    assert code.ask() == "1"
    assert code.reload().generation == report.generation
    code.write("tools/calculator.py", "1 / 0")
    assert code.refused(dry_run=True)[0]["type"] == "ZeroDivisionError"


def test_a_dry_run_of_the_very_code_builds_no_tools_for_it(code: Code) -> None:
    code.reload(build=False)
    live, pids = code.workspace.live, code.pids()
    assert live is not None
    assert code.reload(dry_run=True).tools["added"] == ["calculator"]
    assert code.workspace.live is live and live.tools is None
    wait_until(lambda: code.pids() == pids, "the end of the worker of the dry run")


def test_an_earlier_generation_comes_back(code: Code) -> None:
    first = code.reload()
    code.write("tools/calculator.py", tool_file(2))
    second = code.reload()
    code.write("tools/calculator.py", "broken(")
    assert code.workspace.live is not None
    with code.workspace.pin_earlier(first.generation) as earlier:
        assert (code.ask(generation=earlier), code.ask()) == ("1", "2")
        report = code.reload(snapshot=earlier.snapshot)
        assert (report.generation, report.previous) == (first.generation, second.generation)
        assert code.workspace.live is earlier
    assert code.ask() == "1"


def test_a_run_uses_its_generation_to_its_end(code: Code) -> None:
    late = """
def both():
    from server.tools import extra
    return ANSWER, extra.extra.invoke({'expression': ''})
"""

    def write(answer: str) -> None:
        code.write("tools/extra.py", tool_file(answer, "extra"))
        code.write("tools/calculator.py", f"ANSWER = '{answer}'\n" + tool_file(1) + late)

    write("old")
    code.write("tools/look.py", LOOK)
    code.reload()
    (pid,) = code.pids()
    with code.workspace.pin() as old:
        with code.workspace.pin() as again:
            assert again is old
        write("new")
        code.reload()
        assert code.look("tools.calculator", "both()", old) == ("old", "old")
        assert code.look("tools.calculator", "both()") == ("new", "new")
        # What is held, and by which code, is listed.
        listed = {one.generation: one.pid for one in code.workers.describe() if one.workspace == "main"}
        assert listed[old.hash] == pid and code.workspace.live is not None and code.workspace.live.hash in listed
    wait_until(lambda: pid not in code.pids(), "the end of the old worker")
    assert code.look("tools.calculator", "both()") == ("new", "new")


@contextmanager
def server_of(answer: Callable[[], str]) -> Iterator[str]:
    """The URL of a server that calls `answer` for each request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_reload_from_inside_a_tool(code: Code) -> None:
    """Nothing waits for itself, and the run continues with the code that it began with."""

    def reload() -> str:
        code.write("tools/rates.py", "RATE = '2'")
        return json.dumps(code.reload().changed)

    with server_of(reload) as url:
        text = f"""
            import urllib.request
            from langchain_core.tools import tool

            @tool
            def calculator(expression: str) -> str:
                "Reload, and answer."
                changed = urllib.request.urlopen("{url}").read().decode()
                from server.tools import rates
                return changed + rates.RATE
        """
        code.write("tools/rates.py", "RATE = '1'")
        code.write("tools/calculator.py", text)
        code.reload()
        assert code.ask() == '["tools.rates"]1'
        assert code.ask() == "[]2"


def test_reloads_at_once_go_one_after_the_other(code: Code) -> None:
    """Each caller's verdict is about files that were there during its own call."""
    code.reload()
    contents = [tool_file(n) for n in range(8)] + ["1 / 0\n"]

    def edit_and_reload(text: str) -> bool:
        code.write("tools/calculator.py", text)
        try:
            code.reload()
        except ReloadFailedError as refusal:
            (error,) = refusal.details["errors"]
            assert error["type"] == "ZeroDivisionError"
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        verdicts = list(threads.map(edit_and_reload, contents * 3))
    assert True in verdicts
    for text, verdict in ((tool_file(3), True), ("1 / 0\n", False), (tool_file(4), True)):
        assert edit_and_reload(text) is verdict
    assert code.ask() == "4"
    live = code.workspace.live
    assert live is not None and live.pins == 1
    wait_until(lambda: len(code.pids()) == 1, "the end of all other workers")


def test_no_run_sees_a_mix_while_code_is_reloaded(code: Code) -> None:
    def write(number: int) -> None:
        code.write("tools/rates.py", f"RATE = {number}")
        code.write("agent/__init__.py", f"NUMBER = {number}\nclass CustomAgentGuidance: pass")
        code.write("tools/calculator.py", MIX.format(number=number))

    write(0)
    code.reload()
    stop = threading.Event()

    def runs() -> set[str]:
        seen = set()
        while not stop.is_set():
            with code.workspace.pin() as one:
                said = {code.ask(generation=one) for _ in range(3)}
                assert len(said) == 1
                numbers = json.loads(said.pop())
                assert len(set(numbers)) == 1, numbers
                seen.add(numbers[0])
        return seen

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(runs) for _ in range(4)]
        try:
            for number in range(1, 20):
                write(number)
                code.reload()
        finally:
            stop.set()
        seen = set[str]().union(*(one.result() for one in running))
    assert len(seen) > 3
    live = code.workspace.live
    assert live is not None and live.pins == 1
    wait_until(lambda: len(code.pids()) == 1, "the end of all other workers")


MIX = """
    from langchain_core.tools import tool
    import server.agent

    NUMBER = {number}

    @tool
    def calculator(expression: str) -> str:
        "Say all numbers."
        from server.tools.rates import RATE
        return str([NUMBER, RATE, server.agent.NUMBER])
"""


def test_a_workspace_that_hangs_does_not_hold_up_another(code: Code) -> None:
    other = Code(code.root.parent / "other" / "server", code.workers, deadline_seconds=5, name="other")
    other.write("tools/calculator.py", "while True: pass")
    verdicts = []

    def hang() -> None:
        with contextlib.suppress(ReloadFailedError):
            other.reload()
        verdicts.append("hung")

    thread = threading.Thread(target=hang)
    thread.start()
    try:
        code.reload()
        assert code.ask() == "1"
        assert not verdicts
    finally:
        thread.join()
        other.close()


def test_two_workspaces_reload_at_the_same_time(code: Code) -> None:
    other = Code(code.root.parent / "other" / "server", code.workers, name="other")
    for one, own, others in ((code, "a", "b"), (other, "b", "a")):
        # Each import ends only when the other one has begun.
        text = f"""
            import pathlib, time
            meeting = pathlib.Path({str(code.root.parent)!r})
            (meeting / "{own}").touch()
            while not (meeting / "{others}").exists():
                time.sleep(0.01)
        """
        one.write("tools/meets.py", text)
    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(lambda one: one.reload(), (code, other)))
    assert [report.workspace for report in reports] == ["main", "other"]
    assert (code.ask(), other.ask()) == ("1", "1")
    other.close()


def test_two_workspaces_with_the_same_code_share_nothing_of_it(code: Code) -> None:
    twin = Workspace("twin", code.root, code.runner)
    code.write("tools/look.py", LOOK)
    code.write("tools/extra.py", "CALLS = []")
    code.reload()
    twin.reload(build=True)
    with twin.pin() as pinned:
        assert code.workspace.live is not None and code.workspace.live.hash == pinned.hash
        code.look("tools.extra", "CALLS.append(1)")
        assert (code.look("tools.extra", "CALLS"), code.look("tools.extra", "CALLS", pinned)) == ([1], [])
        code.write("tools/calculator.py", tool_file(2))
        code.reload()
        assert (code.ask(), code.ask(generation=pinned)) == ("2", "1")
    assert twin.live is not None
    twin.live.close()


CHANGES_THE_PROCESS = """
    import atexit, gc, json, locale, logging, os, random, resource, signal, socket, sys, threading, time, warnings
    import numpy

    os.environ["VARIABLE_OF_THE_TEST"] = "x"
    os.environ.pop("PATH")
    os.chdir("/")
    os.umask(0o777)
    sys.path.insert(0, "/nowhere")
    sys.meta_path.append(type("Finder", (), {"find_spec": lambda *_: None}))
    sys.setrecursionlimit(9999)
    sys.setswitchinterval(10)
    sys.excepthook = threading.excepthook = print
    sys.stdout = sys.stderr = None
    warnings.simplefilter("error")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda *_: None)
    socket.setdefaulttimeout(7)
    locale.setlocale(locale.LC_ALL, "POSIX")
    logging.basicConfig(level="DEBUG", force=True)
    logging.disable()
    json.dumps = lambda value, real=json.dumps, **options: real(value, **{**options, "indent": 4})
    random.seed(1)
    numpy.random.seed(1)
    gc.disable()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    atexit.register(print, "never")
    threading.Thread(target=time.sleep, args=(10**6,)).start()
"""
STATE = """
    import gc, json, locale, logging, os, random, resource, signal, socket, sys, threading, warnings
    from langchain_core.tools import tool

    @tool
    def state(expression: str) -> str:
        "What a process is like."
        os.umask(mask := os.umask(0))
        return repr([
            sorted(os.environ), os.getcwd(), mask, sys.path[1:], len(sys.meta_path), sys.getrecursionlimit(),
            sys.getswitchinterval(), sys.excepthook is sys.__excepthook__, sys.stdout is sys.__stdout__,
            warnings.filters[0], signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT),
            socket.getdefaulttimeout(), locale.setlocale(locale.LC_ALL), logging.root.level,
            logging.root.manager.disable,
            json.dumps.__name__, gc.isenabled(), resource.getrlimit(resource.RLIMIT_NOFILE), threading.active_count(),
        ])
"""


@pytest.mark.parametrize("when", ["at import", "while tools are built"])
def test_what_code_changes_in_its_process_reaches_nobody_else(code: Code, when: str) -> None:
    other = Code(code.root.parent / "other" / "server", code.workers, name="other")
    for one in (code, other):
        one.write("tools/state.py", STATE)
        one.reload()
    before = code.ask("state")
    assert other.ask("state") == before
    changes = CHANGES_THE_PROCESS
    if when == "while tools are built":
        changes = "\n    def build_tool(llm):" + changes.replace("\n    ", "\n        ")
        changes += "        return state\n"
        changes = "from .state import state\n" + textwrap.dedent(changes)
    code.write("tools/zz_last.py", changes)
    server = process_state()
    report = code.reload()
    assert process_state() == server
    assert (report.changed, report.rebuilt) == (["tools.zz_last"], [])
    assert code.ask() == "1" and code.ask("state") != before
    assert other.ask("state") == before
    other.write("tools/extra.py", "")
    other.reload()
    (code.root / "tools/zz_last.py").unlink()
    code.reload()
    assert code.ask("state") == other.ask("state") == before
    other.close()


def test_a_pin_is_given_back_however_the_run_ends(code: Code) -> None:
    code.reload()
    with pytest.raises(KeyboardInterrupt), code.workspace.pin():
        raise KeyboardInterrupt
    live = code.workspace.live
    assert live is not None and live.pins == 1
    ended = threading.Event()

    def run() -> None:
        with code.workspace.pin():
            ended.wait(10)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: live.pins == 2, "the pin")
    ended.set()
    thread.join()
    assert live.pins == 1
