"""Code in a generation is ordinary Python: every kind of import, and what Python's corners need of a module."""

import dataclasses
import json
import linecache
import logging
import pickle
import sys
import traceback
from pathlib import Path

import pytest

import server.errors
from tests.reload_code import Code, code, tool_file

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
# Those that import the module themselves, and not only its package.
EARLY = [
    (statement, value)
    for statement, value in IMPORTS.items()
    if not value.startswith(("tools.", "sys.")) and statement != "import server"
]
LATE = [(statement, value) for statement, value in IMPORTS.items() if "*" not in statement]


@pytest.mark.parametrize(("statement", "value"), EARLY)
def test_imports_at_the_top_of_a_module_stay_inside_the_generation(code: Code, statement: str, value: str) -> None:
    code.write("tools/rates.py", "RATE = 1")
    code.write("tools/a_user.py", f"{statement}\nVALUE = {value}\n")
    code.reload()
    with code.workspace.pin() as old:
        code.write("tools/rates.py", "RATE = 2")
        code.reload()
        assert code.module("tools.a_user").VALUE == 2
        assert old.module("tools.a_user").VALUE == 1


@pytest.mark.parametrize(("statement", "value"), LATE)
def test_late_imports_stay_inside_the_generation(code: Code, statement: str, value: str) -> None:
    code.write("tools/rates.py", "RATE = 1")
    code.write("tools/user.py", f"def value():\n    {statement}\n    return {value}\n")
    code.reload()
    with code.workspace.pin() as old:
        code.write("tools/rates.py", "RATE = 2")
        code.reload()
        assert code.module("tools.user").value() == 2
        assert old.module("tools.user").value() == 1
        (code.root / "tools/rates.py").unlink()
        code.reload()
        assert old.module("tools.user").value() == 1


def test_every_part_of_a_generation_imports_every_other(code: Code) -> None:
    code.write(
        "model.py",
        "from . import tools\nfrom .agent import NAME\ndef load_model(name): return NAME + tools.NAME",
    )
    code.write(
        "agent/__init__.py",
        "NAME = 'agent'\nfrom server.tools import NAME as OTHER\nclass CustomAgentGuidance: pass",
    )
    code.write(
        "tools/extra.py",
        "import server.agent\nNAME = server.agent.NAME\ndef late():\n    return server.model",
    )
    tools = (code.root / "tools/__init__.py").read_text()
    code.write("tools/__init__.py", tools + "\nNAME = 'tools'\n")
    code.reload()
    assert code.workspace.live is not None
    assert code.workspace.live.module("model").load_model("x") == "agenttools"
    assert code.module("agent").OTHER == "tools"
    assert code.module("tools.extra").NAME == "agent"
    assert code.module("tools.extra").late() is code.module("model")


@pytest.mark.parametrize(
    "text",
    [
        "from server.errors import HearthError as Base",
        "from ..errors import HearthError as Base",
        "from .. import errors\nBase = errors.HearthError",
        "from server import errors\nBase = errors.HearthError",
        "import server.errors\nBase = server.errors.HearthError",
        "import server.errors as e\nBase = e.HearthError",
        "import server.tools.rates\nimport server.errors\nBase = server.errors.HearthError\nserver.tools.rates",
        "import importlib\nBase = importlib.import_module('server.errors').HearthError",
        "import importlib\nBase = importlib.import_module('...errors', __name__).HearthError",
    ],
)
def test_persistent_code_is_the_real_one(code: Code, text: str) -> None:
    code.write("tools/rates.py", "RATE = 1")
    code.write("tools/extra.py", text)
    code.reload()
    assert code.module("tools.extra").Base is server.errors.HearthError
    assert sys.modules["server.errors"] is server.errors
    assert sys.modules["server.errors"].__spec__ is server.errors.__spec__


def test_a_constant_imported_through_three_modules_is_never_stale(code: Code) -> None:
    code.write("tools/c.py", "__all__ = ['ONE']\nONE = 1\nTWO = 1")
    code.write("tools/b.py", "from .c import *")
    code.write("tools/a.py", "from server.tools.b import ONE\nfrom server.tools import b\nNAMES = sorted(vars(b))")
    code.reload()
    code.write("tools/c.py", "__all__ = ['ONE', 'TWO']\nONE = 2\nTWO = 2")
    code.reload()
    assert code.module("tools.a").ONE == 2
    assert "TWO" in code.module("tools.a").NAMES


def test_a_circle_of_imports_that_works(code: Code) -> None:
    code.write("tools/a.py", "from server.tools import b\nA = 1\ndef sum():\n    return A + b.B")
    code.write("tools/b.py", "from . import a\nB = 2\ndef sum():\n    return a.A + B")
    code.reload()
    assert code.module("tools.a").sum() == code.module("tools.b").sum() == 3


def test_a_tool_file_may_have_the_name_of_another_module(code: Code) -> None:
    for name in ("json", "torch", "errors", "server", "tools", "logging"):
        code.write(f"tools/{name}.py", "import json as real\n" + tool_file(name, name))
    code.write(
        "tools/user.py",
        "from . import json as ours\nimport json as real\nfrom server.tools import server, tools",
    )
    code.reload()
    assert code.ask("json") == "json" and code.ask("torch") == "torch"
    user = code.module("tools.user")
    assert user.real is json
    assert user.ours is code.module("tools.json")
    assert user.ours.real is json
    assert user.server is code.module("tools.server")


def test_a_module_becomes_a_package_and_back(code: Code) -> None:
    code.write("tools/rates.py", "RATE = 1")
    code.write("tools/user.py", "from .rates import RATE")
    code.reload()
    (code.root / "tools/rates.py").rename(code.root / "tools/_rates.py")
    code.write("tools/rates/__init__.py", "from .inner import RATE")
    code.write("tools/rates/inner.py", "RATE = 2")
    report = code.reload()
    assert report.changed == ["tools._rates", "tools.rates", "tools.rates.inner"]
    assert code.module("tools.user").RATE == 2

    code.write("tools/rates.py", "RATE = 3")
    twice, inner = code.refused()
    assert twice["file"] == "server/tools/rates/__init__.py" or twice["file"] == "server/tools/rates.py"
    assert "Remove one of them" in twice["message"] and inner["file"] == "server/tools/rates/inner.py"
    assert code.module("tools.user").RATE == 2

    for name in ("__init__", "inner"):
        (code.root / f"tools/rates/{name}.py").unlink()
    code.reload()
    assert code.module("tools.user").RATE == 3


def test_a_folder_needs_no_init_file(code: Code) -> None:
    code.write("tools/shared/inner.py", "from ..rates import RATE")
    code.write("tools/rates.py", "RATE = 1")
    code.write(
        "tools/user.py",
        "import pkgutil\nfrom server.tools import shared\nfrom .shared.inner import RATE\n"
        "NAMES = [found.name for found in pkgutil.walk_packages(shared.__path__, shared.__name__ + '.')]",
    )
    code.reload()
    assert code.module("tools.user").RATE == 1
    assert [name.rpartition(".")[2] for name in code.module("tools.user").NAMES] == ["inner"]
    code.write("tools/shared/__init__.py", "RATE = 2")
    code.reload()
    assert code.module("tools.user").shared.RATE == 2


CORNERS = '''
    from __future__ import annotations

    import abc
    import enum
    import functools
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
        return Colour(1) is Colour.RED


    assert check()
'''


def test_pythons_corners_work(code: Code) -> None:
    code.write("tools/corners.py", CORNERS)
    code.write(
        "tools/user.py",
        "from server.tools.corners import Colour, OwnError, Point, Node\n"
        "def same(thing):\n    return isinstance(thing, (Point, Node))\n"
        "def fail():\n    raise OwnError",
    )
    code.reload()
    corners, user = code.module("tools.corners"), code.module("tools.user")
    assert corners.check()
    assert user.same(corners.Point(1)) and user.same(corners.Node(value=1))
    with pytest.raises(corners.OwnError):
        user.fail()
    live = code.workspace.live
    assert live is not None and live.tools is not None
    assert live.tools["shout"].invoke({"text": "a", "point": {"name": "x"}}) == "A"

    with code.workspace.pin() as old:
        code.write("tools/corners.py", "\n" + CORNERS)
        code.reload()
        new = code.module("tools.corners")
        assert new.check() and corners.check()
        assert not isinstance(corners.Point(1), new.Point)
        assert old.module("tools.corners") is corners
        for module in (corners, new):
            thing = [module.Point(1, ["a"]), module.Colour.RED, module.Node(value=3), module.check]
            copy = pickle.loads(pickle.dumps(thing))
            assert copy == thing and type(copy[0]) is module.Point


def test_guidance_functions_work(code: Code) -> None:
    code.write(
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
    code.reload()
    assert code.workspace.live is not None
    assert "'\\n    x\\n    y\\n'" in repr(code.workspace.live.agents["react"].grammar)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("head", "coding"), [("", "utf-8"), ("\ufeff", "utf-8"), ("# -*- coding: latin-1 -*-\n", "latin-1")]
)
def test_codings_byte_order_marks_and_line_ends(code: Code, newline: str, head: str, coding: str) -> None:
    text = (
        head
        + "import inspect\nPAGE = '\f\u00e9'\ndef name():\n    return '\u00e9'\nSOURCE = inspect.getsource(name)\n"
    )
    code.write("tools/extra.py", text.replace("\n", newline).encode(coding))
    code.reload()
    assert code.module("tools.extra").name() == "\u00e9"
    assert code.module("tools.extra").SOURCE == "def name():\n    return '\u00e9'\n"


def test_source_is_found_and_is_that_of_the_generation(code: Code) -> None:
    text = """
        import inspect
        class Thing:
            def method(self):
                return {0}
        def frame():
            return inspect.getsource(inspect.currentframe())
        EARLY = inspect.getsource(Thing), inspect.getsource(Thing.method)
        def late():
            return inspect.getsource(Thing.method)
    """
    code.write("tools/extra.py", text.format(1))
    code.reload()
    extra = code.module("tools.extra")
    assert "return 1" in extra.EARLY[0] and "return 1" in extra.EARLY[1]
    with code.workspace.pin():
        code.write("tools/extra.py", text.format(2))
        assert "return 1" in extra.late()
        code.reload()
        assert "return 1" in extra.late()
        assert "return 2" in code.module("tools.extra").late()
        assert "return 2" in code.module("tools.extra").EARLY[0]
        linecache.clearcache()
        assert "return 1" in extra.late()
        linecache.checkcache()
        assert "def frame" in extra.frame()


def test_a_traceback_of_an_old_generation_shows_the_lines_that_ran(code: Code) -> None:
    code.write("tools/extra.py", "def fail():\n    raise ValueError('old')  # the old line\n")
    code.reload()
    with code.workspace.pin() as old:
        code.write("tools/extra.py", "# something\n# else\n")
        code.reload()
        with pytest.raises(ValueError) as caught:
            old.module("tools.extra").fail()
    # Also once the generation has ended.
    assert "raise ValueError('old')  # the old line" in "".join(traceback.format_exception(caught.value))


def test_files_beside_the_code_are_found(code: Code) -> None:
    code.write("tools/words.txt", "a b")
    code.write(
        "tools/extra.py",
        "from pathlib import Path\nWORDS = Path(__file__).with_name('words.txt').read_text()\n"
        "import server\nROOT = Path(server.__file__).parent",
    )
    code.reload()
    assert code.module("tools.extra").WORDS == "a b"
    assert code.root == code.module("tools.extra").ROOT
    assert Path(code.module("tools").__file__) == code.root / "tools/__init__.py"


def test_no_compiled_file_is_written_and_none_is_read(code: Code) -> None:
    assert not sys.dont_write_bytecode
    code.reload()
    for number in range(2, 22):
        code.write("tools/calculator.py", tool_file(number % 10))
        code.reload()
        assert code.ask() == str(number % 10)
    assert not list(code.root.rglob("__pycache__"))
    assert not list(code.root.rglob("*.pyc"))


def test_code_of_an_ended_generation_says_so(code: Code) -> None:
    code.write("tools/extra.py", "def late():\n    from server.tools import calculator\n    return calculator")
    code.reload()
    late = code.module("tools.extra").late
    assert late() is code.module("tools.calculator")
    code.write("tools/calculator.py", tool_file(2))
    code.reload()
    with pytest.raises(ImportError, match=r"server.tools can't be imported: the generation .* has ended"):
        late()


def test_a_module_may_log_under_its_name(code: Code, caplog: pytest.LogCaptureFixture) -> None:
    code.write("tools/extra.py", "import logging\nlogging.getLogger(__name__).error('hello')")
    with caplog.at_level(logging.ERROR):
        code.reload()
    assert caplog.messages == ["hello"]


RECORDS = """
    from dataclasses import dataclass, field

    UNIT = "{unit}"

    def parts():
        return ["{unit}"]

    @dataclass(order=True, frozen=True)
    class Length:
        number: int
        unit: str = UNIT
        parts: list = field(default_factory=parts, compare=False)
"""


def test_dataclasses_that_are_written_alike_are_their_own(code: Code) -> None:
    for file, unit in (("one", "m"), ("two", "ft")):
        code.write(f"tools/{file}.py", RECORDS.format(unit=unit))
    code.reload()
    one, two = (code.module(f"tools.{file}").Length for file in ("one", "two"))
    code.write("tools/one.py", RECORDS.format(unit="km"))
    code.reload()
    anew = code.module("tools.one").Length
    assert [(kind(3).unit, kind(3).parts) for kind in (one, two, anew)] == [
        ("m", ["m"]),
        ("ft", ["ft"]),
        ("km", ["km"]),
    ]
    assert repr(anew(3)) == "Length(number=3, unit='km', parts=['km'])" and anew(3) < anew(4)
    assert anew(3) != one(3, "km") and len({anew(3), anew(3), anew(4)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        anew(3).unit = "m"
    assert [kind.__init__.__globals__["UNIT"] for kind in (one, two, anew)] == ["m", "ft", "km"]
    assert anew.__eq__.__code__ is two.__eq__.__code__  # what a reload is spared
