"""What counts as a sandbox's memory and files where no cgroup counts it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.sandbox.limits import ProcessGroup

MIB = 2**20


@contextmanager
def group(code: str, folder: Path) -> Iterator[ProcessGroup]:
    """A process, and below it one that runs this code and then waits."""
    outer = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {code + READY!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", outer], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield ProcessGroup(process.pid, [])
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


READY = "\nprint('ready', flush=True)\nimport sys\nsys.stdin.read()"


@pytest.mark.parametrize(
    ("code", "least", "most"),
    [
        ("", 0, 60),
        ("held = b'x' * (200 << 20)", 200, 260),
        ("import mmap\nm = mmap.mmap(-1, 200 << 20)\nm.write(bytes(200 << 20))", 200, 260),
        # Two processes that share memory use it once.
        ("import mmap, os\nm = mmap.mmap(-1, 200 << 20)\nm.write(bytes(200 << 20))\n"
         "if os.fork() == 0:\n    m[:]\n    os.read(0, 1)\n    os._exit(0)\n", 200, 300),
    ],
)  # fmt: skip
def test_memory(tmp_path: Path, code: str, least: int, most: int) -> None:
    with group(code, tmp_path) as found:
        _, memory, _ = found.usage()
        assert least <= memory / MIB <= most


def test_files_without_a_name(tmp_path: Path) -> None:
    code = """
import os
deleted = open("deleted", "wb")
os.unlink("deleted")
deleted.write(bytes(8 << 20)), deleted.flush()
held = os.memfd_create("held")
os.write(held, bytes(4 << 20))
open("named", "wb").write(bytes(1 << 20))
"""
    with group(code, tmp_path) as found:
        sizes = found.nameless_bytes()
        device = os.stat(tmp_path).st_dev
        assert sizes.pop(device) / MIB == pytest.approx(8, abs=0.1)
        assert sum(sizes.values()) / MIB == pytest.approx(4, abs=0.1)
