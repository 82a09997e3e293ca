"""Loading a generation in a process of its own first, which it may crash.

The child reads a pickled `Trial` from its standard input, loads it, and writes the errors as JSON to its standard
output.
"""

import faulthandler
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from server import keep
from server.reload.failure import ErrorReport, LoadError, problem
from server.reload.naming import file_of, is_reloadable, readable
from server.reload.snapshot import Snapshot

_START_SECONDS = 60.0
"""For the start of the process, and the packages that reloadable code rests on; the code's own time comes on top."""
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in ', re.MULTILINE)


@dataclass(frozen=True)
class Trial:
    """A snapshot and how to load it."""

    snapshot: Snapshot
    root: Path
    deadline_seconds: float


def try_in_a_process(trial: Trial) -> None:
    """Load `trial` in a child process and throw it away. Its tools aren't built.

    Raises `LoadError` with what is wrong with the code, also when the process crashes, exits, or does not end. What
    the code prints goes to this process's standard error.
    """
    # Files and no pipes: those would be open until the last process that the code has started ends.
    with tempfile.TemporaryFile() as verdict, tempfile.TemporaryFile() as output:
        try:
            ended = subprocess.run(
                [sys.executable, "-c", f"from {__name__} import main; main()"],
                input=pickle.dumps(trial),
                stdout=verdict,
                stderr=output,
                # The folder that the package `server` is in.
                cwd=Path(__file__).parent.parent.parent,
                timeout=_START_SECONDS + trial.deadline_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            message = "the process that tried the code first did not end and was killed"
            raise LoadError([problem(None, None, "TimeoutError", message)]) from None
        said = _content(output).decode("utf-8", "replace")
        found = _content(verdict)
    sys.stderr.write(readable(said))
    try:
        errors: list[ErrorReport] = json.loads(found)
    except ValueError:
        raise LoadError([_crash(ended.returncode, said)]) from None
    if errors:
        raise LoadError(errors)


def _content(file: IO[bytes]) -> bytes:
    """All of `file`, without moving the place that other processes write at."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def _crash(code: int, said: str) -> ErrorReport:
    """A report about a process that ended before it had a verdict; `said` has what faulthandler wrote."""
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    # Of what faulthandler wrote: what happened, and the frames of reloadable code.
    frames = [(file, int(line)) for name, line in _FRAME.findall(said) if (file := file_of(name))]
    file, line = frames[0] if frames else (None, None)
    message = f"loading the code ended its process with {how}; the server's own was spared"
    report = problem(file, line, "CrashError", message)
    shown = "".join(f'  File "{file}", line {line}\n' for file, line in reversed(frames))
    return {**report, "traceback": f"{shown}CrashError: {message}\n"}


def main() -> None:
    """Load what comes in, and say what is wrong with it."""
    trial: Trial = pickle.load(sys.stdin.buffer)
    # What the code prints must not be taken for the verdict.
    verdict = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()
    import server.engine.engine  # noqa: F401
    from server.reload.generation import load_generation

    errors: list[ErrorReport] = []
    try:
        with keep.scope(keep.Kept(is_reloadable)):
            load_generation(trial.snapshot, trial.root, trial.deadline_seconds, known={})
    except LoadError as failure:
        errors = failure.errors
    json.dump(errors, verdict)
    verdict.flush()
    # Threads that the code left behind must not hold the process.
    os._exit(0)
