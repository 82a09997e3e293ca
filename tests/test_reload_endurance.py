"""Many reloads: nothing is left behind, and the last good code is what answers."""

import gc
import inspect
import linecache
import logging
import sys
import tracemalloc
import weakref
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import ReloadFailedError
from server.reload import Snapshot
from server.reload.importer import _installed
from server.reload.naming import file_of, package_of
from tests.reload_code import Code, code, tool_file

__all__ = ["code"]  # a fixture

LEAVES_TRACES = """
    import inspect
    import logging
    import sys
    import gate_of_the_test as gate

    logging.getLogger(__name__).debug("loaded")
    logging.getLogger(__name__ + ".part").debug("loaded")

    class Witness:
        pass

    WITNESS = Witness()
    WITNESS.cycle = [WITNESS]
    gate.witnesses.add(WITNESS)
    SOURCE = inspect.getsource(inspect.currentframe())

    class Finder:
        def find_spec(self, *_): return None

    sys.meta_path.append(Finder())
"""


def traces() -> dict[str, int]:
    """How much the process holds for generations."""
    return {
        "modules": sum(package_of(name) is not None for name in list(sys.modules)),
        "loggers": sum(package_of(name) is not None for name in logging.Logger.manager.loggerDict),
        "lines": sum(file_of(name) is not None for name in linecache.cache),
        "path": sum(package_of(name) is not None for name in sys.path_importer_cache),
        "sources": sum(package_of(name) is not None for name in vars(inspect)["_filesbymodname"]),
        "finders": len(sys.meta_path),
        "hooks": len(sys.path_hooks),
        "installed": len(_installed),
    }


def test_many_reloads_leave_nothing_behind(code: Code, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    gate = type(sys)("gate_of_the_test")
    witnesses: weakref.WeakSet[object] = weakref.WeakSet()
    vars(gate)["witnesses"] = witnesses
    monkeypatch.setitem(sys.modules, "gate_of_the_test", gate)
    code.write("tools/traces.py", LEAVES_TRACES)

    def reload(number: int) -> None:
        broken = number % 5 == 4
        code.write("tools/zz_last.py", f"X = {number}\n" + ("1 / 0" if broken else ""))
        try:
            code.reload()
        except ReloadFailedError:
            assert broken
        with code.workspace.pin():
            pass

    for number in range(20):
        reload(number)
    gc.collect()
    before, witnesses_before = traces(), len(witnesses)
    tracemalloc.start()
    try:
        for number in range(20, 70):
            reload(number)
        gc.collect()
        memory = tracemalloc.get_traced_memory()[0]
        for number in range(70, 170):
            reload(number)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - memory
    finally:
        tracemalloc.stop()
    assert traces() == before
    assert len(witnesses) == witnesses_before == 1
    # Bytes: tables like that of `sys.modules` grow by leaps; a hundred generations are over ten million.
    assert grown < 1_500_000


GOOD = st.integers(0, 99).map(tool_file)
BROKEN = st.sampled_from(
    ["def f(:", "1 / 0", "import no_such_package", "raise SystemExit", "x = 1", "from . import gone"]
)
EDIT = st.tuples(st.sampled_from(["tools/calculator.py"] * 3 + ["tools/extra.py"]), GOOD | BROKEN)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(EDIT, min_size=1, max_size=3), min_size=1, max_size=6))
def test_after_any_edits_the_last_good_code_answers(rounds: list[list[tuple[str, str]]]) -> None:
    with TemporaryDirectory() as folder:
        code = Code(Path(folder) / "server")
        code.reload()
        good, answer = files_of(code), "1"
        for edits in rounds:
            for path, text in edits:
                code.write(path, text)
            now = files_of(code)
            try:
                report = code.reload()
            except ReloadFailedError as refusal:
                assert refusal.details["generation"] == Snapshot(good).hash
                assert refusal.details["errors"]
                assert not loads(now)
            else:
                assert loads(now)
                assert report.generation == Snapshot(now).hash
                assert (report.changed == []) == (now == good)
                good = now
                answer = answer_of(now["tools/calculator.py"]) or answer_of(now["tools/extra.py"])
            live = code.workspace.live
            assert live is not None and live.hash == Snapshot(good).hash
            assert code.ask() == answer
        assert live.pins == 1
        code.close()


def files_of(code: Code) -> dict[str, bytes]:
    return {path.relative_to(code.root).as_posix(): path.read_bytes() for path in code.root.rglob("*.py")}


def loads(files: dict[str, bytes]) -> bool:
    """Whether that is code with exactly one calculator, by what the strategies make."""
    extra = files.get("tools/extra.py", b"x = 1")
    return (b"@tool" in files["tools/calculator.py"] and extra == b"x = 1") or (
        b"@tool" in extra and files["tools/calculator.py"] == b"x = 1"
    )


def answer_of(text: bytes) -> str:
    return text.decode().partition("return '")[2].partition("'")[0]
