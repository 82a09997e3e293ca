"""What the rows of a comparison say about its two sides."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import comb
from statistics import median
from typing import Any

from server.comparisons.comparison import Cell, Row


def mcnemar_p(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test: how probable a difference of at least this size is if both sides
    are equally good. `only_a`, `only_b`: the questions that only this side has answered correctly."""
    changed = only_a + only_b
    extreme = sum(comb(changed, count) for count in range(min(only_a, only_b) + 1))
    return min(1.0, float(2 * extreme / 2**changed))


def summary_of(rows: Iterable[Row]) -> dict[str, Any]:
    """Counts, McNemar's test, and medians of tokens and seconds. Differences are b - a, of the questions that both
    sides have answered. The texts of `rows` are read once, and not held."""
    questions = changed = 0
    failed = {"a": 0, "b": 0}
    ended: list[tuple[Cell, Cell]] = []
    for row in rows:
        questions += 1
        changed += bool(row.has_changed)
        failed["a"] += row.a is not None and row.a.answer is None
        failed["b"] += row.b is not None and row.b.answer is None
        if row.a is not None and row.b is not None:
            ended.append((_without_text(row.a), _without_text(row.b)))
    judged = [(one, other) for one, other in ended if one.correct is not None and other.correct is not None]
    answered = [(one, other) for one, other in ended if one.answer is not None and other.answer is not None]
    only_a = sum(bool(one.correct and not other.correct) for one, other in judged)
    only_b = sum(bool(other.correct and not one.correct) for one, other in judged)
    return {
        "questions": questions,
        "answered": len(ended),
        "changed": changed,
        "failed": failed,
        "unjudged": len(ended) - len(judged),
        "judged": len(judged),
        "correct": {
            "a": sum(bool(one.correct) for one, _ in judged),
            "b": sum(bool(other.correct) for _, other in judged),
        },
        "only_a_correct": only_a,
        "only_b_correct": only_b,
        "p": mcnemar_p(only_a, only_b) if judged else None,
        "tokens": _compared(answered, "tokens"),
        "seconds": _compared(answered, "seconds"),
    }


def _without_text(cell: Cell) -> Cell:
    return replace(cell, answer=None if cell.answer is None else "")


def _compared(pairs: Sequence[tuple[Cell, Cell]], name: str) -> dict[str, float | None]:
    """Medians of both sides, and of the difference of each pair; None without a pair."""
    values = [(float(getattr(one, name)), float(getattr(other, name))) for one, other in pairs]
    if not values:
        return {"median_a": None, "median_b": None, "median_difference": None}
    return {
        "median_a": median(one for one, _ in values),
        "median_b": median(other for _, other in values),
        "median_difference": median(other - one for one, other in values),
    }
