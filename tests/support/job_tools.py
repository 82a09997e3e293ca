"""Tools that the tests of jobs put into a workspace."""

import time
from collections.abc import Callable
from typing import Any

from tests.support.server_process import Server

TOOLS = '''
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from langchain_core.tools import ToolException, tool

from server.sdk import check_cancelled, progress, shared


@tool(extras={"background": True})
def nap(seconds: float, word: str = "rested") -> str:
    """Sleep for some seconds, and say a word."""
    for tenth in range(int(seconds * 10)):
        time.sleep(0.1)
        progress(tenth + 1, int(seconds * 10), "asleep")
    print(f"{word} in {os.getpid()}", flush=True)
    return word


@tool(extras={"background": True, "idempotent": True})
def again(seconds: float) -> str:
    """Sleep for some seconds; it may be done twice."""
    time.sleep(seconds)
    return "done again"


@tool
def crash() -> str:
    """Crash."""
    ctypes.string_at(0)
    return "never"


@tool
def fail(reason: str) -> str:
    """Fail for a reason."""
    raise ValueError(reason)


@tool
def refuse() -> str:
    """Say that it can't be done."""
    raise ToolException("not today")


@tool
def stubborn(file: str) -> str:
    """Compute in C with SIGTERM ignored, and with grandchildren in sessions of their own."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    loop = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"subprocess.Popen([sys.executable, '-c', {loop!r}], stdout=open({file!r}, 'a')); time.sleep(600)"
    )
    subprocess.Popen([sys.executable, "-c", code])
    while not Path(file).exists() or not Path(file).read_text().strip():
        time.sleep(0.01)
    with open(file, "a") as pids:
        print(os.getpid(), file=pids, flush=True)
    return str(sum(range(10**13)))


@tool
def polite(file: str) -> str:
    """Wait until it is asked to end, and write that down."""
    Path(file).write_text("waiting")
    try:
        while True:
            check_cancelled()
            time.sleep(0.02)
    finally:
        Path(file).write_text("asked")


@tool
def with_child(file: str) -> str:
    """Wait for a child that writes down that it got SIGTERM, and takes its time to end."""
    code = (
        "import signal, sys, time\\n"
        f"def end(*_):\\n    time.sleep(0.3); open({file!r}, 'w').write('cleaned up'); sys.exit()\\n"
        f"signal.signal(signal.SIGTERM, end); open({file!r}, 'w').write('waiting')\\n"
        "while True: time.sleep(1)"
    )
    return str(subprocess.run([sys.executable, "-c", code]).returncode)


@tool
def talk(lines: int) -> str:
    """Print lines."""
    for number in range(lines):
        print(f"line {number}")
    return "said"


@tool
def count(times: int) -> int:
    """Add to the conversation's counter."""
    return max(shared.increment("counter") for _ in range(times))


@tool
def collect(name: str) -> list[str]:
    """Add a name to the conversation's list."""
    return shared.update("names", lambda names: [*(names or []), name])


@tool(extras={"isolated": True})
def alone(word: str) -> str:
    """Say a word and the process that says it."""
    if word == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{word} {os.getpid()}"


@tool
def ask_model(question: str) -> str:
    """Nothing: replaced in the test that needs it."""
    return question
'''


def put_tools(server: Server, workspace: str, text: str = TOOLS) -> None:
    """Make a workspace whose tools are those of `text`, in addition to the shipped ones."""
    answer = server.session.put(f"/workspaces/{workspace}/files/tools/for_jobs.py", data=text.encode())
    assert answer.status_code in (200, 201), answer.text
    answer = server.session.post("/load_tools", json={"workspace": workspace})
    assert answer.status_code == 200, answer.text
    answer = server.session.post("/reload_modules", json={"workspace": workspace})
    assert answer.status_code == 200, answer.text


def begin(server: Server, tool: str, workspace: str = "jobs", **more: Any) -> str:
    """Start a job. Returns its name."""
    given = {"tool": tool, "workspace": workspace, "input": more.pop("input", {}), **more}
    answer = server.session.post("/jobs", json=given)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def job(server: Server, job_id: str) -> dict[str, Any]:
    """A job as the server shows it."""
    answer = server.session.get(f"/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def ended(server: Server, job_id: str, seconds: float = 60.0) -> dict[str, Any]:
    """A job after its end."""

    def look() -> dict[str, Any] | None:
        shown = job(server, job_id)
        return shown if shown["state"] not in ("queued", "running") else None

    found: dict[str, Any] = server.wait_until(look, f"the end of {job_id}", seconds)
    return found


def wait_for(met: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """What `met()` gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (value := met()):
        assert time.monotonic() < deadline, f"{seconds} s were not enough for {what}"
        time.sleep(0.01)
    return value
