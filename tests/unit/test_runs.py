"""Runs: how many there may be, and how they end."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from server.errors import (
    HearthError,
    PromptTooLongError,
    QueueFullError,
    RunCancelledError,
    RunNotFoundError,
    RunTimedOutError,
    ShuttingDownError,
)
from server.runs import Run, Runs, record_of
from server.sdk import context


def step(thought: str = "I need to wait.") -> dict[str, Any]:
    """As a worker sends it."""
    return {"thought": thought, "tool": "wait", "input": {}, "observation": "done"}


@dataclass
class Result:
    """As a worker sends it."""

    answer: str = "1924"
    function: str | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    citations: list[Any] = field(default_factory=list)


class Lab:
    """Runs that continue until `may_end` is set or they notice that they are stopped."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []
        self.runs = Runs(2, 2)
        self.may_end = threading.Event()

    def work(self, run: Run, result: Result | None = None) -> Callable[[], Result]:
        """What such a run does."""

        def wait() -> Result:
            run.start("embedded", {})
            with context.scope(cancelled=run.cancelled):
                run.add_step(step())
                while not self.may_end.wait(0.01):
                    context.check_cancelled()
            return result or Result()

        return wait

    def save(self, run: Run) -> None:
        self.kept.append(record_of(run))

    def begin(self, work: Callable[[], Any] | None = None) -> Run:
        """Such a run, under way."""
        run = a_run()
        self.runs.begin(run, work or self.work(run), self.save)
        return run


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Its runs end with the test."""
    made = Lab()
    yield made
    made.may_end.set()
    assert made.runs.drain(grace=60)


def a_run() -> Run:
    return Run("What is 37 * 52?", "main", 6)


def kinds(run: Run) -> list[str]:
    return [event.kind for event in run.events.since(0)]


def until(run: Run, kind: str) -> None:
    """Wait until that has happened."""
    number = 0
    while kind not in kinds(run):
        found = run.events.since(number, 60)
        assert found, f"{kind} does not come"
        number = found[-1].number


def fail(error: BaseException) -> Any:
    raise error


def test_a_run_from_beginning_to_end(lab: Lab) -> None:
    run = lab.begin()
    until(run, "started")
    assert (lab.runs.in_flight(), run.state) == ([run], "running") and lab.runs.get(run.id) is run
    lab.may_end.set()
    assert run.ended.wait(60)
    assert run.state == "done" and run.answer is not None and run.error is None
    assert lab.runs.in_flight() == [] and lab.runs.get(run.id) is run
    assert 0 <= run.queued_seconds <= run.seconds
    assert kinds(run) == ["started", "step", "answer"]
    assert run.events.since(0)[-1].data == run.answer
    assert [one["run_id"] for one in lab.kept] == [run.id]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PromptTooLongError("It is too long.", tokens=9, limit=8), "prompt_too_long"),
        (ZeroDivisionError("a secret"), "internal"),
        (SystemExit(3), "internal"),
        (KeyboardInterrupt(), "internal"),
    ],
)
def test_how_a_run_failed_is_reported_and_saved(lab: Lab, error: BaseException, code: str) -> None:
    run = lab.begin(lambda: fail(error))
    assert run.ended.wait(60)
    assert run.state == "failed" and run.error is not None and run.error.code == code
    assert run.error.__traceback__ is None and run.error.__cause__ is None and run.error.__context__ is None
    [event] = run.events.since(0)
    assert (event.kind, event.data["type"]) == ("error", code)
    assert lab.kept[0]["error"] == {"type": code, "message": run.error.message}
    assert "secret" not in str(event)


def test_steps_that_an_agent_does_not_send_are_sent_at_its_end(lab: Lab) -> None:
    run = a_run()

    def work() -> Result:
        run.add_step(step("first"))
        return Result(steps=[step("first"), step("second"), {**step("third"), "error": "it failed"}])

    lab.runs.begin(run, work, lab.save)
    assert run.ended.wait(60) and run.answer is not None
    assert kinds(run) == ["step", "step", "step", "answer"]
    assert [event.data for event in run.events.since(0)][:3] == run.answer["steps"]


def test_a_run_that_is_cancelled_tells_its_steps(lab: Lab) -> None:
    run = lab.begin()
    until(run, "step")
    assert run.stop(RunCancelledError("It was cancelled."))
    assert run.stop(ShuttingDownError("Too late to be the reason.")), "it is still about to end"
    assert run.ended.wait(60)
    assert run.state == "cancelled"
    assert run.error is not None and run.error.message == "It was cancelled."
    assert run.error.details["steps"] == lab.kept[0]["steps"] == run.steps
    assert [step["tool"] for step in run.steps] == ["wait"]
    assert not run.stop(RunCancelledError("It has ended."))


def test_a_run_that_is_out_of_time_is_stopped_whatever_it_does(lab: Lab) -> None:
    run = a_run()
    run.timeout = 0.05
    lab.runs.begin(run, lab.work(run), lab.save)
    assert run.ended.wait(60)
    assert run.state == "failed" and run.error is not None and run.error.code == "run_timed_out"
    assert run.error.details["steps"] == run.steps == [step()]


def test_a_run_that_is_reported_as_cancelled_has_no_answer(lab: Lab) -> None:
    run = a_run()

    def answer_all_the_same() -> Result:
        assert run.stop(RunCancelledError("It was cancelled."))
        return Result()

    lab.runs.begin(run, answer_all_the_same, lab.save)
    assert run.ended.wait(60)
    assert (run.state, run.answer) == ("cancelled", None)


def test_stopping_and_ending_at_once(lab: Lab) -> None:
    for _ in range(200):
        run, go = a_run(), threading.Barrier(2)

        def work(go: threading.Barrier = go) -> Result:
            go.wait(60)
            return Result()

        lab.runs.begin(run, work, lab.save)
        go.wait(60)
        stopped = run.stop(RunCancelledError("It was cancelled."))
        assert run.ended.wait(60)
        assert (run.state, run.answer is None) == (("cancelled", True) if stopped else ("done", False))


def test_there_is_a_limit(lab: Lab) -> None:
    first, second = lab.begin(), lab.begin()
    with pytest.raises(QueueFullError) as caught:
        lab.begin()
    assert caught.value.details["retry_after"] >= 1
    first.stop(RunCancelledError("It was cancelled."))
    assert first.ended.wait(60)
    third = lab.begin()
    assert lab.runs.in_flight() == [second, third]


def test_a_run_that_is_not_known(lab: Lab) -> None:
    with pytest.raises(RunNotFoundError):
        lab.runs.get("0123456789abcdef")


def test_draining_lets_runs_finish(lab: Lab) -> None:
    run = lab.begin()
    until(run, "started")
    threading.Timer(0.05, lab.may_end.set).start()
    assert lab.runs.drain(grace=60) is True
    assert run.ended.wait(60) and run.state == "done"
    with pytest.raises(ShuttingDownError):
        lab.begin()


def test_draining_cancels_what_does_not_finish(lab: Lab) -> None:
    run = lab.begin()
    assert lab.runs.drain(grace=0) is True
    assert run.ended.wait(60)
    assert run.state == "cancelled"
    assert isinstance(run.error, HearthError) and run.error.code == "shutting_down"


def test_a_thread_that_can_not_start_stops_nothing_for_good(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = threading.Thread.start
    for name in ("time limits", "run"):

        def fails(thread: threading.Thread, name: str = name) -> None:
            if thread.name.startswith(name):
                raise RuntimeError("can't start new thread")
            starts(thread)

        monkeypatch.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError):
            lab.begin()
        assert lab.runs.in_flight() == []
    monkeypatch.setattr(threading.Thread, "start", starts)
    run = a_run()
    run.timeout = 0.01
    lab.runs.begin(run, lab.work(run), lab.save)
    assert run.ended.wait(60) and isinstance(run.error, RunTimedOutError)


def test_those_who_are_refused_do_not_come_back_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.runs.queue, "seconds_until", lambda ends: 10 * ends)
    lab.begin()
    lab.begin()
    waits = set()
    for _ in range(100):
        with pytest.raises(QueueFullError) as caught:
            lab.begin()
        waits.add(caught.value.details["retry_after"])
    assert len(waits) > 3 and min(waits) >= 10 and max(waits) <= 20


def test_the_texts_of_ended_runs_are_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.runs.runs.REMEMBERED_CHARACTERS", 1000)
    ended = []
    for _ in range(5):
        run = lab.begin(lambda: Result("x" * 300))
        assert run.ended.wait(60)
        ended.append(run)
    assert lab.runs.get(ended[-1].id) is ended[-1]
    with pytest.raises(RunNotFoundError):
        lab.runs.get(ended[0].id)
