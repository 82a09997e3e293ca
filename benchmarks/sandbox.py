"""Code in the sandbox: how long cells take, what neighbours notice of hostile ones, and other ways to run code.

All ways run the same cells in turns, so that they share the machine's moods.
"""

import functools
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.tables import milliseconds, print_table
from server.sandbox.inside.settings import Mode
from tests.support.escape_targets import run_cell
from tests.support.hostile_cells import HOSTILE
from tests.support.server_process import REPOSITORY, Server, Session, end, start

SMOLAGENTS = "smolagents' LocalPythonExecutor, in its caller"
RIVALS = REPOSITORY / ".venv-rivals" / "bin" / "python"
INTERPRETS = """
import sys
from smolagents.local_python_executor import LocalPythonExecutor
for line in sys.stdin:
    if line == "new\\n":
        executor = LocalPythonExecutor(["pandas"])
        executor.send_tools({})
    else:
        executor(eval(line))
    print(flush=True)
"""
TRIVIAL = "1 + 1"
FRAME = "import pandas as pd\nframe = pd.DataFrame({'g': [n % 7 for n in range(10_000)], 'v': range(10_000)})"
GROUP_BY = "frame.groupby('g')['v'].mean().sum()"
NUMBERS = itertools.count(1)
HOSTILE_CLIENTS = 2
HOSTILE_SECONDS = 0.5
"""Time limit of a hostile cell: most of them use all of it."""
DOCKER_SECONDS = 10.0

Run = Callable[[str], object]


def report(folder: Path, few: bool) -> None:
    """Print the tables."""
    with _server(folder / "server", "bubblewrap") as server, ExitStack() as opened:
        if not _has_smolagents():
            print("smolagents is not measured: see benchmarks/rivals/requirements.txt.")
        print(_docker(), flush=True)
        print_table(COLUMNS, _ways(server, opened, folder, 1 if few else 200, 1 if few else 20))
        print_table(("fresh sandboxes", "n", "a second"), [_fresh_rate(server, 2 if few else 100)])
        print_table(("neighbour's trivial cell", "n", "p50", "p99", "most"), _neighbours(server, 4 if few else 1000))


COLUMNS = ("cells run by", "trivial n", "p50", "p99", "group-by n", "p50", "p99", "first cell n", "p50", "p99")


@contextmanager
def _server(folder: Path, isolation: str) -> Iterator[Server]:
    settings = {
        "AUTOLOAD": "false",
        "SANDBOX": isolation,
        "SANDBOX_MEMORY_GB": 0.5,
        "SANDBOX_PROCESSES": 32,
        "SANDBOX_SPARES": 2,
        "MAX_SANDBOXES": 8,
    }
    server = start(folder, REPOSITORY, settings)
    try:
        run_cell(server, "warm", TRIVIAL)
        yield server
    finally:
        end(server)


def _ways(server: Server, opened: ExitStack, folder: Path, warm: int, cold: int) -> Iterator[Sequence[str]]:
    """A row for each way. Its cells are run in turns with those of the others."""
    landlock = opened.enter_context(_server(folder / "landlock", Mode.LANDLOCK.value))
    makers: dict[str, Callable[[ExitStack], Run]] = {
        "Hearth, bubblewrap": lambda stack: _hearth(server, stack),
        "Hearth, Landlock": lambda stack: _hearth(landlock, stack),
        "a Jupyter kernel (jupyter_client)": _jupyter,
        SMOLAGENTS: _smolagents,
    }
    if not _has_smolagents():
        del makers[SMOLAGENTS]
    running = {name: make(opened) for name, make in makers.items()}
    times: dict[str, tuple[list[float], list[float], list[float]]] = {name: ([], [], []) for name in makers}
    for run in running.values():
        run(FRAME)
        run(GROUP_BY)
    for place, code in enumerate((TRIVIAL, GROUP_BY)):
        for _ in range(warm):
            for name, run in running.items():
                times[name][place].append(_timed(partial(run, code)))
    python: tuple[list[float], list[float], list[float]] = ([], [], [])
    for _ in range(cold):
        for name, make in makers.items():
            with ExitStack() as stack:
                times[name][2].append(_timed(partial(_first_cell, make, stack)))
        python[0].append(_timed(lambda: _process(TRIVIAL)))
        python[1].append(_timed(lambda: _process(f"{FRAME}\n{GROUP_BY}")))
    times["a Python process for each cell"] = python
    for name, measured in times.items():
        yield [name, *(word for one in measured for word in _figures(one))]


def _first_cell(make: Callable[[ExitStack], Run], stack: ExitStack) -> None:
    make(stack)(TRIVIAL)


def _figures(seconds: list[float]) -> Sequence[str]:
    if not seconds:
        return ("", "", "")
    return (str(len(seconds)), milliseconds(statistics.median(seconds)), milliseconds(p99(seconds)))


def p99(seconds: list[float]) -> float:
    """What 99 of 100 stay below. Of few figures, the highest."""
    return statistics.quantiles(seconds, n=100, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _hearth(server: Server, stack: ExitStack) -> Run:
    """A new session."""
    session = f"bench{next(NUMBERS)}"

    def run(code: str) -> object:
        cell = run_cell(server, session, code)
        assert cell["error"] is None, cell
        return cell

    return run


def _jupyter(stack: ExitStack) -> Run:
    """A new kernel. It separates nothing from the machine."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
    stack.callback(manager.shutdown_kernel, now=True)
    stack.callback(client.stop_channels)

    def run(code: str) -> object:
        reply: Any = client.execute_interactive(code, timeout=60, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok", reply
        return reply

    return run


@functools.cache
def _has_smolagents() -> bool:
    if not RIVALS.exists():
        return False
    found = subprocess.run([RIVALS, "-c", "import smolagents"], capture_output=True, check=False)
    return found.returncode == 0


@functools.cache
def _interpreting() -> "subprocess.Popen[str]":
    """A process with smolagents, which ends with this one."""
    return subprocess.Popen([RIVALS, "-c", INTERPRETS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _smolagents(stack: ExitStack) -> Run:
    """A new executor. It interprets the syntax tree, in its caller's process and without a limit of memory."""
    process = _interpreting()
    assert process.stdin is not None and process.stdout is not None
    reading, writing = process.stdout, process.stdin

    def ask(line: str) -> None:
        writing.write(f"{line}\n")
        writing.flush()
        assert reading.readline(), "it has ended"

    ask("new")
    return lambda code: ask(repr(code))


def _process(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL)


def _docker() -> str:
    program = shutil.which("docker")
    if program is None:
        return "docker is not installed here."
    try:
        done = subprocess.run([program, "info"], capture_output=True, timeout=DOCKER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "docker does not answer here."
    return (
        "There is a docker daemon, which is not measured." if done.returncode == 0 else "There is no docker daemon."
    )


def _fresh_rate(server: Server, count: int) -> Sequence[str]:
    """Sessions one after the other, each with its first cell."""
    began = time.perf_counter()
    for _ in range(count):
        run_cell(server, f"bench{next(NUMBERS)}", TRIVIAL)
    return (
        "one after the other, each with a trivial cell",
        str(count),
        f"{count / (time.perf_counter() - began):.1f}",
    )


def _neighbours(server: Server, hostile: int) -> Iterator[Sequence[str]]:
    """A client whose session runs trivial cells, with and without hostile cells, in turns."""
    rounds = 2
    codes = itertools.cycle([one.code for one in HOSTILE.values()])
    quiet: list[float] = []
    loud: list[float] = []
    health: list[float] = []
    for _ in range(rounds):
        with _repeated(server) as (seconds, asked):
            done = _attack(server, codes, hostile // rounds)
        loud += seconds
        health += asked
        with _repeated(server) as (seconds, _):
            time.sleep(min(done, 20))  # the length of a turn, and no wait
        quiet += seconds
    yield _row("alone", quiet)
    yield _row(f"while {hostile:,} hostile cells run, {HOSTILE_CLIENTS} at a time", loud)
    yield _row("GET /health meanwhile", health)
    left = [
        one for one in psutil.Process(server.process.pid).children(recursive=True) if one.name() == "hearth-sandbox"
    ]
    print(f"\nProcesses of sandboxes afterwards: {len(left)}.", flush=True)


def _row(what: str, seconds: list[float]) -> Sequence[str]:
    return (what, *_figures(seconds), milliseconds(max(seconds)))


@contextmanager
def _repeated(server: Server) -> Iterator[tuple[list[float], list[float]]]:
    """The times of trivial cells, and of `GET /health`, while the block runs."""
    stop = threading.Event()
    cells: list[float] = []
    health: list[float] = []

    def ask() -> None:
        with Session(server.url, server.token) as session:
            while not stop.is_set():
                cells.append(_timed(lambda: _post(session, "neighbour", TRIVIAL, 30)))
                health.append(_timed(lambda: session.get("/health").raise_for_status()))
                stop.wait(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield cells, health
    finally:
        stop.set()
        thread.join()


def _attack(server: Server, codes: Iterator[str], count: int) -> float:
    """Run hostile cells. Returns the seconds that they took."""
    waiting = [next(codes) for _ in range(count)]
    lock = threading.Lock()

    def work(name: str) -> None:
        with Session(server.url, server.token) as session:
            while True:
                with lock:
                    if not waiting:
                        return
                    code = waiting.pop()
                _post(session, name, code, HOSTILE_SECONDS)

    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(f"hostile{n}",)) for n in range(HOSTILE_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _post(session: Session, name: str, code: str, timeout: float) -> None:
    body = json.dumps({"code": code, "timeout": timeout})
    answer = session.post(f"/sessions/{name}/code", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
