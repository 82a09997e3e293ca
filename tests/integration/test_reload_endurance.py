"""Many reloads: nothing is left behind, and the last good code is what answers."""

import gc
import linecache
import os
import signal
import threading
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import ReloadFailedError, StoreError
from server.reload import CodeFolders, Snapshot
from server.workers.pool import Workers
from tests.support.reload_code import Code, code, tool_file, wait_until

__all__ = ["code"]  # a fixture

BROKEN_ENDS = ["", "", "1 / 0", "import os; os._exit(1)", "def f(:"]


def held(code: Code) -> Counter[str]:
    """What this process holds for generations: objects, descriptors, threads, processes, lines of files.

    The worker kept ready for the next generation counts: this waits until it has started. Only processes of the
    workers count: a database that another test has started starts some of its own when it likes.
    """
    template = code.workers._template
    assert template is not None
    wait_until(lambda: (spare := template._spare) is not None and spare.pid, "the start of the spare worker")
    with template._lock:
        keepers = [psutil.Process(root.popen.pid) for root in template._roots]
    gc.collect()
    modules = ("server.workers.", "server.reload.")
    found = Counter(type(one).__name__ for one in gc.get_objects() if str(type(one).__module__).startswith(modules))
    found["descriptors"] = len(os.listdir("/proc/self/fd"))
    found["threads"] = threading.active_count()
    found["processes"] = sum(1 + len(keeper.children(recursive=True)) for keeper in keepers)
    found["lines"] = sum("/generations/" in name for name in linecache.cache)
    return found


def test_many_reloads_leave_nothing_behind(code: Code) -> None:
    def reload(number: int) -> None:
        end = BROKEN_ENDS[number % len(BROKEN_ENDS)]
        code.write("tools/calculator.py", tool_file(number))
        code.write("tools/zz_last.py", f"X = {number}\n{end}")
        try:
            code.reload()
        except ReloadFailedError:
            assert end
        else:
            assert not end and code.ask() == str(number)

    def settle() -> int:
        wait_until(lambda: len(code.pids()) == 1, "the end of all other workers")
        (pid,) = code.pids()
        return pid

    # The most of each after any of the first reloads: now and then a thread still has the last worker that ended.
    before: Counter[str] = Counter()
    for number in range(10):
        reload(number)
        pid = settle()
        before |= held(code)
    for number in range(10, 60):
        reload(number)
    settle()
    more: Counter[str] = Counter()

    def is_nothing_left() -> bool:
        nonlocal more
        more = held(code) - before
        return not more

    wait_until(is_nothing_left, lambda: f"the end of {dict(more)}, held since the first reloads")
    assert pid not in code.pids()
    # Each generation's files are there once, and no draft of any.
    folder = code.root.parent / "generations"
    assert code.workspace.live is not None and code.workspace.live.hash in os.listdir(folder)
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


@pytest.mark.parametrize("how", ["removed", "too old", "half of it"])
def test_live_code_whose_folder_was_tidied_up_is_loaded_again(code: Code, how: str) -> None:
    """Only the folders of running workers are sure to stay: those of idle workspaces are the first to go."""
    code.reload()
    assert code.workspace.live is not None
    folder, (pid,) = code.workspace.live.folder, code.pids()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not code.pids(), "the end of the worker")
    if how == "removed":
        code.runner.folders.remove(folder.name)
    elif how == "too old":
        code.runner.folders.trim([], most=0)
    else:
        (folder / "server/tools/calculator.py").unlink()
    assert folder.exists() == (how == "half of it")
    assert code.ask() == "1"
    assert code.workspace.live.folder == folder and folder.exists()


def test_old_code_that_can_not_be_tidied_up_does_not_refuse_new_code(
    code: Code, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code.reload()

    def fail(*_: object, **__: object) -> None:
        raise StoreError("it can't be tidied up: Input/output error.")

    monkeypatch.setattr(CodeFolders, "trim", fail)
    code.write("tools/calculator.py", tool_file(2))
    code.reload()
    assert code.ask() == "2" and "old code stays: it can't be tidied up" in caplog.text
    wait_until(lambda: len(code.pids()) == 1, "the end of the old worker")


GOOD = st.integers(0, 99).map(tool_file)
BROKEN = st.sampled_from(
    [
        "def f(:",
        "1 / 0",
        "import no_such_package",
        "raise SystemExit",
        "x = 1",
        "from . import gone",
        "import os; os._exit(1)",
    ]
)
EDIT = st.tuples(st.sampled_from(["tools/calculator.py"] * 3 + ["tools/extra.py"]), GOOD | BROKEN)


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(EDIT, min_size=1, max_size=3), min_size=1, max_size=6))
def test_after_any_edits_the_last_good_code_answers(workers: Workers, rounds: list[list[tuple[str, str]]]) -> None:
    with TemporaryDirectory() as folder:
        code = Code(Path(folder) / "server", workers)
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
        assert live is not None and live.pins == 1
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
