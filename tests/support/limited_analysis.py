"""Analyses files as the sandbox does: in a forked child each, with limits of memory and time.

`python -m tests.support.limited_analysis PATH…` prints a line of JSON for each file.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from server.sandbox.inside.analysis import Refused, analyse, profile

MEMORY = 256 * 1024 * 1024
"""Bytes above the start."""
SECONDS = 10
"""Of the clock, then the child is killed."""


def main() -> None:
    import numpy
    import pandas

    # As the sandbox's zygote has them.
    assert numpy and pandas
    for path in sys.argv[1:]:
        print(json.dumps(run_limited(path)), flush=True)


def run_limited(path: str) -> dict[str, Any]:
    """`outcome` (`read`, `refused` or `died`), `reason` or `analysis`, and `seconds` of CPU."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _analyse(path, writer)
    os.close(writer)
    with os.fdopen(reader) as answers:
        answer = answers.read()
    _, status, usage = os.wait4(child, 0)
    seconds = usage.ru_utime + usage.ru_stime
    if status or not answer:
        return {"path": path, "outcome": "died", "reason": f"status {status}", "seconds": seconds}
    return {"path": path, "seconds": seconds, **json.loads(answer)}


def _analyse(path: str, writer: int) -> None:
    start = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (start + MEMORY, start + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The default action of SIGALRM ends the process; `analyse` has a handler of its own for parts of its time only.
    watcher = os.fork()
    if watcher == 0:
        parent = os.getppid()
        os.close(writer)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and os.getppid() == parent:
            time.sleep(0.05)
        if os.getppid() == parent:
            os.kill(parent, signal.SIGKILL)
        os._exit(0)
    try:
        analysis = analyse(path)
        answer: dict[str, Any] = {"outcome": "read", "analysis": analysis, "profile": profile(analysis)}
    except Refused as refusal:
        answer = {"outcome": "refused", "reason": str(refusal)}
    os.kill(watcher, signal.SIGKILL)
    os.waitpid(watcher, 0)
    with os.fdopen(writer, "w") as answers:
        json.dump(answer, answers)
    os._exit(0)


if __name__ == "__main__":
    main()
