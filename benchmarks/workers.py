"""What it costs, and what it gives, that people's code runs in processes of its own: this code beside an earlier one.

`python -m benchmarks.workers --beside FOLDER`: FOLDER is a checkout of Hearth from before there were workers. Both
servers run at once and are asked in turns, so that they share the machine's moods. Without it, this code alone.
"""

import argparse
import datetime
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks import machine
from benchmarks.tables import milliseconds, print_table
from tests.support.server_process import REPOSITORY, Server, end, start

QUESTIONS = ("What is 37 * 52?", "Which weekday is 2026-12-25?", "How many words are in 'the quick brown fox'?")
TOOL = '''
from langchain_core.tools import tool
{imports}

@tool
def tool_{number}(text: str) -> str:
    """Count the words of a text."""
    return f"{{len(text.split())}} {edit}"
'''
COMPUTING = '''
from langchain_core.tools import tool


@tool
def shout(text: str) -> str:
    """Write a text in capital letters."""
    count = 0
    while True:
        count += 1
'''
DIRECT_AGENT = {
    # The same agent, as each of the two has it.
    "from server.sdk import call_tool": "server/sdk",
    "from server.runs.tool_call import call_tool": "server/runs/tool_call.py",
}
AGENT = '''
{imports}
from .agent import Agent, AgentResult


class Direct(Agent):
    """Calls the tool that the question names."""

    name = "direct"

    def __call__(self, question, history=()):
        text = call_tool(self.tools[question], {{"text": "one two"}}, self.tool_seconds)
        return AgentResult(text, question, [], {{}})
'''
CRASH = '''
import ctypes

from langchain_core.tools import tool


@tool
def crash(text: str) -> str:
    """Crash."""
    ctypes.string_at(0)


@tool
def fine(text: str) -> str:
    """Be fine."""
    return "fine"
'''


class Side:
    """A server of one of the two."""

    def __init__(self, name: str, code: Path, folder: Path, **settings: object) -> None:
        self.name = name
        self.code = code
        self.server: Server = start(folder / name, code, {"TOOL_TIMEOUT": 600, "LOG_LEVEL": "WARNING", **settings})
        self.server.wait_until_ready()
        for question in QUESTIONS:
            self.ask(question)

    def ask(self, question: str, **more: Any) -> float:
        """Seconds to an answer."""
        began = time.perf_counter()
        self.server.session.post("/run_script", json={"question": question, **more}).raise_for_status()
        return time.perf_counter() - began

    def put(self, workspace: str, path: str, text: str) -> None:
        """Write a file of a workspace."""
        self.server.session.put(f"/workspaces/{workspace}/files/{path}", data=text.encode()).raise_for_status()

    def put_agent(self, workspace: str) -> None:
        """Let the workspace have the agent `direct`."""
        imports = next(line for line, path in DIRECT_AGENT.items() if (self.code / path).exists())
        self.put(workspace, "agent/direct.py", AGENT.format(imports=imports))

    def reload(self, workspace: str) -> float:
        """Seconds of a reload."""
        began = time.perf_counter()
        self.server.session.post("/reload_modules", json={"workspace": workspace}).raise_for_status()
        return time.perf_counter() - began

    def memory(self, family: bool = False) -> int:
        """Bytes that the server's process has to itself; of a family, the proportional share of all its processes."""
        server = psutil.Process(self.server.process.pid)
        if not family:
            return int(server.memory_full_info().uss)
        total = 0
        for one in [server, *server.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # a worker that was replaced ends just now
                total += int(one.memory_full_info().pss)
        return total


def in_turns(sides: list[Side], work: Callable[[Side, int], float], times: int) -> dict[str, list[float]]:
    """What `work` measures, of one side after the other, so many times; the first two of each warm up."""
    measured: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(-2, times):
        for side in sides:
            seconds = work(side, number)
            if number >= 0:
                measured[side.name].append(seconds)
    return measured


class Report:
    """Rows of the table, printed as they come."""

    def __init__(self, sides: list[Side]) -> None:
        self._names = [side.name for side in sides]
        self.rows: list[list[str]] = []

    def add(self, what: str, measured: dict[str, list[float]], show: Callable[[float], str] = milliseconds) -> None:
        medians = {name: statistics.median(values) for name, values in measured.items()}
        shown = [show(medians[name]) if name in medians else "" for name in self._names]
        ratio = f"{medians[self._names[1]] / medians[self._names[0]]:.2f}" if len(medians) == 2 else ""
        number = str(min(len(values) for values in measured.values()))
        self.rows.append([what, number, *shown, ratio])
        print("  ", *self.rows[-1], sep=" | ", flush=True)

    def print(self) -> None:
        print_table(("what", "n", *self._names, "ratio"), self.rows)


def questions(sides: list[Side], report: Report, few: bool) -> None:
    """Alone, and many at once."""
    for question in QUESTIONS:
        report.add(f"alone: {question}", in_turns(sides, lambda side, _: side.ask(question), 2 if few else 60))  # noqa: B023
    for width in (4, 16):
        report.add(
            f"{width} at once, answers/s",
            in_turns(sides, lambda side, _: at_once(side, width), 1 if few else 8),  # noqa: B023
            lambda rate: f"{rate:.1f}",
        )


def at_once(side: Side, width: int, number: int = 48) -> float:
    """Answers a second with so many askers."""
    began = time.perf_counter()
    with ThreadPoolExecutor(width) as pool:
        list(pool.map(lambda one: side.ask(QUESTIONS[one % len(QUESTIONS)]), range(number)))
    return number / (time.perf_counter() - began)


def reloads(sides: list[Side], report: Report, few: bool) -> None:
    """One edit among several files, and tools that import large packages."""
    for files in (5, 20, 100):
        name = f"files-{files}"
        for side in sides:
            for number in range(files):
                side.put(name, f"tools/tool_{number}.py", TOOL.format(number=number, edit="", imports=""))

        def edit(side: Side, number: int) -> float:
            side.put(name, "tools/tool_0.py", TOOL.format(number=0, edit=number, imports=""))  # noqa: B023
            return side.reload(name)  # noqa: B023

        report.add(f"reload, {files} files more than the shipped", in_turns(sides, edit, 2 if few else 30))

    def edit_and_ask(side: Side, number: int) -> float:
        began = time.perf_counter()
        side.put("files-5", "tools/tool_0.py", TOOL.format(number=0, edit=number, imports=""))
        side.reload("files-5")
        side.ask(QUESTIONS[0], workspace="files-5")
        return time.perf_counter() - began

    report.add("edit to new answer", in_turns(sides, edit_and_ask, 2 if few else 30))
    imports = "import pandas\nimport sklearn.linear_model\nimport torch"
    for when in ("first", "second"):
        measured = {}
        for side in sides:
            side.put("heavy", "tools/heavy.py", TOOL.format(number=1, edit=when, imports=imports))
            measured[side.name] = [side.reload("heavy")]
            if when == "first":
                time.sleep(0 if few else 15)  # the packages are imported for later workers meanwhile
        report.add(f"reload with pandas, sklearn and torch, the {when} time", measured)


def neighbours(sides: list[Side], report: Report, few: bool) -> None:
    """Others ask while a tool computes in plain Python."""
    for side in sides:
        side.put("busy", "tools/shout.py", COMPUTING)
        side.put_agent("busy")
        side.reload("busy")
    for tools in (1, 3):
        alone = in_turns(sides, lambda side, _: side.ask(QUESTIONS[0]), 2 if few else 30)
        beside: dict[str, list[float]] = {}
        for side in sides:
            with computing(side, tools):
                # Fewer: beside one such tool, earlier code may take twenty seconds for a question.
                beside |= in_turns([side], lambda side, _: side.ask(QUESTIONS[0]), 2 if few else 10)
        report.add(f"before {tools} computing tools: a neighbour's question", alone)
        report.add(f"beside {tools} computing tools: a neighbour's question", beside)


@contextmanager
def computing(side: Side, tools: int) -> Iterator[None]:
    """So many calls of a tool that computes."""

    def running() -> int:
        count: int = side.server.health()["runs"]["running"]
        return count

    session = side.server.session
    body = {"question": "shout", "workspace": "busy", "agent": "direct"}
    with ThreadPoolExecutor(tools) as pool:
        for _ in range(tools):
            pool.submit(session.post, "/run_script", json=body, timeout=600)
        while running() < tools:
            time.sleep(0.1)
        try:
            yield
            assert running() == tools, "they have computed all the time"
        finally:
            for run in session.get("/runs", params={"workspace": "busy"}).json()["runs"]:
                if run["state"] == "running":
                    session.delete(f"/runs/{run['run_id']}")
    time.sleep(2)


def under_reloads(sides: list[Side], report: Report, few: bool) -> None:
    """Six askers while somebody reloads without a pause."""
    without = in_turns(sides, lambda side, _: at_once(side, 6), 1 if few else 4)

    def reloading(side: Side, _: int) -> float:
        stop = threading.Event()

        def edit() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                side.put("files-5", "tools/tool_0.py", TOOL.format(number=0, edit=number, imports=""))
                side.reload("files-5")

        thread = threading.Thread(target=edit)
        thread.start()
        try:
            return at_once(side, 6)
        finally:
            stop.set()
            thread.join()

    report.add("6 at once, answers/s", without, lambda rate: f"{rate:.1f}")
    report.add(
        "the same under reloads without a pause",
        in_turns(sides, reloading, 1 if few else 4),
        lambda rate: f"{rate:.1f}",
    )


def crashes(sides: list[Side], report: Report, few: bool) -> None:
    """A crash, and the next answer. Earlier code ends with its server here, and is not asked."""
    side = sides[-1]
    side.put("crashing", "tools/crash.py", CRASH)
    side.put_agent("crashing")
    side.reload("crashing")
    noticed, answered = [], []
    for _ in range(2 if few else 30):
        side.ask("fine", workspace="crashing", agent="direct")
        began = time.perf_counter()
        body = {"question": "crash", "workspace": "crashing", "agent": "direct"}
        reply = side.server.session.post("/run_script", json=body)
        assert reply.status_code == 502 and reply.json()["error"]["signal"] == "SIGSEGV", reply.text
        noticed.append(time.perf_counter() - began)
        answered.append(side.ask("fine", workspace="crashing", agent="direct"))
    report.add("crash to its error", {side.name: noticed})
    report.add("the next question after a crash", {side.name: answered})


def memory(sides: list[Side], report: Report, few: bool) -> None:
    """What reloads leave in memory."""

    def megabytes(value: float) -> str:
        return f"{value / 2**20:+.1f} MiB"

    number = 20 if few else 1000
    grown: dict[str, list[float]] = {}
    family: dict[str, list[float]] = {}
    for side in sides:
        for edit in range(5 if few else 100):
            side.put("files-5", "tools/tool_0.py", TOOL.format(number=0, edit=f"w{edit}", imports=""))
            side.reload("files-5")
        before, all_before = side.memory(), side.memory(family=True)
        for edit in range(number):
            side.put("files-5", "tools/tool_0.py", TOOL.format(number=0, edit=f"m{edit}", imports=""))
            side.reload("files-5")
        grown[side.name] = [side.memory() - before]
        family[side.name] = [side.memory(family=True) - all_before]
    report.add(f"the server's memory after {number} reloads", grown, megabytes)
    report.add(f"all processes' memory after {number} reloads", family, megabytes)


PARTS = (questions, reloads, neighbours, under_reloads, crashes, memory)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--beside", type=Path, help="a checkout of earlier code")
    parser.add_argument("--part", choices=[part.__name__ for part in PARTS], help="this one alone")
    parser.add_argument("--few", action="store_true", help="the figures mean nothing then")
    arguments = parser.parse_args()
    print(f"Measured on {datetime.date.today()}: {machine.describe()}.", flush=True)
    folder = Path(tempfile.mkdtemp())
    codes = [("before", arguments.beside.absolute())] if arguments.beside else []
    codes.append(("now", REPOSITORY))
    if arguments.part is None:
        startups(codes, folder, arguments.few)
    sides: list[Side] = []
    try:
        for name, code in codes:
            sides.append(Side(name, code, folder))
        report = Report(sides)
        for part in PARTS:
            if arguments.part in (None, part.__name__):
                part(sides, report, arguments.few)
        workers = sides[-1].server.health()["workers"]
        report.add(
            "memory of a worker",
            {"now": [worker["memory_bytes"] for worker in workers]},
            lambda size: f"{size / 2**20:.0f} MiB",
        )
        report.print()
    finally:
        for side in sides:
            end(side.server)
        shutil.rmtree(folder, ignore_errors=True)


def startups(codes: list[tuple[str, Path]], folder: Path, few: bool) -> None:
    """From the start to the first answers, in turns."""
    health: dict[str, list[float]] = {name: [] for name, _ in codes}
    answer: dict[str, list[float]] = {name: [] for name, _ in codes}
    for number in range(1 if few else 5):
        for name, code in codes:
            began = time.perf_counter()
            server = start(folder / f"start-{name}-{number}", code, {"LOG_LEVEL": "WARNING"})
            try:
                health[name].append(time.perf_counter() - began)
                server.wait_until_ready()
                server.session.post("/run_script", json={"question": QUESTIONS[0]}).raise_for_status()
                answer[name].append(time.perf_counter() - began)
            finally:
                end(server)
    rows = []
    for what, measured in (("start to first /health", health), ("start to first answer", answer)):
        rows.append([what, *(milliseconds(statistics.median(values)) for values in measured.values())])
    print_table(("what", *health), rows)


if __name__ == "__main__":
    main()
