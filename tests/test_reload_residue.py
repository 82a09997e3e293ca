"""What code does to the process when it is loaded: put back or named, and never another's undone."""

import atexit
import contextlib
import gc
import locale
import logging
import os
import random
import socket
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from server.errors import ReloadFailedError
from server.reload import building_a_model
from tests.reload_code import Code, code, tool_file

__all__ = ["code"]  # a fixture

NAME = "VARIABLE_OF_THE_TEST"
CHANGED = f"os.environ[{NAME!r}] was changed; it was put back"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module by which loaded code and test meet."""
    made = ModuleType("gate_of_the_test")
    monkeypatch.setitem(sys.modules, "gate_of_the_test", made)
    return made


@pytest.fixture
def numpy() -> Any:
    return pytest.importorskip("numpy.random")


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


SETTINGS: dict[str, tuple[str, Callable[[], object], str]] = {
    "path": ("sys.path.insert(0, '/nowhere')", lambda: list(sys.path), "sys.path"),
    "new path": ("sys.path = [*sys.path, '/nowhere']", lambda: list(sys.path), "sys.path"),
    "lost path": ("del sys.path[0]", lambda: list(sys.path), "sys.path"),
    "folder": ("os.chdir('/')", os.getcwd, "the current folder"),
    "filter": ("warnings.simplefilter('ignore')", lambda: list(warnings.filters), "warnings.filters"),
    "filters": ("warnings.resetwarnings()", lambda: list(warnings.filters), "warnings.filters"),
    "recursion": ("sys.setrecursionlimit(9999)", sys.getrecursionlimit, "the recursion limit"),
    "timeout": ("socket.setdefaulttimeout(7)", socket.getdefaulttimeout, "the default timeout of sockets"),
    "locale": (
        "locale.setlocale(locale.LC_ALL, 'POSIX' if locale.setlocale(locale.LC_ALL) != 'C' else 'C.UTF-8')",
        lambda: locale.setlocale(locale.LC_ALL),
        "the locale",
    ),
    "logging": ("logging.disable()", lambda: logging.root.manager.disable, "what logging.disable switches off"),
    "hook": ("sys.excepthook = print", lambda: sys.excepthook, "sys.excepthook"),
    "hook of threads": ("threading.excepthook = print", lambda: threading.excepthook, "threading.excepthook"),
}
IMPORTS = "import locale, logging, os, random, socket, sys, threading, warnings\n"


@pytest.mark.parametrize("when", ["at import", "while tools are built", "before it fails"])
@pytest.mark.parametrize("what", SETTINGS)
def test_a_setting_is_put_back_and_named(code: Code, what: str, when: str) -> None:
    statement, read, name = SETTINGS[what]
    code.reload()
    before = read()
    text = IMPORTS + statement
    if when == "while tools are built":
        text = f"{IMPORTS}{tool_file(1, 'extra')}\ndef build_tool(llm):\n    {statement}\n    return extra\n"
    elif when == "before it fails":
        text += "\n1 / 0\n"
    code.write("tools/extra.py", text)
    assert left_behind(code) == [f"{name} was changed; it was put back"]
    assert read() == before


def left_behind(code: Code) -> list[str]:
    """What a reload leaves behind, whether it is taken over or not."""
    try:
        sentences: list[str] = code.reload().left_behind
    except ReloadFailedError as refusal:
        sentences = refusal.details["left_behind"]
    return sentences


def test_code_that_leaves_nothing_has_nothing_to_tell(code: Code) -> None:
    code.reload()
    code.write("tools/extra.py", "import threading\nthread = threading.Thread(target=print)\n")
    assert code.reload().left_behind == []


@pytest.mark.parametrize(
    "statement", [f"os.environ['{NAME}'] = 'new'", f"del os.environ['{NAME}']", f"os.environ.pop('{NAME}')"]
)
def test_the_environment_is_put_back(code: Code, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    monkeypatch.setenv(NAME, "old")
    code.reload()
    code.write("tools/extra.py", f"import os\n{statement}\nSEEN = os.environ.get('{NAME}')\n")
    assert code.reload().left_behind == [CHANGED]
    assert os.environ[NAME] == "old"
    assert code.module("tools.extra").SEEN in ("new", None)


def test_a_variable_that_was_not_there_is_gone_again(code: Code) -> None:
    code.write("tools/extra.py", f"import os\nos.environ['{NAME}'] = 'a secret'")
    assert CHANGED in code.reload().left_behind
    assert NAME not in os.environ


def test_what_was_left_behind_is_told_once_and_logged(code: Code, caplog: pytest.LogCaptureFixture) -> None:
    code.reload()
    code.write("tools/extra.py", f"import os\nos.environ['{NAME}'] = 'x'")
    code.workspace.reload(None)
    assert caplog.messages == [CHANGED]
    assert code.reload().left_behind == []  # builds the tools, which the reload before left for later
    assert code.reload().left_behind == []


def test_loading_and_building_tools_are_told_together(code: Code) -> None:
    code.reload()
    text = f"import os\nos.environ['{NAME}'] = 'x'\ndef build_tool(llm):\n    os.chdir('/')\n    {{}}\n"
    code.write("tools/extra.py", tool_file(1, "extra") + text.format("return extra"))
    both = [CHANGED, "the current folder was changed; it was put back"]
    assert code.reload(dry_run=True).left_behind == both
    assert code.reload().left_behind == both
    code.write("tools/extra.py", tool_file(2, "extra") + text.format("1 / 0"))
    assert left_behind(code) == both


def test_loggers_of_others_are_put_back(code: Code) -> None:
    other = logging.getLogger("library_of_the_test")
    code.reload()
    before = list(logging.root.handlers), logging.root.level
    text = """
        import logging
        logging.basicConfig(level="DEBUG", force=True)
        logging.getLogger("library_of_the_test").disabled = True
        logging.getLogger("new_library_of_the_test").setLevel("ERROR")
        logging.getLogger(__name__).setLevel("ERROR")
    """
    code.write("tools/extra.py", text)
    assert code.reload().left_behind == [
        "level, handlers or state of loggers were changed: 'root', 'library_of_the_test'; they were put back"
    ]
    assert (list(logging.root.handlers), logging.root.level) == before
    assert not other.disabled
    assert logging.getLogger(code.module("tools.extra").__name__).level == logging.ERROR


def test_an_import_that_hangs_has_its_changes_put_back_when_it_is_given_up(code: Code, gate: Any) -> None:
    vars(gate).update(opened=threading.Event(), changed=threading.Event())
    code.reload()
    code.workspace.deadline_seconds = 0.3
    code.write(
        "tools/extra.py",
        f"""
        import os
        import gate_of_the_test as gate
        os.environ["{NAME}"] = "hanging"
        gate.changed.set()
        try:
            gate.opened.wait()
        except BaseException:
            pass
        """,
    )
    assert left_behind(code) == [CHANGED]
    assert gate.changed.is_set() and NAME not in os.environ
    # Much later, when others have long changed it:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NAME, "another's")
        (loader,) = (thread for thread in threading.enumerate() if thread.name == "hearth-loader")
        gate.opened.set()
        loader.join(10)
        assert not loader.is_alive() and os.environ[NAME] == "another's"


def test_a_folder_that_is_gone_cannot_be_put_back(
    code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code.reload()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    code.write("tools/extra.py", f"import os\nos.rmdir({str(tmp_path / 'gone')!r})\nos.chdir('/')")
    (sentence,) = code.reload().left_behind
    assert sentence.startswith("the current folder was changed; it could not be put back: [Errno 2]")


# Threads


THREADS = {
    "a function": "threading.Thread(target=wait, name='poller').start()",
    "a wrapped function": "threading.Thread(target=functools.partial(wait), name='poller').start()",
    "a method": "threading.Thread(target=Own().run, name='poller').start()",
    "a class": "OwnThread(name='poller').start()",
    "a timer": "timer = threading.Timer(1000, wait); timer.name = 'poller'; timer.start(); gate.timers.append(timer)",
    "an argument": "threading.Thread(target=gate.call, args=(wait,), name='poller').start()",
    "held": "held = threading.Thread(target=gate.opened.wait, name='poller'); held.start()",
    "a library's object": "held = gate.Library(); threading.Thread(target=held.run, name='poller').start()",
    "an executor": "held = ThreadPoolExecutor(thread_name_prefix='poller'); held.submit(gate.opened.wait)",
    "at work": "ThreadPoolExecutor(thread_name_prefix='poller').submit(wait); gate.waits.wait(10)",
}
STARTS = """
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
import gate_of_the_test as gate

def wait():
    gate.waits.set()
    gate.opened.wait()

class Own:
    def run(self):
        gate.opened.wait()

class OwnThread(threading.Thread):
    def run(self):
        gate.opened.wait()

"""


@pytest.fixture
def threads(gate: Any) -> Iterator[Any]:
    """The gate that all threads of a test wait at; opened at its end."""

    class Library:
        def run(self) -> None:
            gate.opened.wait()

    vars(gate).update(
        opened=threading.Event(), waits=threading.Event(), timers=[], Library=Library, call=lambda f: f()
    )
    before = threading.enumerate()
    yield gate
    gate.opened.set()
    for timer in gate.timers:
        timer.cancel()
    for thread in threading.enumerate():
        # Those of an executor end with the process; they hold nothing.
        if thread not in before and isinstance(thread, threading.Thread) and "poller_" not in thread.name:
            thread.join(10)
            assert not thread.is_alive()


HELD = ("held", "a library's object", "an executor")  # known by the module's names, which go when it fails


@pytest.mark.parametrize(
    ("what", "fails"), [*((what, False) for what in THREADS), *((what, True) for what in THREADS if what not in HELD)]
)
def test_a_thread_that_goes_on_is_named(code: Code, threads: Any, what: str, fails: bool) -> None:
    code.reload()
    code.write("tools/extra.py", STARTS + THREADS[what] + ("\n1 / 0" if fails else ""))
    (sentence,) = left_behind(code)
    assert sentence in (
        "server/tools/extra.py started the thread 'poller', which goes on running",
        "server/tools/extra.py started the thread 'poller_0', which goes on running",
    )


def test_a_thread_that_has_ended_is_not_named(code: Code) -> None:
    code.reload()
    text = """
        import threading
        def work(): pass
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """
    code.write("tools/extra.py", text)
    assert code.reload().left_behind == []


def test_threads_of_others_are_not_blamed_on_it(code: Code, threads: Any) -> None:
    code.reload()

    def start() -> None:
        threading.Thread(target=threads.opened.wait, args=(None,), name="tool of another").start()
        ThreadPoolExecutor(thread_name_prefix="poller").submit(threads.opened.wait)

    threads.start = start
    code.write(
        "tools/extra.py", "import time\nfrom concurrent.futures import *\nimport gate_of_the_test as g\ng.start()"
    )
    assert code.reload().left_behind == []


# What ends with the process, and signals


def test_functions_registered_with_atexit_are_taken_out(code: Code, gate: Any) -> None:
    def of_the_test() -> None:
        pass

    gate.registered = weakref.WeakSet([of_the_test])
    atexit.register(of_the_test)
    del of_the_test
    code.reload()
    text = """
        import atexit
        import functools
        import gate_of_the_test as gate

        class Own:
            def end(self): pass

        own = Own()
        functions = [lambda: None, functools.partial(own.end)]
        for function in functions:
            gate.registered.add(atexit.register(function))
        del function, functions
    """
    code.write("tools/extra.py", text)
    sentence = (
        "server/tools/extra.py registered a function with atexit; it was taken out: "
        "it would keep this code in memory, and Hearth ends without calling it"
    )
    assert code.reload().left_behind == [sentence] * 2
    gc.collect()
    (kept,) = gate.registered
    assert kept.__module__ == __name__
    atexit.unregister(kept)


def test_a_signal_handler_is_an_error_with_its_line(code: Code) -> None:
    code.reload()
    code.write("tools/extra.py", "import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)\n")
    (error,) = code.refused()
    assert (error["file"], error["line"], error["type"]) == ("server/tools/extra.py", 2, "ValueError")
    assert "signal only works in main thread" in error["message"]


# Random numbers


def test_a_seed_is_taken_back(code: Code) -> None:
    code.reload()
    state = random.getstate()
    code.write("tools/extra.py", "import random\nrandom.seed(1)\nrandom.random()\n")
    assert code.reload().left_behind == ["random was seeded; it was put back"]
    assert random.getstate() == state


@pytest.mark.parametrize("count", [1, 700, 5000])
def test_numbers_that_were_drawn_stay_drawn(code: Code, numpy: Any, count: int) -> None:
    """Whoever drew them, a run in another thread or the code itself: nobody gets them again."""
    code.reload()
    text = f"import random\nimport numpy\nMINE = [(random.random(), numpy.random.rand()) for _ in range({count})]"
    code.write("tools/extra.py", text)
    assert code.reload().left_behind == []
    assert (random.random(), numpy.rand()) not in code.module("tools.extra").MINE


def test_a_seed_of_numpy_is_taken_back(code: Code, numpy: Any) -> None:
    code.reload()
    state = numpy.get_state()
    code.write("tools/extra.py", "import numpy\nnumpy.random.seed(1)\nnumpy.random.rand(1000)")
    assert code.reload().left_behind == ["numpy.random was seeded; it was put back"]
    assert all(str(a) == str(b) for a, b in zip(state, numpy.get_state(), strict=True))


def test_torch_is_put_back(code: Code, torch: Any) -> None:
    code.reload()
    seed, state = torch.initial_seed(), torch.get_rng_state()
    text = """
        import torch
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(3)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = True
        torch.set_grad_enabled(False)
        torch.manual_seed(12345)
        torch.rand(3)
    """
    code.write("tools/extra.py", text)
    code.reload()  # parts of torch that come into the process now do things of their own
    code.write("tools/extra.py", text + "    # Once more.\n")
    assert code.reload().left_behind == [
        "torch's default dtype was changed; it was put back",
        "torch's number of threads was changed; it was put back",
        "torch.use_deterministic_algorithms was changed; it was put back",
        "torch.backends.cudnn.benchmark was changed; it was put back",
        "torch's random generator on cpu was seeded; it was put back",
    ]
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert torch.is_grad_enabled()
    assert torch.initial_seed() == seed and torch.equal(torch.get_rng_state(), state)
    code.write("tools/extra.py", "import torch\ntorch.rand(3)")
    assert code.reload().left_behind == []
    assert not torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("when", ["at the start", "at the end", "within"])
def test_what_building_a_model_does_to_torch_is_let_be(code: Code, torch: Any, gate: Any, when: str) -> None:
    """A model in half precision is built under that default dtype, while somebody reloads."""

    @contextlib.contextmanager
    def building() -> Iterator[None]:
        with building_a_model():
            torch.set_default_dtype(torch.bfloat16)
            try:
                yield
            finally:
                torch.set_default_dtype(torch.float32)

    code.reload()
    with contextlib.ExitStack() as build:
        if when == "at the start":
            build.enter_context(building())
            gate.step = build.close
        else:

            def step() -> None:
                build.enter_context(building())
                if when == "within":
                    build.close()

            gate.step = step
        code.write("tools/extra.py", "import gate_of_the_test as gate\ngate.step()")
        assert code.reload().left_behind == []
        assert torch.get_default_dtype() == (torch.bfloat16 if when == "at the end" else torch.float32)
    assert torch.get_default_dtype() == torch.float32


# Libraries, and others at the same time


@pytest.mark.parametrize(
    "statement",
    [
        "import library_of_the_test",
        "from library_of_the_test import part",
        "import importlib; importlib.import_module('library_of_the_test.part')",
    ],
)
def test_what_a_library_does_when_it_first_comes_stays(
    code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    library = tmp_path / "library_of_the_test"
    library.mkdir()
    (library / "part.py").write_text("")
    (library / "__init__.py").write_text(
        f"import os, sys, warnings\nos.environ['{NAME}'] = 'x'\nsys.path.append('/of/the/library')\n"
        "warnings.filterwarnings('ignore', 'of the library')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(NAME, "")
    code.reload()
    before = list(warnings.filters)
    own = "import os, warnings\nwarnings.filterwarnings('ignore', 'of mine')\nos.environ['MINE'] = 'x'\n"
    code.write("tools/extra.py", own + statement)
    try:
        assert code.reload().left_behind == [
            "warnings.filters was changed; it was put back",
            "os.environ['MINE'] was changed; it was put back",
        ]
        assert os.environ[NAME] == "x" and sys.path[-1] == "/of/the/library"
        assert [one[1].pattern for one in warnings.filters if one not in before and one[1]] == ["of the library"]
    finally:
        for name in ("library_of_the_test", "library_of_the_test.part"):
            sys.modules.pop(name, None)


def test_filters_that_another_thread_lays_over_are_left_to_it(code: Code, gate: Any) -> None:
    code.reload()
    before = warnings.filters
    with contextlib.ExitStack() as others:

        def step() -> None:
            others.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")

        gate.step = step
        text = "import warnings\nwarnings.filterwarnings('ignore', 'of mine')\nimport gate_of_the_test as g\ng.step()"
        code.write("tools/extra.py", text)
        contents = list(before)
        assert code.reload().left_behind == ["warnings.filters was changed; it was put back"]
        assert warnings.filters is not before and warnings.filters[0][0] == "ignore"
        assert list(before) == contents
    assert warnings.filters is before


@pytest.mark.parametrize("first", ["the one that changes", "the other"])
def test_two_loads_at_once_take_nothing_of_each_other_for_how_things_were(code: Code, gate: Any, first: str) -> None:
    """One changes things; the other, which does not, begins and ends while they are changed, or only begins."""
    other = Code(code.root.parent / "other" / "server")
    code.reload()
    other.reload()
    vars(gate).update({name: threading.Event() for name in ("changed", "change_ends", "begun", "other_ends")})
    state, folder, path = random.getstate(), os.getcwd(), list(sys.path)
    text = f"""
        import os, random, sys
        import gate_of_the_test as gate
        os.environ["{NAME}"] = "x"
        random.seed(1)
        sys.path.append("/nowhere")
        os.chdir("/")
        gate.changed.set()
        gate.change_ends.wait(10)
    """
    code.write("tools/extra.py", text)
    other.write("tools/extra.py", "import gate_of_the_test as gate\ngate.begun.set()\ngate.other_ends.wait(10)")
    with ThreadPoolExecutor(2) as pool:
        changing = pool.submit(code.reload)
        assert gate.changed.wait(10)
        begun = pool.submit(other.reload)
        assert gate.begun.wait(10)
        for event, load in [(gate.change_ends, changing), (gate.other_ends, begun)][
            :: 1 if first != "the other" else -1
        ]:
            event.set()
            load.result()
    assert begun.result().left_behind == []
    assert changing.result().left_behind == [
        "the current folder was changed; it was put back",
        "sys.path was changed; it was put back",
        CHANGED,
        "random was seeded; it was put back",
    ]
    assert (random.getstate(), os.getcwd(), list(sys.path)) == (state, folder, path)
    assert NAME not in os.environ
    other.close()
