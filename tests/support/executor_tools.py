"""Background tools for tests. They are in a module, because each job's process imports them."""

import collections
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from langchain_core.tools import ToolException, tool

from server.jobs.executor import BaseParallelizableTool
from server.jobs.executor.tools import current_global_context

IGNORES_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
)


class Background(BaseParallelizableTool):
    """Each call is a job."""

    description: str = "For tests."
    is_parallelizable: bool = True


class Echo(Background):
    """Returns its input."""

    name: str = "echo"

    def _run(self, value: Any) -> Any:
        return value


class Gate(Background):
    """Opens a FIFO, and ends as soon as another process has opened it for writing and closed it."""

    name: str = "gate"

    def _run(self, fifo: str, value: Any = "through") -> Any:
        Path(fifo).read_text(encoding="utf-8")
        return value


class Sleeper(Background):
    """Sleeps."""

    name: str = "sleeper"

    def _run(self) -> str:
        time.sleep(600)
        return "slept"


class Cleaner(Background):
    """Reports, sleeps, and writes a file in a `finally` block."""

    name: str = "cleaner"

    def _run(self, finally_file: str) -> Any:
        try:
            yield "inside"
            time.sleep(600)
        finally:
            Path(finally_file).write_text("cleaned up", encoding="utf-8")


class Steps(Background):
    """Reports each step."""

    name: str = "steps"

    def _run(self, count: int) -> Iterator[dict[str, int]]:
        for step in range(count):
            yield {"step": step}


class Answering(Background):
    """Reports, and returns something else."""

    name: str = "answering"

    def _run(self) -> Any:
        yield "half"
        return "whole"


class Stubborn(Background):
    """A loop in C that ignores SIGTERM, with processes below it that ignore it too: one in its group, one in a group
    of its own, one in a session of its own whose parent has ended. Reports their pids."""

    name: str = "stubborn"

    def _run(self) -> Any:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        command = [sys.executable, "-c", IGNORES_SIGTERM]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE) as one,
            subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as two,
        ):
            assert one.stdout is not None and two.stdout is not None
            one.stdout.readline()
            two.stdout.readline()
            detached = (
                f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {IGNORES_SIGTERM!r}], "
                "start_new_session=True, stdout=subprocess.DEVNULL).pid)"
            )
            started = subprocess.run([sys.executable, "-c", detached], stdout=subprocess.PIPE, check=True)
            three = int(started.stdout)
            yield f"{os.getpid()} {one.pid} {two.pid} {three}"
            collections.deque(itertools.repeat(None), maxlen=0)


def own_pid(number: int) -> int:
    """The pid of the process that calls it."""
    return os.getpid()


class Pool(Background):
    """Starts processes by a fork server of its own, and reports their pids."""

    name: str = "pool"

    def _run(self) -> Any:
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            yield " ".join(map(str, sorted(set(pool.map(own_pid, range(4))))))
            time.sleep(600)


class Writer(Background):
    """Writes much: reports, increments, and a large result."""

    name: str = "writer"

    def _run(self) -> Any:
        for number in range(20):
            self.global_context.increment("writes")
            yield f"{number} {'x' * 1000}"
        return "y" * 2_000_000


class HalfAResult(Background):
    """Is killed while it writes its result."""

    name: str = "half_a_result"

    def _run(self) -> str:
        self.global_context._ask.__self__._channel.sendall(b'{"kind": "result", "value": "the fir')
        os.kill(os.getpid(), signal.SIGKILL)
        return "never"


class Garbage(Background):
    """Sends what is no message."""

    name: str = "garbage"

    def _run(self) -> str:
        self.global_context._ask.__self__._channel.sendall(b"no message\n")
        time.sleep(600)
        return "never"


class Failing(Background):
    """Fails in the way that its input names."""

    name: str = "failing"

    def _run(self, how: str) -> Any:
        match how:
            case "exception":
                raise ToolException("no value for tin")
            case "exit":
                os._exit(3)
            case "sys.exit":
                sys.exit("enough")
            case "abort":
                os.abort()
            case "term":
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(600)
            case "large":
                return "z" * 20_000_000
        return object


class Counter(Background):
    """Adds to a number of the global context."""

    name: str = "counter"

    def _run(self, times: int) -> int:
        for _ in range(times):
            self.global_context.increment("incremented")
            self.global_context.update("updated", lambda value: [*value, os.getpid()], default=[])
        return os.getpid()


class Foreground(BaseParallelizableTool):
    """Runs in the executor's own process."""

    name: str = "foreground"
    description: str = "For tests."

    def _run(self, value: int) -> Any:
        self.global_context["seen"] = value
        yield "on the way"
        return value + 1


@tool(extras={"background": True})
def plus_one(number: int) -> int:
    """Add one."""
    return int(current_global_context().increment("number", number)) + 1


@tool(extras={"background": True})
async def plus_two(number: int) -> int:
    """Add two."""
    return number + 2


class Place(Background):
    """Says where it is."""

    name: str = "place"

    def _run(self) -> list[str]:
        return [os.environ["HEARTH_TEST_VALUE"], os.getcwd()]


class LeavesAProcess(Background):
    """Starts a process and does not end it. Reports its pid, and returns it."""

    name: str = "leaves_a_process"

    def _run(self, then_sleep: bool = False) -> Any:
        process = subprocess.Popen([sys.executable, "-c", IGNORES_SIGTERM], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        if then_sleep:
            time.sleep(600)
