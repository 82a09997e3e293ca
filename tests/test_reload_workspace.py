"""The workspace: what a reload changes and tells, who sees which code, and many callers at once."""

import contextlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from types import ModuleType

import pytest

from server.errors import ReloadFailedError, ToolsNotLoadedError
from server.reload import ReloadReport, Workspace
from tests.reload_code import LLM, Code, code, private_modules, tool_file

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
    )
    assert live.module("model").load_model("name") == "name"
    assert live.agents["react"].__name__ == "CustomAgentGuidance"


def test_what_changed_is_told(code: Code) -> None:
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

    # Only what the model is told of it changes; no file of its own.
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
    live, modules = code.workspace.live, private_modules()
    for path in code.root.rglob("*.py"):
        os.utime(path, (1, 1))
    report = code.reload()
    assert code.workspace.live is live
    assert private_modules() == modules
    assert (report.generation, report.previous) == (first.generation, first.generation)
    assert (report.changed, report.tools) == ([], NO_TOOLS)


def test_content_decides_and_nothing_else(code: Code) -> None:
    """Edits of the same size, within the same second and under the same time of change, back and forth."""
    file = code.root / "tools/calculator.py"
    hashes = set()
    for number in [1, 2, 3, 1, 2, 3] * 3:
        file.write_text(tool_file(number))
        os.utime(file, (1_000_000, 1_000_000))
        hashes.add(code.reload().generation)
        assert code.ask() == str(number)
    assert len(hashes) == 3


def test_a_tool_that_is_renamed(code: Code) -> None:
    code.reload()
    code.write("tools/calculator.py", tool_file(2, "counter"))
    assert code.reload().tools == {"added": ["counter"], "removed": ["calculator"], "changed": []}
    assert code.ask("counter") == "2"
    with pytest.raises(KeyError):
        code.ask("calculator")


def test_deleted_and_made_again(code: Code) -> None:
    code.write("tools/extra.py", tool_file(1, "extra"))
    code.reload()
    (code.root / "tools/extra.py").unlink()
    assert code.reload().tools["removed"] == ["extra"]
    code.write("tools/extra.py", tool_file(2, "extra"))
    assert code.reload().tools["added"] == ["extra"]
    assert code.ask("extra") == "2"


def test_code_without_a_model(code: Code) -> None:
    with pytest.raises(ToolsNotLoadedError), code.workspace.pin():
        pass
    report = code.workspace.reload(None)
    assert report.tools == NO_TOOLS
    live = code.workspace.live
    assert live is not None and live.tools is None
    with pytest.raises(ToolsNotLoadedError), code.workspace.pin():
        pass
    with code.workspace.pin(with_tools=False) as pinned:
        assert pinned.module("model").load_model("x") == "x"
    report = code.reload()
    assert code.workspace.live is live
    assert (report.changed, report.tools["added"]) == ([], ["calculator"])
    assert code.ask() == "1"


def test_building_tools_leaves_the_code_alone(code: Code) -> None:
    with pytest.raises(ToolsNotLoadedError):
        code.workspace.build_tools(LLM)
    code.workspace.reload(None)
    live = code.workspace.live
    code.write("tools/calculator.py", tool_file(2))
    code.workspace.build_tools(LLM)
    assert code.workspace.live is live and code.ask() == "1"
    assert live is not None
    tools = live.tools
    code.workspace.build_tools(LLM)
    assert live.tools is tools


def test_a_dry_run_changes_nothing(code: Code) -> None:
    first = code.reload()
    live, modules = code.workspace.live, private_modules()
    code.write("tools/calculator.py", tool_file(2))
    code.write("tools/extra.py", tool_file(3, "extra"))
    report = code.reload(dry_run=True)
    assert report.changed == ["tools.calculator", "tools.extra"]
    assert report.tools == {"added": ["extra"], "removed": [], "changed": ["calculator"]}
    assert report.previous == first.generation != report.generation
    assert code.workspace.live is live and private_modules() == modules
    assert code.ask() == "1"
    assert code.reload().generation == report.generation
    code.write("tools/calculator.py", "1 / 0")
    assert code.refused(dry_run=True)[0]["type"] == "ZeroDivisionError"


def test_a_dry_run_of_the_very_code_builds_no_tools_for_it(code: Code) -> None:
    code.workspace.reload(None)
    live, modules = code.workspace.live, private_modules()
    assert live is not None
    assert code.reload(dry_run=True).tools["added"] == ["calculator"]
    assert code.workspace.live is live and live.tools is None
    assert private_modules() == modules


def test_a_run_keeps_its_generation_to_its_end(code: Code) -> None:
    others = private_modules()
    code.write("tools/extra.py", tool_file("old", "extra"))
    late = """
def both():
    from server.tools import extra
    return ANSWER, extra.extra.invoke({'expression': ''})
"""
    code.write("tools/calculator.py", "ANSWER = 'old'\n" + tool_file(1) + late)
    code.reload()
    modules = private_modules() - others
    with code.workspace.pin() as old:
        with code.workspace.pin() as again:
            assert again is old
        code.write("tools/extra.py", tool_file("new", "extra"))
        code.write("tools/calculator.py", "ANSWER = 'new'\n" + tool_file(1) + late)
        code.reload()
        assert old.module("tools.calculator").both() == ("old", "old")
        assert code.module("tools.calculator").both() == ("new", "new")
        assert modules < private_modules()
    assert not modules & private_modules()
    assert code.module("tools.calculator").both() == ("new", "new")


def test_a_reload_from_inside_a_tool(code: Code) -> None:
    """Nothing waits for itself, and the run goes on with the code that it began with."""
    text = """
        from langchain_core.tools import tool
        import gate_of_the_test as gate

        @tool
        def calculator(expression: str) -> str:
            "Reload, and answer."
            gate.reload()
            from server.tools import rates
            return rates.RATE
    """
    gate = ModuleType("gate_of_the_test")
    vars(gate)["reload"] = lambda: (code.write("tools/rates.py", "RATE = '2'"), code.reload())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "gate_of_the_test", gate)
        code.write("tools/rates.py", "RATE = '1'")
        code.write("tools/calculator.py", text)
        code.reload()
        assert code.ask() == "1"
        assert code.ask() == "2"


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
        verdicts = list(threads.map(edit_and_reload, contents * 4))
    assert True in verdicts
    for text, verdict in ((tool_file(3), True), ("1 / 0\n", False), (tool_file(4), True)):
        assert edit_and_reload(text) is verdict
    assert code.ask() == "4"
    live = code.workspace.live
    assert live is not None and live.pins == 1


def test_no_run_sees_a_mix_while_code_is_reloaded(code: Code) -> None:
    def write(number: int) -> None:
        code.write("tools/rates.py", f"RATE = {number}")
        code.write("agent/__init__.py", f"NUMBER = {number}\nclass CustomAgentGuidance: pass")
        late = f"\nNUMBER = {number}\ndef rate():\n    from server.tools.rates import RATE\n    return RATE\n"
        code.write("tools/calculator.py", tool_file(number) + late)

    write(0)
    code.reload()
    stop = threading.Event()

    def runs() -> set[int]:
        seen = set()
        while not stop.is_set():
            with code.workspace.pin() as one:
                calculator = one.module("tools.calculator")
                expected = calculator.NUMBER
                assert one.tools is not None
                for _ in range(5):
                    assert calculator.rate() == one.module("agent").NUMBER == expected
                    assert one.tools["calculator"].invoke({"expression": ""}) == str(expected)
            seen.add(expected)
        return seen

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(runs) for _ in range(4)]
        try:
            for number in range(1, 40):
                write(number)
                code.reload()
        finally:
            stop.set()
        seen = set[int]().union(*(one.result() for one in running))
    assert len(seen) > 3
    assert len({name.partition(".")[0] for name in private_modules()}) >= 1
    live = code.workspace.live
    assert live is not None and live.pins == 1


def test_a_workspace_that_hangs_does_not_hold_up_another(code: Code) -> None:
    other = Code(code.root.parent / "other", deadline_seconds=2)
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


def test_two_workspaces_with_the_same_code_share_nothing_of_it(code: Code) -> None:
    twin = Workspace("twin", code.root, code.store, 20)
    code.reload()
    twin.reload(LLM)
    one, two = code.workspace.live, twin.live
    assert one is not None and two is not None and one.hash == two.hash
    assert one.module("tools.calculator") is not two.module("tools.calculator")
    code.write("tools/calculator.py", tool_file(2))
    code.reload()
    assert code.ask() == "2"
    with twin.pin() as pinned:
        assert pinned.tools is not None
        assert pinned.tools["calculator"].invoke({"expression": ""}) == "1"


def test_loading_happens_in_the_callers_context(code: Code) -> None:
    """So that its log lines carry the id of the request that asked for it."""
    asked: ContextVar[str] = ContextVar("asked")
    gate = ModuleType("gate_of_the_test")
    vars(gate)["asked"] = asked
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "gate_of_the_test", gate)
        code.write("tools/extra.py", "import gate_of_the_test as gate\nASKED = gate.asked.get()")
        asked.set("by me")
        code.reload()
    assert code.module("tools.extra").ASKED == "by me"


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
    limit = time.monotonic() + 10
    while live.pins == 1:
        assert time.monotonic() < limit
    assert live.pins == 2
    ended.set()
    thread.join()
    assert live.pins == 1
