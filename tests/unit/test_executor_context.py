"""The global context in the executor's own process. Jobs reach the same values: tests/unit/test_executor_jobs.py."""

import threading
from typing import Any

import pytest

from server.jobs.executor import GlobalContext
from server.jobs.executor.global_context import SharedValues


@pytest.fixture
def context() -> GlobalContext:
    return GlobalContext(SharedValues().execute)


def test_it_is_a_dictionary_of_json_values(context: GlobalContext) -> None:
    assert (context.get("a"), context.get("a", 3), "a" in context, len(context)) == (None, 3, False, 0)
    context.set("a", {"b": [1, None, "ä"]})
    context["c"] = 2.5
    assert context["a"] == context.get("a") == {"b": [1, None, "ä"]}
    assert (list(context), context.keys(), len(context), "c" in context) == (["a", "c"], ["a", "c"], 2, True)
    del context["c"]
    assert (context.delete("c"), context.delete("a"), len(context)) == (False, True, 0)
    for missing in (lambda: context["c"], lambda: context.__delitem__("c")):
        with pytest.raises(KeyError):
            missing()
    context["none"] = None
    assert "none" in context and context.get("none", 3) is None
    context.clear()
    assert context.keys() == []


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), b"bytes"])
def test_other_values_are_refused(context: GlobalContext, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        context.set("a", value)
    assert "a" not in context


def test_values_are_copies(context: GlobalContext) -> None:
    given = [1]
    context.set("a", given)
    given.append(2)
    context.get("a").append(3)
    assert context["a"] == [1]


def test_increments(context: GlobalContext) -> None:
    assert (context.increment("a"), context.increment("a", 4), context.increment("a", 0.5)) == (1, 5, 5.5)
    for value in ("text", True, None):
        context["b"] = value
        with pytest.raises(TypeError, match="'b' is no number"):
            context.increment("b")


def test_an_update_is_repeated_if_somebody_else_has_written(context: GlobalContext) -> None:
    seen = []

    def add(value: int) -> int:
        seen.append(value)
        if len(seen) == 1:
            context["a"] = 10
        if len(seen) == 2:
            context.delete("a")
        return value + 1

    assert context.update("a", add, default=0) == 1
    assert seen == [0, 10, 0]


def test_an_update_that_raises_changes_nothing(context: GlobalContext) -> None:
    context["a"] = 1
    with pytest.raises(ZeroDivisionError):
        context.update("a", lambda value: value // 0)
    assert context["a"] == 1


def test_updates_of_many_threads_are_atomic(context: GlobalContext) -> None:
    def work() -> None:
        for _ in range(200):
            context.update("a", lambda value: value + 1, default=0)
            context.increment("b")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (context["a"], context["b"]) == (1200, 1200)
