"""Nothing that people's code does to its process spreads: over HTTP, while somebody else asks all the time."""

import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import requests

from server.workers.inside.guard import descendants
from tests.support.event_stream import EVENT_STREAM, read
from tests.support.isolation_cases import (
    AGENT,
    CASES,
    FILE,
    MENDED,
    PLACES,
    RELOAD_SECONDS,
    TOOL_SECONDS,
    Case,
    Outcome,
    Place,
)
from tests.support.server_process import REPOSITORY, Server, Session, end, start

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")

IDLE_SECONDS = 3
AT_ONCE = 6
"""Cases. Many only wait."""
GONE_SECONDS = 60.0
"""A deadline and no measure."""
PRODUCTS = {f"What is {one} * {two}?": str(one * two) for one, two in [(37, 52), (12, 12), (25, 4), (8, 9), (61, 17)]}


def wait_until(met: Callable[[], object], what: str, seconds: float = GONE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"{seconds} s were not enough for {what}"
        time.sleep(0.02)


class Neighbour:
    """Somebody with a workspace of their own, who asks all the time."""

    def __init__(self, server: Server) -> None:
        self.answers = 0
        self.wrong: list[str] = []
        self.slowest = 0.0
        self._server = server
        self._left = threading.Event()
        write(server.session, "neighbour", "tools/note.py", "# A workspace of its own.\n")
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        with Session(self._server.url, self._server.token) as session:
            while not self._left.wait(0.05):
                question, right = random.choice(list(PRODUCTS.items()))
                began = time.monotonic()
                try:
                    answer = session.post("/run_script", json={"question": question, "workspace": "neighbour"})
                    if not answer.ok or answer.json()["answer"] != right:
                        self.wrong.append(f"{question} {answer.text}")
                except (requests.RequestException, ValueError) as error:
                    self.wrong.append(f"{question} {error!r}")
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.answers += 1

    def check(self) -> None:
        """Waits for the answer to a question that is asked from now on."""
        until = self.answers + 2
        wait_until(lambda: self.answers >= until, "an answer for the neighbour")
        assert self.wrong == []

    def leave(self) -> None:
        self._left.set()
        self._thread.join()


class Lab:
    """A server, and what of it no code may change."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pid = server.process.pid
        self.neighbour = Neighbour(server)
        self.neighbour.check()
        self._state = self._process_state()
        self._other_descriptors = 0
        self._other_descriptors = self._descriptors() - 4 * self._workers()
        self._threads = self._count_threads()

    def session(self) -> Session:
        """One for each thread."""
        return Session(self.server.url, self.server.token)

    def check(self) -> None:
        """Server and model are the same, and somebody else is answered."""
        assert self.server.process.poll() is None
        assert self.server.health()["model"]["state"] == "ready"
        assert self._process_state() == self._state
        self.neighbour.check()

    def check_nothing_is_left(self) -> None:
        """Below the server are the workers that it lists, the spare one, what they need, and the checker of grammars.
        It has as many descriptors as it needs for them, and about as many threads as at the start."""
        expected = "none"

        def is_clean() -> bool:
            nonlocal expected
            before, workers = descendants(self.pid), self._workers()
            names = Counter(comm(pid) for pid in before)
            needed = {"hearth-keeper": 1, "hearth-template": 1, "hearth-guard": workers, "hearth-worker": workers}
            needed["hearth-grammars"] = 1
            descriptors = self._descriptors() - 4 * workers
            expected = f"{names} for {needed}, {descriptors} for {self._other_descriptors}"
            expected += f", {self._count_threads()} threads for {self._threads}"
            few_threads = self._count_threads() < self._threads + 50
            return names == needed and descriptors == self._other_descriptors and few_threads

        try:
            wait_until(is_clean, "an end of all that was started")
        except AssertionError:
            raise AssertionError(expected) from None

    def _workers(self) -> int:
        """That there should be."""
        return len(self.server.health()["workers"]) + 1

    def _descriptors(self) -> int:
        """The server's, apart from connections of clients, and files on disk."""
        count, clients = 0, set[str]()
        for table in ("tcp", "tcp6"):
            lines = Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]
            clients |= {f"socket:[{line.split()[9]}]" for line in lines}
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with suppress(OSError):
                target = os.readlink(f"/proc/{self.pid}/fd/{name}")
                count += target.startswith(("socket:", "pipe:", "anon_inode:", "/memfd:")) and target not in clients
        return count

    def _count_threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def _process_state(self) -> Any:
        """What code in the server's process could change."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = re.findall(r"^(Umask|SigBlk|SigIgn|SigCgt):\s*(\S+)$", status, re.M)
        limits = Path(f"/proc/{self.pid}/limits").read_text()
        return fields, limits, os.readlink(f"/proc/{self.pid}/cwd"), os.getpriority(os.PRIO_PROCESS, self.pid)


def comm(pid: int) -> str:
    """The name in `ps`; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def named(name: str) -> list[int]:
    """All processes of the machine with that name."""
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and comm(int(pid)) == name]


def write(session: Session, workspace: str, path: str, text: str) -> None:
    answer = session.put(f"/workspaces/{workspace}/files/{path}", data=text.encode())
    assert answer.ok, answer.text


def reload(session: Session, workspace: str) -> requests.Response:
    return session.post("/reload_modules", json={"workspace": workspace})


def ask(session: Session, workspace: str, question: str = "?", agent: str = "direct") -> requests.Response:
    return session.post("/run_script", json={"question": question, "workspace": workspace, "agent": agent})


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server for all tests of this file, and somebody who asks it all the time."""
    server = start(
        tmp_path_factory.mktemp("isolation") / "server",
        REPOSITORY,
        {
            "TOOL_TIMEOUT": TOOL_SECONDS,
            "RELOAD_TIMEOUT": RELOAD_SECONDS,
            "WORKER_MEMORY_GB": 1,
            "WORKER_IDLE": IDLE_SECONDS,
        },
    )
    try:
        server.wait_until_ready()
        lab = Lab(server)
        try:
            yield lab
            lab.check()
        finally:
            lab.neighbour.leave()
            print(f"neighbour: {lab.neighbour.answers} answers, the slowest after {lab.neighbour.slowest:.2f} s")
    finally:
        end(server)


# Each case in each place


@dataclass(frozen=True)
class Report:
    """A case's outcome. `seconds`: until it was reported, beyond the time limit if that had to pass."""

    outcome: Outcome
    seconds: float


def run_case(lab: Lab, case: Case, place: Place) -> Report:
    name = case.comm(place)
    with lab.session() as session:
        write(session, name, "agent/direct.py", AGENT)
        write(session, name, FILE, case.tool(place))
        if place == "call":
            loaded = reload(session, name)
            assert loaded.ok, loaded.text
        began = time.monotonic()
        answer = ask(session, name) if place == "call" else reload(session, name)
        seconds = time.monotonic() - began
        outcome = Outcome.of(answer)
        if place == "call":
            check_record(session, name, outcome)
        elif answer.ok:
            outcome = Outcome.of(ask(session, name))
        lab.check()
        write(session, name, FILE, MENDED)
        assert reload(session, name).ok
        assert Outcome.of(ask(session, name)).message == "mended"
        wait_until(lambda: not named(name), f"the end of the processes of {name}")
    if case.is_slow:
        seconds -= TOOL_SECONDS if place == "call" else RELOAD_SECONDS
    return Report(outcome, seconds)


def check_record(session: Session, workspace: str, outcome: Outcome) -> None:
    """The record of the workspace's one run says what was reported to its author."""
    (record,) = session.get("/runs", params={"workspace": workspace}).json()["runs"]
    if outcome.status == 200:
        assert (record["state"], record["answer"]) == ("done", outcome.message)
    else:
        assert (record["state"], record["error"]["type"]) == ("failed", outcome.type)
        assert record["error"]["message"] == outcome.message


@pytest.fixture(scope="module")
def reports(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Mapping[tuple[str, Place], "Future[Report]"]]:
    """Of all cases that are to be tested now. Several at once, since many only wait; those come first."""
    items: list[dict[str, Any]] = [
        item.callspec.params
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and getattr(item, "callspec", None)
        and item.function is test_nothing_spreads
    ]
    chosen = sorted(((one["case"], one["place"]) for one in items), key=lambda one: not one[0].is_slow)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {(case.name, place): pool.submit(run_case, lab, case, place) for case, place in chosen}
        try:
            yield futures
        finally:
            pool.shutdown(cancel_futures=True)
            done = {
                key: one.result().seconds
                for key, one in futures.items()
                if one.done() and not one.cancelled() and not one.exception()
            }
            for key, seconds in sorted(done.items(), key=lambda one: -one[1]):
                print(f"{seconds:6.2f} s {' '.join(key)}")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_spreads(reports: Mapping[tuple[str, Place], "Future[Report]"], case: Case, place: Place) -> None:
    report = reports[case.name, place].result()
    try:
        case.expects(place).check(place, case.line(place), report.outcome)
    except AssertionError as failure:
        raise AssertionError(f"{report.outcome}\n{failure}") from None


# Agents


CALCULATOR = '''
import ctypes

from langchain_core.tools import tool


@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression, like `2 * (3 + 4)` or `sqrt(2)`."""
    return str(ctypes.string_at(0))
'''


def test_the_model_calls_a_tool_that_crashes(lab: Lab) -> None:
    with lab.session() as session:
        write(session, "react", "tools/calculator.py", CALCULATOR)
        outcome = Outcome.of(ask(session, "react", "What is 37 * 52?", "react"))
        assert (outcome.status, outcome.type, outcome.details["signal"]) == (502, "worker_crashed", "SIGSEGV")
        assert (outcome.file, outcome.line) == ("server/tools/calculator.py", 10)
        check_record(session, "react", outcome)
        assert ask(session, "react", "What day was 2024-03-01?", "react").ok
    lab.check()


STUBBORN = """
import re, time

from .agent import Agent, AgentResult


class Stubborn(Agent):
    name = "stubborn"

    def __call__(self, question, history=()):
{code}
"""


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("catching", "while True:\n    try:\n        time.sleep(0.001)\n    except BaseException:\n        pass"),
        ("blocking", 're.match("(a+)+$", 40 * "a" + "b")'),
    ],
)
def test_an_agent_that_does_not_stop(lab: Lab, name: str, code: str) -> None:
    with lab.session() as session, lab.session() as other, ThreadPoolExecutor(1) as pool:
        write(session, name, "agent/direct.py", AGENT)
        write(session, name, "agent/stubborn.py", STUBBORN.format(code=indent(code, 8 * " ")))
        write(session, name, FILE, MENDED)
        answer = pool.submit(ask, other, name, "?", "stubborn")

        def running() -> list[dict[str, Any]]:
            runs = session.get("/runs", params={"workspace": name}).json()["runs"]
            return [run for run in runs if run["state"] == "running"]

        wait_until(running, "a start of the run")
        (worker,) = workers_of(lab, name)
        (run,) = running()
        assert session.delete(f"/runs/{run['run_id']}").ok
        outcome = Outcome.of(answer.result())
        assert (outcome.status, outcome.type) == (499, "run_cancelled")
        assert Outcome.of(ask(session, name)).message == "mended"
        wait_until(lambda: not Path(f"/proc/{worker['pid']}").exists(), "the end of the worker")
        lab.check()


# Workers that end again and again


MOODY = '''
import os, time

from langchain_core.tools import tool

print("a start of the moody one", flush=True)
if os.path.exists({flag!r}):
    os._exit(9)


@tool
def trouble(expression: str) -> str:
    """Make trouble, if it is asked for."""
    if expression == "crash":
        os._exit(9)
    time.sleep(0.02)
    return expression.upper()
'''


def workers_of(lab: Lab, workspace: str) -> list[dict[str, Any]]:
    return [worker for worker in lab.server.health()["workers"] if worker["workspace"] == workspace]


def test_the_question_after_a_crash(lab: Lab, tmp_path: Path) -> None:
    with lab.session() as session:
        write(session, "crashing", "agent/direct.py", AGENT)
        write(session, "crashing", FILE, MOODY.format(flag=str(tmp_path / "flag")))
        assert ask(session, "crashing", "early").json()["answer"] == "EARLY"
        for _ in range(3):
            assert Outcome.of(ask(session, "crashing", "crash")).details["exit_code"] == 9
            began = time.monotonic()
            assert ask(session, "crashing", "again").json()["answer"] == "AGAIN"
            print(f"the answer after a crash: {1000 * (time.monotonic() - began):.0f} ms")
    lab.check()


def test_code_that_crashes_at_each_start_is_not_started_all_the_time(lab: Lab, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with lab.session() as session:
        write(session, "moody", "agent/direct.py", AGENT)
        write(session, "moody", FILE, MOODY.format(flag=str(flag)))
        assert ask(session, "moody", "early").json()["answer"] == "EARLY"
    flag.touch()
    starts = lab.server.output.count("a start of the moody one")
    (worker,) = workers_of(lab, "moody")
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: not workers_of(lab, "moody"), "the end of the worker")
    refused = 0

    def insist() -> None:
        nonlocal refused
        with lab.session() as session:
            for _ in range(10):
                outcome = Outcome.of(ask(session, "moody"))
                assert (outcome.status, outcome.details["type"]) == (422, "reload_failed"), outcome
                assert "ended with exit code 9 while the code was loaded" in outcome.message
                assert "It is tried again in" in outcome.details["message"]
                refused += 1

    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(insist) for _ in range(4)]:
            done.result()
    # Twice at once, and then after 1, 2, 4, ... seconds.
    most = 2 + sum(2**tries - 1 <= time.monotonic() - began for tries in range(1, 10))
    assert refused == 40
    assert lab.server.output.count("a start of the moody one") - starts <= most
    lab.check()
    flag.unlink()
    with lab.session() as session:
        wait_until(lambda: ask(session, "moody", "late").ok, "another try")
    lab.check()


def test_random_kills(lab: Lab, tmp_path: Path) -> None:
    kill_at_random(lab, 60)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_ten_thousand_runs_with_random_kills(lab: Lab, tmp_path: Path) -> None:
    kill_at_random(lab, 10_000)
    lab.check_nothing_is_left()


def kill_at_random(lab: Lab, count: int) -> None:
    """So many runs of several workspaces at once. Each ends once, with its answer or with the end of its worker."""
    names = [f"victim-{number}" for number in range(4)]
    for name in names:
        write(lab.server.session, name, "agent/direct.py", AGENT)
        write(lab.server.session, name, FILE, MOODY.format(flag=""))
        assert reload(lab.server.session, name).ok
    over, killed = threading.Event(), 0

    def kill() -> None:
        nonlocal killed
        with lab.session() as session:
            while not over.wait(random.uniform(0.05, 0.3)):
                workers = session.get("/health").json()["workers"]
                victims = [one["pid"] for one in workers if one["workspace"] in names and one["state"] != "starting"]
                for pid in random.sample(victims, min(1, len(victims))):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed += 1

    def ask_one(number: int) -> str:
        """How it ended: `answer`, or the type of the error."""
        name = random.choice(names)
        question, right = random.choice([(f"word {number}", f"WORD {number}"), *PRODUCTS.items()])
        given = {"question": question, "workspace": name, "agent": "react" if question in PRODUCTS else "direct"}
        with lab.session() as session, session.post("/run_script", json=given, headers=EVENT_STREAM) as answer:
            events = list(read(answer))
            ends = [event for event in events if event.kind in ("answer", "error")]
            assert len(ends) == 1 and events[-1] is ends[0], events
            run_id = next(event.data["run_id"] for event in events if event.kind in ("queued", "started"))
            record = session.get(f"/runs/{run_id}").json()
        end = ends[0].data
        if ends[0].kind == "answer":
            assert end["answer"] == right
            assert (record["state"], record["answer"]) == ("done", right)
            return "answer"
        if end["type"] == "reload_failed":  # it was killed while it started
            assert end["errors"][0]["type"] == "SIGKILL", end
        else:
            assert end["type"] == "worker_crashed" and end["signal"] == "SIGKILL", end
        assert (record["state"], record["error"]["message"]) == ("failed", end["message"])
        return str(end["type"])

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            ends = Counter(pool.map(ask_one, range(count)))
    finally:
        over.set()
        killer.join()
    print(f"{killed} kills, {dict(ends)}")
    assert ends.total() == count
    assert killed and ends["answer"] and ends["worker_crashed"]
    lab.check()


# At the end


def test_nothing_is_left(lab: Lab, reports: Mapping[tuple[str, Place], "Future[Report]"]) -> None:
    for report in reports.values():
        report.exception()
    lab.check_nothing_is_left()
