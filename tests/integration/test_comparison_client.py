"""Comparisons from a notebook."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hearth
import pytest

from tests.support.compared_code import SPACE, put_version
from tests.support.server_process import Server

HOSTILE = "<script>alert(1)</script> differ"


@pytest.fixture(scope="module")
def lab(server: Server) -> Iterator[tuple[hearth.Lab, str, str]]:
    """A connection to the shared server, and two generations of a workspace of this file's own."""
    old = put_version(server, "old")
    yield hearth.connect(server.url, SPACE, server.token), old, put_version(server, "new")


def test_compare(lab: tuple[hearth.Lab, str, str], tmp_path: Path) -> None:
    ours, old, new = lab
    a, b = ({"generation": one, "agent": "direct"} for one in (old, new))
    questions: list[Any] = ["same", (HOSTILE, f"new {HOSTILE}"), {"question": "crash", "expected": "CRASH"}]
    found = ours.compare(questions, a, b, check="equal", name="first", at_once=1)
    assert (found.state, found.name, found.a["generation"], found.p) == ("done", "first", old, 1.0)
    assert found.summary["changed"] == 2
    rows = found.rows
    assert list(rows["number"]) == [2, 3, 1]
    assert list(rows["a"])[:2] == [f"old {HOSTILE}", "CRASH"] and rows["b_error"][1].startswith("worker_crashed")

    shown = found._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    assert "&#x2713;" in shown and "worker_crashed" in shown
    assert "done, 3 of 3 answered, 2 changed" in repr(found) and "0 failed" in repr(found)

    with found.to_csv(tmp_path / "rows.csv").open(newline="") as file:
        assert [row["question"] for row in csv.DictReader(file)] == ["same", HOSTILE, "crash"]
    with pytest.raises(hearth.HearthError, match="can't be written"):
        found.to_csv(tmp_path / "none" / "rows.csv")
    assert ours.comparisons()[0]["comparison_id"] == found.comparison_id


def test_a_tool_judges_and_runs_are_asked_again(lab: tuple[hearth.Lab, str, str]) -> None:
    ours, old, _ = lab
    run = ours.ask("a sample", agent="direct")
    side = {"agent": "direct"}
    found = ours.compare(runs=[run.run_id], a={**side, "generation": old}, b=side, check={"tool": "lenient"})
    assert list(found.rows["question"]) == ["a sample"] and found.summary["correct"] == {"a": 1, "b": 1}


def test_questions_of_a_file(lab: tuple[hearth.Lab, str, str], tmp_path: Path) -> None:
    ours, old, new = lab
    file = tmp_path / "questions.csv"
    file.write_text('question,expected\n"differ, or not",new\n')
    a, b = ({"generation": one, "agent": "direct"} for one in (old, new))
    found = ours.compare(file, a, b, check="contains")
    assert list(found.rows["b"]) == ["new differ, or not"] and found.summary["correct"] == {"a": 0, "b": 1}
    with pytest.raises(hearth.HearthError, match=r"none\.csv can't be read"):
        ours.compare(str(tmp_path / "none.csv"), a, b)


def test_what_is_refused(lab: tuple[hearth.Lab, str, str]) -> None:
    ours, old, _ = lab
    with pytest.raises(hearth.HearthError) as raised:
        ours.compare(["one"], a=old, b="ffffff")
    assert raised.value.code == "generation_not_found"
    with pytest.raises(hearth.HearthError) as raised:
        ours.resume_comparison("nothing")
    assert raised.value.code == "comparison_not_found"


def test_without_pandas_rows_are_a_table(lab: tuple[hearth.Lab, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, old, new = lab
    monkeypatch.setitem(sys.modules, "pandas", None)
    a, b = ({"generation": one, "agent": "direct"} for one in (old, new))
    found = ours.compare(["differ"], a, b)
    assert isinstance(found.rows, hearth.Table) and found.rows["b"] == ["new differ"] and found.p is None
    assert "old differ" in found._repr_html_()
