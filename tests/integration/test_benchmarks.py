"""The benchmarks run, each part on its own part of the code."""

import subprocess
import sys

import pytest

from tests.support.server_process import REPOSITORY


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_each_part_prints_its_tables() -> None:
    command = [sys.executable, "-m", "benchmarks", "--few"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    parts = ended.stdout.split("\n# ")[1:]
    assert [part.partition("\n")[0] for part in parts] == [
        "startup",
        "edits",
        "questions",
        "layers",
        "reloads",
        "decoding",
        "fairness",
        "jobs",
        "tools",
        "uploads",
        "hostile",
        "analysis",
        "sandbox",
        "pictures",
        "retrieval",
        "people",
        "pages",
        "logprobs",
        "telemetry",
    ]
    assert all("\n|---|" in part for part in parts)
