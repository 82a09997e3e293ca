"""What holds for each analysis: its bounds, its values, and that it needs nothing else of the server."""

import datetime
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest

import server.sandbox.inside.analysis as package
from server.sandbox.inside.analysis import VERSION, profile
from server.sandbox.inside.analysis.interrupt import Interrupted, interrupted_after
from server.sandbox.inside.analysis.result import Analysis, plain


def test_it_runs_without_the_rest_of_the_server(tmp_path: Path) -> None:
    """As in the sandbox, where the package is all there is."""
    assert package.__file__
    shutil.copytree(Path(package.__file__).parent, tmp_path / "alone", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "data.csv").write_text("a;b\n1,5;x\n2,5;y\n")
    code = "import sys, alone, json; print(json.dumps(alone.analyse('data.csv'))); assert 'server' not in sys.modules"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout)["details"]["rows"] == 2


def test_its_import_loads_nothing_heavy() -> None:
    code = "import sys, server.sandbox.inside.analysis; print({'pandas', 'numpy', 'lxml', 'PIL'} & {*sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "details",
    [
        {"a": ["x" * 300] * 10_000},
        {"a": {"b": {"c": [[number] * 50 for number in range(10_000)]}}},
        {f"key {number}": number for number in range(10_000)},
        {"one": [["x" * 390] * 400], "two": {"text": ["\x01" * 390] * 300}},
    ],
)
def test_an_analysis_never_has_more_than_64_kib(details: dict[str, Any]) -> None:
    analysis = Analysis("text", "s" * 10_000, details, "code", ["why " * 1000] * 100).as_json()
    assert len(json.dumps(analysis, ensure_ascii=False).encode()) <= 64 * 1024
    assert any("64 KiB" in reason for reason in analysis["skipped"])
    assert len(profile(analysis)) <= 4_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("-inf"), "-infinity"),
        (numpy.int64(5), 5),
        (numpy.float32(0.5), 0.5),
        (numpy.bool_(True), True),
        (numpy.datetime64("2024-01-02"), "2024-01-02"),
        (pandas.NaT, None),
        (pandas.NA, None),
        (pandas.Timestamp("2024-01-02 10:00"), "2024-01-02T10:00:00"),
        (datetime.timedelta(hours=1), "1:00:00"),
        (10**1000, "an integer of 3,322 bits"),
        (b"\0" * 2000, "2,000 bytes"),
        ("a\0b\ud800", "a\N{SYMBOL FOR NULL}b?"),
        ({1: (2, 3)}, {"1": [2, 3]}),
    ],
)
def test_values_become_json(value: Any, expected: Any) -> None:
    assert plain(value) == expected


def test_code_that_catches_every_error_is_interrupted_too() -> None:
    def stubborn() -> None:
        while True:
            try:
                while True:
                    pass
            except Exception:  # as some libraries do
                continue

    with pytest.raises(Interrupted), interrupted_after(0.05):
        stubborn()


def test_the_version_is_a_part_of_cache_keys() -> None:
    assert isinstance(VERSION, int)
