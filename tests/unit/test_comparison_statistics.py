"""What the rows of a comparison say, and a comparison as CSV."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from server.comparisons.comparison import ANSWERS_DIFFER, JUDGED_DIFFERENTLY, SAME, WAITING, Cell, Row, Side
from server.comparisons.export import COLUMNS, as_csv
from server.comparisons.statistics import mcnemar_p, summary_of

FAILURE = {"type": "worker_crashed", "message": "it ended"}


def cell(answer: str | None, correct: bool | None = None, tokens: int = 10, seconds: float = 1.0) -> Cell:
    return Cell("r", answer, None if answer is not None else FAILURE, correct, tokens=tokens, seconds=seconds)


@given(st.integers(0, 60), st.integers(0, 60))
def test_p_is_that_of_statsmodels(only_a: int, only_b: int) -> None:
    if only_a + only_b:
        expected = mcnemar([[7, only_a], [only_b, 3]], exact=True).pvalue
        assert mcnemar_p(only_a, only_b) == pytest.approx(min(expected, 1.0), rel=1e-9)
    else:
        assert mcnemar_p(0, 0) == 1.0


def test_p_of_many_questions() -> None:
    assert mcnemar_p(0, 5000) == 0.0
    assert mcnemar_p(2500, 2500) == 1.0
    assert mcnemar_p(5, 0) == pytest.approx(0.0625)


def test_the_order_of_rows() -> None:
    def rank(a: Cell | None, b: Cell | None) -> int:
        return Row(1, "q", a=a, b=b).rank

    assert rank(cell("1", True), cell("1 ", False)) == JUDGED_DIFFERENTLY
    assert rank(cell("1", True), cell("2", True)) == ANSWERS_DIFFER
    assert rank(cell("1"), cell(None)) == ANSWERS_DIFFER
    assert rank(cell("1"), cell("1\n")) == SAME
    assert rank(cell(None), cell(None)) == SAME
    assert rank(cell("1"), None) == WAITING


def test_a_summary() -> None:
    rows = [
        Row(1, "q", "1", a=cell("1", True, 10, 1.0), b=cell("2", False, 30, 1.5)),
        Row(2, "q", "1", a=cell("1", True, 12, 2.0), b=cell("1", True, 12, 1.0)),
        Row(3, "q", "1", a=cell("0", False, 14, 3.0), b=cell("1", True, 10, 9.0)),
        Row(4, "q", "1", a=cell("1", True, 900, 90.0), b=cell(None, False)),
        Row(5, "q", "1", a=cell("1", True)),
        Row(6, "q", a=cell("1"), b=cell("1")),
    ]
    summary = summary_of(rows)
    assert {name: summary[name] for name in ("questions", "answered", "changed", "judged", "unjudged")} == {
        "questions": 6,
        "answered": 5,
        "changed": 3,
        "judged": 4,
        "unjudged": 1,
    }
    assert summary["failed"] == {"a": 0, "b": 1}
    assert summary["correct"] == {"a": 3, "b": 2}
    assert (summary["only_a_correct"], summary["only_b_correct"]) == (2, 1)
    assert summary["p"] == mcnemar_p(2, 1)
    # Of the pairs that both sides have answered alone: the one that failed took no part.
    assert summary["tokens"] == {"median_a": 11.0, "median_b": 11.0, "median_difference": 0.0}
    assert summary["seconds"]["median_difference"] == pytest.approx(0.25)


def test_a_summary_of_nothing() -> None:
    summary = summary_of([Row(1, "q")])
    assert summary["p"] is None
    assert summary["tokens"] == {"median_a": None, "median_b": None, "median_difference": None}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-5", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")'])
def test_no_cell_is_a_formula(text: str) -> None:
    lines = "".join(as_csv([Row(1, text, text, a=cell(text), b=cell(None))]))
    [heading, row] = csv.reader(io.StringIO(lines, newline=""))
    assert heading == list(COLUMNS)
    found = dict(zip(heading, row, strict=True))
    assert found["question"] == found["expected"] == found["a_answer"] == f"'{text}"
    assert found["b_answer"] == "" and found["b_error"] == "worker_crashed: it ended"


def test_instructions() -> None:
    def prompt(instructions: str | None) -> str:
        return Side("main", "f" * 12, "embedded", "react", 6, instructions).prompt("What is {this}?")

    assert prompt(None) == "What is {this}?"
    assert prompt("Be brief.") == "Be brief.\n\nWhat is {this}?"
    assert prompt("Q: {question} A {json}:") == "Q: What is {this}? A {json}:"
