"""Where Python or a library can't keep the promise, the answer says so; and what works in the corners."""

import importlib.machinery
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reload_code import Code, code, tool_file
from tests.server_process import REPOSITORY

__all__ = ["code"]  # a fixture


@pytest.mark.parametrize("statement", ["from . import fast", "from .fast import add", "import server.tools.fast"])
def test_a_c_extension_beside_the_code_is_told(code: Code, statement: str) -> None:
    code.reload()
    (code.root / "tools" / f"fast{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF")
    code.write("tools/uses.py", statement)
    [error] = code.refused()
    assert error["type"] == "ImportError" and (error["file"], error["line"]) == ("server/tools/uses.py", 1)
    assert "restarted" in error["message"]


OPERATOR = """
    import torch

    VERSION = {version}

    @torch.library.custom_op("lab_test::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * {version}
"""


def test_a_torch_operator_that_is_registered_twice(code: Code) -> None:
    # torch itself takes the newer one; whatever it does, it is no end of the server.
    import torch

    code.write("tools/operator_.py", OPERATOR.format(version=2))
    code.reload()
    assert float(code.module("tools.operator_").double(torch.ones(()))) == 2
    code.write("tools/operator_.py", OPERATOR.format(version=3))
    code.reload()
    assert float(code.module("tools.operator_").double(torch.ones(()))) == 3
    assert code.ask() == "1"


LIBRARY = """
    import torch

    LIBRARY = torch.library.Library("lab_test_{name}", "DEF")
    LIBRARY.define("triple(Tensor x) -> Tensor")
    {more}
"""


def test_a_torch_library_that_is_defined_twice_is_an_error_and_the_old_code_stays(code: Code) -> None:
    code.write("tools/library.py", LIBRARY.format(name="twice", more="VERSION = 1"))
    code.reload()
    code.write("tools/library.py", LIBRARY.format(name="twice", more="VERSION = 2"))
    [error] = code.refused()
    assert error["type"] == "RuntimeError" and error["file"] == "server/tools/library.py"
    assert "lab_test_twice" in error["message"]
    assert code.module("tools.library").VERSION == 1


PROCESSES = """
    import multiprocessing
    import pickle
    from concurrent.futures import ProcessPoolExecutor

    from langchain_core.tools import tool

    def square(number):
        return number * number

    @tool
    def calculator(expression: str) -> str:
        "Work something out."
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("{method}")) as pool:
            return str(pool.submit({function}, 7).result(60))
"""


def ask_in_a_process(tmp_path: Path, method: str, function: str) -> str:
    """What the tool says, or its error, in a process of its own: one that forks must have no threads of a model."""
    code = Code(tmp_path / "server")
    code.write("tools/calculator.py", PROCESSES.format(method=method, function=function))
    code.database.close()
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(REPOSITORY)!r})

if __name__ == "__main__":
    import server.engine.engine
    from langchain_core.language_models.fake_chat_models import FakeListChatModel
    from server.reload import Workspace
    from server.store import Database, GenerationStore

    root = Path({str(tmp_path)!r})
    space = Workspace("main", root / "server", GenerationStore(Database(root / "data")), 20)
    space.reload(FakeListChatModel(responses=["fine"]))
    with space.pin() as generation:
        try:
            print("gave", generation.tools["calculator"].invoke({{"expression": "?"}}))
        except Exception as error:
            print("raised", type(error).__name__, error)
"""
    file = tmp_path / "script.py"
    file.write_text(script)
    ended = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_a_forked_process_has_the_generation(tmp_path: Path) -> None:
    assert ask_in_a_process(tmp_path, "fork", "square") == "gave 49"


def test_a_spawned_process_does_what_is_no_part_of_the_generation(tmp_path: Path) -> None:
    assert ask_in_a_process(tmp_path, "spawn", "abs") == "gave 7"


def test_a_spawned_process_lacks_the_generation_which_is_an_error_and_no_hang(tmp_path: Path) -> None:
    assert ask_in_a_process(tmp_path, "spawn", "square").startswith("raised BrokenProcessPool")


@pytest.mark.parametrize("path", ["tools/Calculator.py", "tools/CALCULATOR.py"])
def test_a_rename_that_changes_only_case(code: Code, path: str) -> None:
    code.reload()
    (code.root / "tools/calculator.py").rename(code.root / path)
    report = code.reload()
    assert report.changed == sorted(["tools.calculator", path.removesuffix(".py").replace("/", ".")])
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


def test_an_init_file_is_added_and_removed(code: Code) -> None:
    code.write("tools/deep/value.py", "VALUE = 1")
    code.write("tools/calculator.py", "from .deep.value import VALUE\n" + tool_file("one"))
    code.reload()
    init = code.write("tools/deep/__init__.py", "HERE = 1")
    assert code.reload().changed == ["tools.deep"]
    assert code.module("tools.deep").HERE == 1
    init.unlink()
    code.reload()
    assert not hasattr(code.module("tools.deep"), "HERE") and code.ask() == "one"


def test_a_debugger_and_coverage_find_the_lines(code: Code, tmp_path: Path) -> None:
    import bdb
    import linecache

    code.write("tools/traced.py", "def f():\n    x = 1\n    return x\n")
    code.reload()
    f = code.module("tools.traced").f
    seen: list[str] = []

    class Tracer(bdb.Bdb):
        def user_line(self, frame: object) -> None:
            file, line = frame.f_code.co_filename, frame.f_lineno  # type: ignore[attr-defined]
            seen.append(linecache.getline(file, line).strip())

    Tracer().runcall(f)
    assert seen == ["x = 1", "return x"]
