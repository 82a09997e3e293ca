"""`python -m benchmarks.rivals.jobs`: jobs in processes, beside RQ, Pebble and concurrent.futures, in turns.

RQ needs `redis-server` on the PATH. Pebble and concurrent.futures run in the caller's process and save nothing; RQ
saves in Redis, Hearth in SQLite.
"""

import argparse
import datetime
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from benchmarks import machine
from benchmarks.rivals.apps import job_work
from benchmarks.tables import milliseconds, p95, print_table
from tests.support.server_process import REPOSITORY, Server, end, start

PROCESSES = 8
COMPUTE_SECONDS = 1.0
TOOLS = """
from langchain_core.tools import tool

{source}

tick, compute, hang = tool(tick), tool(compute), tool(hang)
"""
FILLER = '''
from langchain_core.tools import tool

@tool
def filler_{number}(text: str, limit: int = {number}) -> str:
    """Give a text up to a limit."""
    return text[:limit]
'''


class System(Protocol):
    """`submit` starts a job and returns at once; `result` waits for it; `stop` ends one that runs."""

    def submit(self, name: str, *given: Any) -> Any: ...

    def result(self, job: Any) -> Any: ...

    def stop(self, job: Any) -> None: ...


class Hearth:
    """A server with twenty files of tools; jobs over HTTP."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def submit(self, name: str, *given: Any) -> str:
        arguments = dict(zip({"compute": ["seconds"], "hang": ["file"]}.get(name, []), given, strict=True))
        body: dict[str, Any] = {"tool": name, "input": arguments, "workspace": "bench"}
        answer = self._server.session.post("/jobs", json=body)
        answer.raise_for_status()
        return str(answer.json()["job_id"])

    def result(self, job: str) -> Any:
        with self._server.session.get(f"/jobs/{job}/events", stream=True) as stream:
            is_end = False
            for line in stream.iter_lines(chunk_size=1):
                is_end = is_end or line == b"event: end"
                if is_end and line.startswith(b"data: "):
                    return json.loads(json.loads(line[6:])["result"])
        raise AssertionError("the stream ended without an end")

    def stop(self, job: str) -> None:
        self._server.session.delete(f"/jobs/{job}").raise_for_status()


@contextmanager
def hearth(folder: Path) -> Iterator[System]:
    server = start(folder / "server", REPOSITORY, {"MAX_JOBS": PROCESSES, "JOB_GRACE": 0})
    try:
        server.wait_until_ready()
        put_tools(server)
        yield Hearth(server)
    finally:
        end(server)


def put_tools(server: Server, more: Mapping[str, str] | None = None) -> None:
    """Make the workspace `bench`, with twenty files of tools and `more` ones by name."""
    source = Path(job_work.__file__).read_text(encoding="utf-8")
    files = {"work": TOOLS.format(source=source), **(more or {})}
    files |= {f"filler_{number}": FILLER.format(number=number) for number in range(19)}
    for name, text in files.items():
        server.session.put(f"/workspaces/bench/files/tools/{name}.py", data=text.encode()).raise_for_status()
    server.session.post("/reload_modules", json={"workspace": "bench"}).raise_for_status()


class Futures:
    """concurrent.futures: a job that runs can't be stopped."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def submit(self, name: str, *given: Any) -> Any:
        return self._pool.submit(getattr(job_work, name), *given)

    def result(self, job: Any) -> Any:
        return job.result()

    def stop(self, job: Any) -> None:
        raise NotImplementedError


@contextmanager
def futures(folder: Path) -> Iterator[System]:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("forkserver")) as pool:
        list(pool.map(job_work.compute, [0.01] * PROCESSES * 4))  # its processes start with the first jobs
        yield Futures(pool)


class Pebble:
    """Pebble's pool, whose futures can be cancelled while they run."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def submit(self, name: str, *given: Any) -> Any:
        return self._pool.schedule(getattr(job_work, name), args=given)

    def result(self, job: Any) -> Any:
        return job.result()

    def stop(self, job: Any) -> None:
        job.cancel()


@contextmanager
def pebble(folder: Path) -> Iterator[System]:
    from pebble import ProcessPool

    with ProcessPool(PROCESSES, context=get_context("forkserver")) as pool:
        for future in [pool.schedule(job_work.compute, args=(0.01,)) for _ in range(PROCESSES * 4)]:
            future.result()
        yield Pebble(pool)
        pool.stop()


class Rq:
    """RQ: a worker forks a process for each job."""

    def __init__(self, connection: Any) -> None:
        from rq import Queue

        self._connection = connection
        self._queue = Queue(connection=connection)

    def submit(self, name: str, *given: Any) -> Any:
        return self._queue.enqueue(f"benchmarks.rivals.apps.job_work.{name}", *given)

    def result(self, job: Any) -> Any:
        return job.latest_result(timeout=60).return_value

    def stop(self, job: Any) -> None:
        from rq.command import send_stop_job_command

        send_stop_job_command(self._connection, job.id)


@contextmanager
def rq(folder: Path) -> Iterator[System]:
    from redis import Redis

    with socket.socket() as free, ExitStack() as held:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        store = subprocess.Popen(
            ["redis-server", "--port", str(port), "--dir", str(folder), "--save", ""], stdout=subprocess.DEVNULL
        )
        held.callback(store.wait)
        held.callback(store.terminate)
        connection = Redis(port=port)
        _wait_for(lambda: _answers(connection))
        command = [str(Path(sys.executable).with_name("rq")), "worker", "--url", f"redis://127.0.0.1:{port}", "-q"]
        for _ in range(PROCESSES):
            worker = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
            held.callback(worker.wait)
            held.callback(worker.send_signal, signal.SIGKILL)
        system = Rq(connection)
        system.result(system.submit("tick"))
        _wait_for(lambda: connection.scard("rq:workers") == PROCESSES)
        yield system


def _answers(connection: Any) -> bool:
    try:
        return bool(connection.ping())
    except Exception:  # boundary: it starts
        return False


def _wait_for(met: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)


SYSTEMS: dict[str, Callable[[Path], Any]] = {
    "Hearth": hearth,
    "RQ": rq,
    "Pebble": pebble,
    "concurrent.futures": futures,
}


def measure(system: System, folder: Path, times: int) -> dict[str, list[float]]:
    """Seconds, by what they are of."""
    found: dict[str, list[float]] = {name: [] for name in ("id", "start", "noticed", "computed", "stopped")}
    for _ in range(times):
        asked, clock = time.time(), time.perf_counter()
        job = system.submit("tick")
        found["id"].append(time.perf_counter() - clock)
        began, ended = system.result(job)
        found["noticed"].append(time.time() - ended)
        found["start"].append(began - asked)
    cores = os.cpu_count() or 1
    clock = time.perf_counter()
    for job in [system.submit("compute", COMPUTE_SECONDS) for _ in range(cores)]:
        system.result(job)
    found["computed"].append(time.perf_counter() - clock)
    for number in range(max(times // 10, 1)):
        file = folder / f"hang-{time.monotonic_ns()}-{number}"
        try:
            job = system.submit("hang", str(file)) if not isinstance(system, Futures) else None
            if job is None:
                break
            _wait_for(lambda file=file: file.exists() and file.read_text())  # type: ignore[misc]
            pid, clock = int(file.read_text()), time.perf_counter()
            system.stop(job)
            _wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]
            found["stopped"].append(time.perf_counter() - clock)
        except NotImplementedError:
            break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each system has its turn")
    parser.add_argument("--times", type=int, default=50, help="jobs one after the other in a turn")
    chosen = parser.parse_args()
    print(f"Measured on {datetime.date.today()}: {machine.describe()}; ", end="")
    print(", ".join(f"{package} {version(package)}" for package in ("rq", "redis", "pebble")) + ".\n")
    found: dict[str, dict[str, list[float]]] = {name: {} for name in SYSTEMS}
    for _ in range(chosen.rounds):
        for name, opened in SYSTEMS.items():
            with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as system:
                for what, seconds in measure(system, Path(folder), chosen.times).items():
                    found[name].setdefault(what, []).extend(seconds)
                print(f"{name} had a turn", file=sys.stderr, flush=True)
    rows = []
    for name, had in found.items():
        cells = [
            f"{milliseconds(statistics.median(one))} / {milliseconds(p95(one))}" for one in list(had.values())[:3]
        ]
        stopped = milliseconds(statistics.median(had["stopped"])) if had["stopped"] else "can't"
        rows.append([name, str(len(had["id"])), *cells, f"{statistics.median(had['computed']):.2f} s", stopped])
    head = ("system", "n", "id returned", "start", "end to notice", f"{os.cpu_count()} jobs of 1 s", "stopped")
    print_table(head, rows)


if __name__ == "__main__":
    main()
