"""Libraries that want ordinary modules, real files and a process of their own: they work, over edits too."""

import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.reload_code import LOOK, Code, code

__all__ = ["code"]  # a fixture


def edit_another_file(code: Code, number: int) -> None:
    """Reload with a change that concerns nobody."""
    code.write("tools/other.py", f"NUMBER = {number}")
    report = code.reload()
    assert report.changed == ["tools.other"] and report.previous != report.generation


PICKLES = """
    import pickle
    from dataclasses import dataclass
    from pathlib import Path

    FILE = Path({file!r})

    @dataclass
    class Point:
        x: int

        def double(self):
            return 2 * self.x

    def save():
        FILE.write_bytes(pickle.dumps([Point(1), Point.double, save]))

    def load():
        point, double, saver = pickle.loads(FILE.read_bytes())
        return isinstance(point, Point) and double(point) == 2 and saver is save
"""


def test_objects_that_were_pickled_before_an_edit_are_read_after_it(code: Code, tmp_path: Path) -> None:
    code.write("tools/look.py", LOOK)
    text = PICKLES.format(file=str(tmp_path / "points"))
    code.write("tools/points.py", text)
    code.reload()
    code.look("tools.points", "save()")
    edit_another_file(code, 1)
    assert code.look("tools.points", "load()") is True
    code.write("tools/points.py", "# An edit that leaves the class as it was.\n" + textwrap.dedent(text))
    code.reload()
    assert code.look("tools.points", "load()") is True


COUNTS = """
    import joblib
    from pathlib import Path

    CALLS = Path({folder!r}) / "calls"
    memory = joblib.Memory({folder!r}, verbose=0)

    @memory.cache
    def square(number):
        with CALLS.open("a") as file:
            file.write("x")
        return number * number
"""


def test_joblib_remembers_over_edits_of_other_files(code: Code, tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    code.write("tools/look.py", LOOK)
    code.write("tools/squares.py", COUNTS.format(folder=str(tmp_path)))
    code.reload()
    for number in range(3):
        assert code.look("tools.squares", "square(7)") == 49
        edit_another_file(code, number)
    assert (tmp_path / "calls").read_text() == "x"
    code.write("tools/squares.py", COUNTS.format(folder=str(tmp_path)).replace("number * number", "number ** 2 + 1"))
    code.reload()
    assert code.look("tools.squares", "square(7)") == 50, "an edit of the function itself counts"


COMPILED = """
    import numba

    @numba.njit(cache=True)
    def total(numbers):
        sum = 0.0
        for number in numbers:
            sum += {expression}
        return sum

    def said():
        import numpy
        value = total(numpy.arange(4.0))
        return value, sum(total.stats.cache_hits.values()), sum(total.stats.cache_misses.values())
"""


def test_numba_caches_what_it_compiles(code: Code) -> None:
    pytest.importorskip("numba")
    code.write("tools/look.py", LOOK)
    code.write("tools/totals.py", COMPILED.format(expression="number"))
    code.reload()
    assert code.look("tools.totals", "said()") == (6.0, 0, 1)
    edit_another_file(code, 1)
    assert code.look("tools.totals", "said()") == (6.0, 1, 0)
    code.write("tools/totals.py", COMPILED.format(expression="2 * number"))
    code.reload()
    assert code.look("tools.totals", "said()") == (12.0, 0, 1)


def test_data_beside_the_code_is_found_each_way(code: Code) -> None:
    code.write("tools/look.py", LOOK)
    code.write("tools/data/words.txt", "one")
    code.write("tools/data/__init__.py", "")
    text = """
        import importlib.resources, pkgutil
        from pathlib import Path
        import server

        def words():
            return [
                importlib.resources.files(__package__).joinpath("data/words.txt").read_text(),
                importlib.resources.files("server.tools.data").joinpath("words.txt").read_text(),
                pkgutil.get_data(__package__, "data/words.txt").decode(),
                pkgutil.get_data("server.tools.data", "words.txt").decode(),
                (Path(__file__).parent / "data" / "words.txt").read_text(),
                __loader__.get_data(str(Path(__file__).parent / "data/words.txt")).decode(),
            ]
    """
    code.write("tools/reader.py", text)
    code.reload()
    with code.workspace.pin() as old:
        code.write("tools/data/words.txt", "two")
        assert code.reload().changed == ["tools/data/words.txt"]
        assert set(code.look("tools.reader", "words()")) == {"two"}
        assert set(code.look("tools.reader", "words()", old)) == {"one"}, "data is of its generation"


PROCESSES = """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    BASE = {base}

    def power(number):
        return number ** BASE, __name__

    def pool(method):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(2, mp_context=context) as executor, context.Pool(1) as other:
            return [executor.submit(power, 7).result(60), *other.map(power, [2])]
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_processes_run_functions_of_the_generation(code: Code, method: str) -> None:
    code.write("tools/look.py", LOOK)
    for base in (2, 3):
        code.write("tools/powers.py", PROCESSES.format(base=base))
        code.reload()
        found = code.look("tools.powers", f"pool({method!r})")
        assert found == [(7**base, "server.tools.powers"), (2**base, "server.tools.powers")]


DEBUGGED = """
    import io, pdb, sys

    def fail(number):
        part = number - 1
        return 1 / part  # what fails

    def post_mortem():
        text = io.StringIO()
        try:
            fail(1)
        except ZeroDivisionError as error:
            debugger = pdb.Pdb(stdin=io.StringIO("where\\nlist\\np part\\nquit\\n"), stdout=text, readrc=False)
            debugger.use_rawinput = False
            debugger.reset()
            try:
                debugger.interaction(None, error.__traceback__)
            except BaseException as stop:
                text.write(repr(stop))
        return text.getvalue()
"""


def test_a_debugger_shows_the_lines_after_the_crash(code: Code) -> None:
    code.write("tools/look.py", LOOK)
    code.write("tools/fails.py", DEBUGGED)
    code.reload()
    edit_another_file(code, 1)
    shown = code.look("tools.fails", "post_mortem()")
    assert "server/tools/fails.py(6)fail()" in shown
    assert "-> return 1 / part  # what fails" in shown and "(Pdb) 0\n" in shown


MEASURED = """
    import io
    import coverage

    def sign(number):
        if number < 0:
            return "-"
        return "+"

    def measure():
        measured = coverage.Coverage(data_file=None, config_file=False, include=[__file__])
        with measured.collect():
            sign(1)
        _, statements, _, missing, _ = measured.analysis2(__file__)
        return statements, missing
"""


def test_coverage_counts_the_lines(code: Code) -> None:
    pytest.importorskip("coverage")
    code.write("tools/look.py", LOOK)
    code.write("tools/measures.py", MEASURED)
    code.reload()
    edit_another_file(code, 1)
    statements, missing = code.look("tools.measures", "measure()")
    assert {6, 7, 8} <= set(statements) and 7 in missing and 6 not in missing and 8 not in missing


TORCH = """
    import torch

    @torch.library.custom_op("lab_test::times", mutates_args=())
    def times(x: torch.Tensor) -> torch.Tensor:
        return x * {version}

    LIBRARY = torch.library.Library("lab_test_twice", "DEF")
    LIBRARY.define("triple(Tensor x) -> Tensor")

    def said():
        return float(times(torch.ones(())))
"""


def test_operators_of_torch_are_registered_anew_in_each_generation(code: Code) -> None:
    code.write("tools/look.py", LOOK)
    for version in (2, 3):
        code.write("tools/operators.py", TORCH.format(version=version))
        code.reload()
        assert code.look("tools.operators", "said()") == version


@contextmanager
def server_that_counts() -> Iterator[tuple[str, list[int]]]:
    """Its URL, and how many requests came over each of its connections."""
    counts: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            counts.append(0)
            self.number = len(counts) - 1

        def do_GET(self) -> None:
            counts[self.number] += 1
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", counts
        finally:
            server.shutdown()
            thread.join()


ASYNC = """
    import asyncio
    import httpx
    from langchain_core.tools import tool

    CLIENT = httpx.AsyncClient(trust_env=False)
    ONE_AT_A_TIME = asyncio.Semaphore(1)
    LOOPS = set()

    @tool
    async def fetch(expression: str) -> str:
        "Fetch something."
        LOOPS.add(asyncio.get_running_loop())
        async with ONE_AT_A_TIME:
            answer = await CLIENT.get("{url}")
        return answer.text + str(len(LOOPS))
"""


def test_what_async_tools_hold_works_over_any_number_of_calls(code: Code) -> None:
    with server_that_counts() as (url, counts):
        code.write("tools/fetch.py", ASYNC.format(url=url))
        code.reload()
        assert [code.ask("fetch") for _ in range(5)] == ["ok1"] * 5
        assert counts == [5], "over one connection"
        answers: list[str] = []
        threads = [threading.Thread(target=lambda: answers.append(code.ask("fetch"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == ["ok1"] * 8 and sum(counts) == 13
