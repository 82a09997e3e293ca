"""A server that is used by many, while one thing after the other goes wrong around it.

**The promise.** The server's process stays. Every answer is right, or an error of docs/errors.md that says what
happened. Every run whose id a client got is recorded once, as the client saw it end, or its end said `not_recorded`.
At the end, memory, descriptors and processes are those of a server that has just warmed up. SIGTERM ends it in order.

**How it could break.** A worker, its guard, the template, the keeper or the checker of grammars is killed or stopped
while a message is half sent, a generation half loaded, a record half saved. The database is locked or gone when a run
ends, when code becomes live, when a session is read. The disk is full in the middle of a file. Nobody reads standard
error, and everything that logs waits. The wall clock jumps, and what computes with it waits for years or not at all.
Clients leave, cancel, and send what no client should, at any moment of this.

**What it can't show.** One fault happens at a time. The clock is set for the server and its children alone
(`tests/support/set_clock.py`; needs a C compiler), so the times of files don't jump with it. Where this process may
mount no file system, the disk is full for the server's process only (`tests/support/full_disk.py`). No power is cut.
"""

import os
import random
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from tests.support.chaos_clients import Asker, Author, Client, write_code
from tests.support.chaos_ledger import Ledger
from tests.support.faults import (
    SECONDS_WITHOUT_DATABASE,
    Fault,
    Faults,
    clock_set,
    family,
    lasting,
    processes,
    unread_log,
)
from tests.support.full_disk import full_disk
from tests.support.health_probe import probed
from tests.support.log_pipe import LogPipe
from tests.support.postgres_process import Postgres
from tests.support.reload_code import wait_until
from tests.support.server_process import REPOSITORY, Server, end, start
from tests.support.set_clock import SetClock
from tests.support.small_disk import NotMountedError, SmallDisk

QUESTIONS = {
    f"What is {one} * {two}?": str(one * two) for one, two in [(37, 52), (12, 12), (25, 4), (8, 9), (61, 17)]
}
OTHER_QUESTIONS = ("Which weekday is 2026-12-25?", "How many words are in 'the quick fox'?")
"""Their answers are those that the server gives alone."""
SETTINGS = {"TOOL_TIMEOUT": 10, "RUN_TIMEOUT": 100, "WORKER_IDLE": 30}
EDITED = 6
"""Workspaces, each with an author."""
CLIENT_SECONDS = 150.0
"""Longer than a client waits for an answer."""
MOST_GROWTH = 200 * 2**20
"""Bytes: what the allocator keeps; a run's record has some kilobytes."""
SETTLE_SECONDS = 60.0


@dataclass(frozen=True)
class Size:
    """How much of it. `warm_seconds`: without faults, before memory is compared."""

    clients: int
    warm_seconds: float
    seconds: float
    seed: int = 1


ORDINARY = Size(200, 10, 30)
LONG = Size(200, 300, 1800)


@dataclass
class Lab:
    """A server, and the faults that can be made around it."""

    server: Server
    faults: dict[str, Fault]
    left_out: list[str]
    """Faults that can't be made here, and why."""
    log: LogPipe


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lab(
    database: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lab]:
    """A server with model and tools, whose log is a pipe, and whose clock, disk and database can be taken away."""
    rng, over, left_out = random.Random(1), threading.Event(), []
    settings: dict[str, object] = {**SETTINGS, "DATA_DIR": tmp_path / "disk" / "data"}
    faults: dict[str, Fault] = {}
    with ExitStack() as undo:
        try:
            disk = SmallDisk(tmp_path / "disk")
            undo.callback(disk.close)
        except NotMountedError as reason:
            disk = None
            left_out.append(f"a disk that is full for all processes: {reason}")
        try:
            clock = SetClock(tmp_path)
        except FileNotFoundError as reason:
            clock = None
            left_out.append(f"a clock that is set: {reason}")
        for name, value in (clock.environment if clock else {}).items():
            monkeypatch.setenv(name, value)
        if database == "postgresql":
            postgres: Postgres = request.getfixturevalue("postgres")
            settings["DATABASE_URL"] = postgres.database()
        log = LogPipe(tmp_path / "output.txt")
        undo.callback(log.close)
        server = start(tmp_path / "server", REPOSITORY, settings, log.descriptor)
        undo.callback(end, server)
        for name in clock.environment if clock else {}:
            monkeypatch.delenv(name)
        server.output_file = tmp_path / "output.txt"
        server.wait_until_ready()
        file = tmp_path / "disk" / "data" / "hearth.db"
        faults |= processes(server, rng, over)
        faults["log unread"] = unread_log(log, rng, over)
        if clock:
            faults["clock set"] = clock_set(clock, rng, over)

        def without(fault: Fault) -> Fault:
            return lasting(fault, SECONDS_WITHOUT_DATABASE, rng, over)

        if database == "postgresql":
            faults["database stopped"] = without(postgres.stopped)
        else:
            faults["database locked"] = without(lambda: locked(file))
        if disk:
            faults["disk full"] = without(disk.full)
        elif database == "sqlite":
            faults["disk full"] = without(lambda: full_disk(server.process.pid, file))
        yield Lab(server, faults, left_out, log)
        over.set()


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Somebody else holds what one must hold to write."""
    other = sqlite3.connect(file, isolation_level=None, timeout=60)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()


@pytest.mark.parametrize(
    ("database", "size"),
    [
        pytest.param("sqlite", ORDINARY, id="sqlite", marks=pytest.mark.timeout(900)),
        pytest.param("postgresql", ORDINARY, id="postgresql", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
        pytest.param("sqlite", LONG, id="sqlite-long", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
        pytest.param("postgresql", LONG, id="postgresql-long", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
    indirect=["database"],
)
def test_whatever_goes_wrong(
    lab: Lab, size: Size, record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> None:
    server, ledger, pid = lab.server, Ledger(), lab.server.process.pid
    edited = [f"edited-{number}" for number in range(EDITED)]
    write_code(server, ledger, edited)
    right = {question: alone(server, question) for question in (*QUESTIONS, *OTHER_QUESTIONS)}
    assert {question: right[question] for question in QUESTIONS} == QUESTIONS
    with probed(server) as health:
        use(server, ledger, right, edited, replace(size, seconds=size.warm_seconds), {})
        settle(server)
        before = taken(server)
        faults = use(server, ledger, right, edited, size, lab.faults)
        settle(server)
    assert server.process.poll() is None and server.process.pid == pid, server.output
    shown = {"health": str(health), "faults": dict(faults.happened), "left out": lab.left_out}
    for name, value in shown.items():
        print(name, value)
        record_property(name, value)
    for moment, what in faults.log:
        print(f"{moment:.1f} {what}")
    for (way, outcome), count in sorted(ledger.outcomes.items()):
        print(f"{count:6} {way}: {outcome}")
    print(ledger.check(server), "of", ledger.size)
    assert not health.failures, health.failures
    after = taken(server)
    print(f"memory {before.memory / 1e6:.0f} MB, then {after.memory / 1e6:.0f} MB; {before}, {after}")
    assert after.memory - before.memory < MOST_GROWTH
    # Up to five connections to the database stay open, each with two files or a socket.
    assert after.descriptors <= before.descriptors + 16 and after.threads <= before.threads + 50, (before, after)
    assert faults.happened, "a slow machine has time for few of them"
    for question, answer in right.items():
        assert alone(server, question) == answer, "once all is well, every answer is right"
    below = psutil.Process(pid).children(recursive=True)
    assert server.stop() == 0, server.output
    assert not psutil.wait_procs(below, timeout=SETTLE_SECONDS)[1], "nothing is left"
    lab.log.close()
    log = server.output
    assert "internal error" not in log and "Exception in thread" not in log


def alone(server: Server, question: str) -> str:
    answer = server.session.post("/run_script", json={"question": question})
    assert answer.ok, answer.text
    return str(answer.json()["answer"])


def use(
    server: Server,
    ledger: Ledger,
    right: dict[str, str],
    edited: list[str],
    size: Size,
    kinds: dict[str, Fault],
) -> Faults:
    """Let so many clients do what they do for so long, and faults happen meanwhile."""
    over, seed = threading.Event(), f"{size.seed}-{size.seconds:g}"
    faults = Faults(server, kinds, random.Random(seed), over)
    used: list[Client] = [Author(server, ledger, f"author-{seed}-{name}", over, name) for name in edited]
    for number in range(size.clients - len(used)):
        used.append(Asker(server, ledger, f"asker-{seed}-{number}", over, right, edited))
    for thread in [*used, *([faults] if kinds else [])]:
        thread.start()
    over.wait(size.seconds)
    over.set()
    for thread in [*used, *([faults] if kinds else [])]:
        thread.join(CLIENT_SECONDS)
        assert not thread.is_alive(), f"{thread.name} waits for ever\n{server.output[-5000:]}"
    if faults.failure is not None:
        raise faults.failure
    return faults


@dataclass(frozen=True)
class Taken:
    """What a server has. `memory`: bytes, without KV memory, which is bounded otherwise. `descriptors`: without those
    of workers, of which there may be more or fewer."""

    memory: int
    descriptors: int
    threads: int


def taken(server: Server) -> Taken:
    process, workers = psutil.Process(server.process.pid), len(server.health()["workers"])
    kv_bytes: int = server.health()["kv_bytes"]
    files = process.num_fds() - len(process.net_connections("tcp")) - 4 * workers
    return Taken(process.memory_info().rss - kv_bytes, files, process.num_threads())


def settle(server: Server) -> None:
    """Wait until nothing is under way, and only the workers that `/health` lists are there, with what they need. The
    spare one may have been killed: there is another with the next reload.

    A keeper whose template was killed stays as long as workers of that template do, and main's worker does not end by
    itself. So this ends the workers then: the keeper has to end with them.
    """
    seen = ""

    def is_clean() -> bool:
        nonlocal seen
        health, counts = server.health(), {name: len(pids) for name, pids in family(server).items()}
        seen = f"{counts}, {health}"
        if health["runs"] != {"running": 0, "queued": 0} or "store_error" in health:
            server.session.post("/run_script", json={"question": "What is 12 * 12?"})
            return False
        if counts.get("hearth-keeper", 0) > 1:
            for worker in health["workers"]:
                with suppress(ProcessLookupError):
                    os.kill(worker["pid"], signal.SIGKILL)
            server.session.post("/run_script", json={"question": "What is 12 * 12?"})
            return False
        workers, keepers = len(health["workers"]), (counts.get("hearth-keeper"), counts.get("hearth-template"))
        guarded = counts.get("hearth-guard") == counts.get("hearth-worker") in (workers, workers + 1)
        others = set(counts) - {
            "hearth-keeper",
            "hearth-template",
            "hearth-guard",
            "hearth-worker",
            "hearth-grammars",
        }
        return guarded and keepers == (1, 1) and not others and counts.get("hearth-grammars", 0) <= 2

    try:
        wait_until(is_clean, "an end of all that was started", SETTLE_SECONDS)
    except AssertionError as failure:
        raise AssertionError(f"{seen}: {failure}") from None
