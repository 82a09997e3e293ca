"""Code in a generation is ordinary Python: every kind of import, and what Python's corners need of a module."""

import shutil
from pathlib import Path

import pytest

from server.errors import AgentFailedError
from server.sdk import ToolFailedError
from tests.support.reload_code import LOOK, Code, code, tool_file, wait_until

__all__ = ["code"]  # a fixture

IMPORTS = {
    "from server.tools.rates import RATE": "RATE",
    "from server.tools import rates": "rates.RATE",
    "import server.tools.rates": "server.tools.rates.RATE",
    "import server.tools.rates as r": "r.RATE",
    "from .rates import RATE": "RATE",
    "from . import rates": "rates.RATE",
    "from .. import tools": "tools.rates.RATE",
    "from ..tools.rates import RATE": "RATE",
    "from server import tools": "tools.rates.RATE",
    "import server": "server.tools.rates.RATE",
    "from server.tools.rates import *": "RATE",
    "import importlib": "importlib.import_module('server.tools.rates').RATE",
    "import importlib as i": "i.import_module('.rates', __package__).RATE",
    "import importlib.util": "importlib.import_module('..tools.rates', __package__).RATE",
    "from importlib import import_module": "import_module('server.tools.rates').RATE",
    "import json": "__import__('server.tools.rates', fromlist=['RATE']).RATE",
    "import sys": "sys.modules[__package__ + '.rates'].RATE",
}


@pytest.fixture
def seen(code: Code) -> Code:
    """Code with a tool that looks into the modules."""
    code.write("tools/look.py", LOOK)
    return code


def test_every_import_is_of_its_generation(seen: Code) -> None:
    """At the top of a module and late, in a function; before and after the swap, and once the file is gone."""
    seen.write("tools/rates.py", "RATE = 1")
    for number, (statement, value) in enumerate(IMPORTS.items()):
        early = statement != "import server" and not value.startswith(("tools.", "sys."))
        seen.write(f"tools/early{number}.py", f"{statement}\nVALUE = {value}\n" if early else "VALUE = None")
        late = "" if "*" in statement else f"    {statement}\n    return {value}\n"
        seen.write(f"tools/late{number}.py", f"def value():\n{late or '    return None'}\n")
    calls = [f"__import__('server.tools.early{n}', fromlist='x').VALUE" for n in range(len(IMPORTS))]
    calls += [f"__import__('server.tools.late{n}', fromlist='x').value()" for n in range(len(IMPORTS))]
    every = f"{{{', '.join(calls)}}}"
    seen.reload()
    with seen.workspace.pin() as old:
        seen.write("tools/rates.py", "RATE = 2")
        seen.reload()
        assert seen.look("tools", every) == {None, 2}
        for number in range(len(IMPORTS)):
            (seen.root / f"tools/early{number}.py").unlink()
        (seen.root / "tools/rates.py").unlink()
        seen.reload()
        assert seen.look("tools", every, old) == {None, 1}


def test_every_part_of_a_generation_imports_every_other(seen: Code) -> None:
    seen.write(
        "model.py",
        "from . import tools\nfrom .agent import NAME\ndef load_model(name): return NAME + tools.NAME",
    )
    seen.write(
        "agent/__init__.py",
        "NAME = 'agent'\nfrom server.tools import NAME as OTHER\nclass CustomAgentGuidance: pass",
    )
    seen.write(
        "tools/extra.py",
        "import server.agent\nNAME = server.agent.NAME\ndef late():\n    return server.model",
    )
    tools = (seen.root / "tools/__init__.py").read_text()
    seen.write("tools/__init__.py", tools + "\nNAME = 'tools'\n")
    seen.reload()
    assert seen.look("model", "load_model('x')") == "agenttools"
    assert seen.look("agent", "OTHER") == "tools"
    assert seen.look("tools.extra", "(NAME, late() is __import__('sys').modules['server.model'])") == ("agent", True)


def test_a_constant_imported_through_three_modules_is_never_stale(seen: Code) -> None:
    seen.write("tools/c.py", "__all__ = ['ONE']\nONE = 1\nTWO = 1")
    seen.write("tools/b.py", "from .c import *")
    seen.write("tools/a.py", "from server.tools.b import ONE\nfrom server.tools import b\nNAMES = sorted(vars(b))")
    seen.reload()
    assert seen.look("tools.a", "(ONE, 'TWO' in NAMES)") == (1, False)
    seen.write("tools/c.py", "__all__ = ['ONE', 'TWO']\nONE = 2\nTWO = 2")
    seen.reload()
    assert seen.look("tools.a", "(ONE, 'TWO' in NAMES)") == (2, True)


def test_a_circle_of_imports_that_works(seen: Code) -> None:
    seen.write("tools/a.py", "from server.tools import b\nA = 1\ndef sum():\n    return A + b.B")
    seen.write("tools/b.py", "from . import a\nB = 2\ndef sum():\n    return a.A + B")
    seen.reload()
    assert seen.look("tools.a", "(sum(), b.sum())") == (3, 3)


def test_a_tool_file_may_have_the_name_of_another_module(seen: Code) -> None:
    for name in ("json", "torch", "errors", "server", "tools", "logging"):
        seen.write(f"tools/{name}.py", "import json as real\n" + tool_file(name, name))
    seen.write(
        "tools/user.py",
        "from . import json as ours\nimport json as real\nfrom server.tools import server, tools\n"
        "from server.errors import HearthError",
    )
    seen.reload()
    assert seen.ask("json") == "json" and seen.ask("torch") == "torch"
    names = "[one.__name__ for one in (real, ours, ours.real, server, tools)]"
    assert seen.look("tools.user", names) == [
        "json", "server.tools.json", "json", "server.tools.server", "server.tools.tools",
    ]  # fmt: skip


def test_a_module_becomes_a_package_and_back(seen: Code) -> None:
    seen.write("tools/rates.py", "RATE = 1")
    seen.write("tools/user.py", "from .rates import RATE")
    seen.reload()
    (seen.root / "tools/rates.py").rename(seen.root / "tools/_rates.py")
    seen.write("tools/rates/__init__.py", "from .inner import RATE")
    seen.write("tools/rates/inner.py", "RATE = 2")
    report = seen.reload()
    assert report.changed == ["tools._rates", "tools.rates", "tools.rates.inner"]
    assert seen.look("tools.user", "RATE") == 2

    seen.write("tools/rates.py", "RATE = 3")
    twice, inner = seen.refused()
    assert twice["file"] == "server/tools/rates/__init__.py" or twice["file"] == "server/tools/rates.py"
    assert "Remove one of them" in twice["message"] and inner["file"] == "server/tools/rates/inner.py"
    assert seen.look("tools.user", "RATE") == 2

    for name in ("__init__", "inner"):
        (seen.root / f"tools/rates/{name}.py").unlink()
    seen.reload()
    assert seen.look("tools.user", "RATE") == 3


def test_a_folder_needs_no_init_file(seen: Code) -> None:
    seen.write("tools/shared/inner.py", "from ..rates import RATE")
    seen.write("tools/rates.py", "RATE = 1")
    seen.write(
        "tools/user.py",
        "import pkgutil\nfrom server.tools import shared\nfrom .shared.inner import RATE\n"
        "NAMES = [found.name for found in pkgutil.walk_packages(shared.__path__, shared.__name__ + '.')]",
    )
    seen.reload()
    assert seen.look("tools.user", "(RATE, NAMES)") == (1, ["server.tools.shared.inner"])
    init = seen.write("tools/shared/__init__.py", "RATE = 2")
    assert seen.reload().changed == ["tools.shared"]
    assert seen.look("tools.user", "shared.RATE") == 2
    init.unlink()
    seen.reload()
    assert seen.look("tools.user", "hasattr(shared, 'RATE')") is False


CORNERS = '''
    from __future__ import annotations

    import abc
    import enum
    import pickle
    from dataclasses import dataclass, field, replace
    from typing import ClassVar, NamedTuple, get_type_hints

    from langchain_core.tools import tool
    from pydantic import BaseModel


    class Colour(enum.Enum):
        RED = 1


    @dataclass(slots=True)
    class Point:
        x: int
        tags: list[str] = field(default_factory=list)
        kind: ClassVar[str] = "point"


    class Pair(NamedTuple):
        first: Point
        second: int


    class Node(BaseModel):
        value: int
        next: Node | None = None
        leaf: Leaf | None = None


    class Leaf(BaseModel):
        name: str


    class OwnError(Exception):
        pass


    class Meta(abc.ABCMeta):
        def __new__(cls, *args):
            made = super().__new__(cls, *args)
            made.made_by = cls.__name__
            return made


    class Base(metaclass=Meta):
        __slots__ = ("x",)

        def __init__(self):
            self.x = 1


    class Derived(Base):
        __slots__ = ()

        def __init__(self):
            super().__init__()
            self.x += 1


    @tool
    def shout(text: str, point: Leaf | None = None) -> str:
        """Say it loud."""
        return text.upper()


    def check():
        assert Point(1) == replace(Point(2), x=1)
        assert get_type_hints(Point)["tags"] == list[str]
        assert get_type_hints(Pair)["first"] is Point
        assert Node(value=1, next=Node(value=2, leaf={"name": "l"})).next.leaf.name == "l"
        assert Derived().x == 2 and Derived.made_by == "Meta"
        try:
            raise OwnError("own")
        except OwnError:
            pass
        thing = [Point(1, ["a"]), Colour.RED, Node(value=3), check]
        assert pickle.loads(pickle.dumps(thing)) == thing
        return Colour(1) is Colour.RED


    assert check()
'''


def test_pythons_corners_work(seen: Code) -> None:
    seen.write("tools/corners.py", CORNERS)
    seen.write(
        "tools/user.py",
        """
        from server.tools import corners
        from server.tools.corners import Colour, OwnError, Point, Node

        def same():
            try:
                raise corners.OwnError
            except OwnError:
                return isinstance(corners.Point(1), Point) and isinstance(corners.Node(value=1), Node)
        """,
    )
    for text in (CORNERS, "\n" + CORNERS):
        seen.write("tools/corners.py", text)
        seen.reload()
        assert seen.look("tools.user", "corners.check() and same()") is True
        assert seen.ask("shout", text="a", point={"name": "x"}) == "A"


def test_guidance_functions_work(seen: Code) -> None:
    seen.write(
        "agent/__init__.py",
        """
        import guidance

        @guidance(stateless=True)
        def pair(lm, left, right):
            both = f'''
                {left}
                {right}
            '''
            return lm + both + guidance.select(["a", "b"])

        class CustomAgentGuidance:
            grammar = pair("x", "y")
    """,
    )
    seen.reload()
    assert "'\\n    x\\n    y\\n'" in seen.look("agent", "repr(CustomAgentGuidance.grammar)")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("head", "coding"), [("", "utf-8"), ("\ufeff", "utf-8"), ("# -*- coding: latin-1 -*-\n", "latin-1")]
)
def test_codings_byte_order_marks_and_line_ends(seen: Code, newline: str, head: str, coding: str) -> None:
    text = (
        head
        + "import inspect\nPAGE = '\f\u00e9'\ndef name():\n    return '\u00e9'\nSOURCE = inspect.getsource(name)\n"
    )
    seen.write("tools/extra.py", text.replace("\n", newline).encode(coding))
    seen.reload()
    assert seen.look("tools.extra", "name()") == "\u00e9"
    assert seen.look("tools.extra", "SOURCE") == "def name():\n    return '\u00e9'\n"


def test_modules_have_their_ordinary_names_and_real_files(seen: Code) -> None:
    seen.reload()
    names = "(calculator.func.__module__, __name__, __package__, __spec__.name, __spec__.origin == __file__)"
    assert seen.look("tools.calculator", names) == (
        "server.tools.calculator", "server.tools.calculator", "server.tools", "server.tools.calculator", True,
    )  # fmt: skip
    file = Path(seen.look("tools.calculator", "__file__"))
    live = seen.workspace.live
    assert live is not None and file == live.folder / "server/tools/calculator.py"
    assert file.read_bytes() == (seen.root / "tools/calculator.py").read_bytes()
    assert file.stat().st_mode & 0o222 == 0, "nobody edits it by mistake"


def test_source_is_found_and_is_that_of_the_generation(seen: Code) -> None:
    text = """
        import inspect, linecache
        class Thing:
            def method(self):
                return {0}
        EARLY = inspect.getsource(Thing), inspect.getsource(Thing.method)
        def late():
            linecache.clearcache()
            return inspect.getsource(Thing.method), inspect.getsource(inspect.currentframe())
        FILES = inspect.getfile(Thing) == inspect.getsourcefile(late) == __file__
    """
    seen.write("tools/extra.py", text.format(1))
    seen.reload()
    assert seen.look("tools.extra", "FILES and all('return 1' in one for one in EARLY)")
    with seen.workspace.pin() as old:
        seen.write("tools/extra.py", text.format(2))
        assert "return 1" in seen.look("tools.extra", "late()[0]")
        seen.reload()
        assert (
            "return 2" in seen.look("tools.extra", "late()[0]") and "return 2" in seen.look("tools.extra", "EARLY")[0]
        )
        source, own = seen.look("tools.extra", "late()", old)
        assert "return 1" in source and own.startswith("def late")


def test_a_traceback_of_an_old_generation_shows_the_lines_that_ran(seen: Code) -> None:
    seen.write(
        "tools/extra.py",
        """
        import traceback
        def fail():
            try:
                raise ValueError('old')  # the old line
            except ValueError:
                return traceback.format_exc()
        """,
    )
    seen.reload()
    with seen.workspace.pin() as old:
        seen.write("tools/extra.py", "# something\n# else\n")
        seen.reload()
        shown = seen.look("tools.extra", "fail()", old)
    assert "raise ValueError('old')  # the old line" in shown and 'server/tools/extra.py", line 5, in fail' in shown


def test_an_error_of_a_call_names_the_file_as_people_know_it(seen: Code) -> None:
    seen.reload()
    with pytest.raises(ToolFailedError, match=r"^ModuleNotFoundError: No module named 'server.nothing'"):
        seen.look("nothing", "1")
    with seen.workspace.pin() as live, pytest.raises(AgentFailedError) as failure:
        live.call_tool("gone", {}, 60)
    assert failure.value.details["exception"] == "KeyError"


def test_a_library_beside_the_code_that_is_compiled(seen: Code) -> None:
    """A damaged one is an error with its place; it is mended without a restart of anything."""
    compiled = pytest.importorskip("markupsafe._speedups").__file__
    place = seen.root / "tools" / Path(compiled).name
    place.write_bytes(b"\x7fELF")
    seen.write("tools/uses.py", "from server.tools import _speedups")
    [error] = seen.refused()
    assert error["type"] == "ImportError" and (error["file"], error["line"]) == ("server/tools/uses.py", 1)
    shutil.copyfile(compiled, place)
    seen.reload()
    assert seen.look("tools.uses", "(_speedups.__name__, _speedups.__file__.endswith('.so'))") == (
        "server.tools._speedups", True,
    )  # fmt: skip


def test_a_rename_that_changes_only_case(code: Code) -> None:
    code.reload()
    (code.root / "tools/calculator.py").rename(code.root / "tools/Calculator.py")
    assert code.reload().changed == ["tools.Calculator", "tools.calculator"]
    assert code.ask() == "1"


def test_a_symbolic_link_that_leads_elsewhere_now(code: Code) -> None:
    for number in (1, 2):
        code.write(f"tools/versions/v{number}.py", tool_file(number))
    link = code.root / "tools/calculator.py"
    link.unlink()
    link.symlink_to("versions/v1.py")
    code.reload()
    link.unlink()
    link.symlink_to("versions/v2.py")
    assert code.reload().changed == ["tools.calculator"]
    assert code.ask() == "2"


def test_what_code_prints_and_logs_is_in_the_log(code: Code, caplog: pytest.LogCaptureFixture) -> None:
    code.write("tools/extra.py", "import logging, os\nprint('[]')\nos.write(1, b'{}\\n')\nlogging.error('hello')")
    with caplog.at_level("INFO"):
        label = f"[main {code.reload().generation}]"
        lines = [f"{label} []", f"{label} {{}}", f"{label} ERROR:root:hello"]
        wait_until(lambda: set(lines) <= set(caplog.messages), "the lines")
