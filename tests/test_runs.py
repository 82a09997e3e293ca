"""Runs: how many there may be, and how they end."""

import threading

import pytest

from server.errors import QueueFullError, RunCancelledError, ShuttingDownError
from server.runs import Run, Runs


def a_run() -> Run:
    return Run("What is 37 * 52?", "main", 6)


class Working(threading.Thread):
    """A run in a thread of its own, which goes on until it is told to end or notices that it is cancelled."""

    def __init__(self, runs: Runs) -> None:
        super().__init__()
        self.runs, self.run_ = runs, a_run()
        self.admitted, self.may_end = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with self.runs.admit(self.run_):
                self.run_.start("0123456789ab", "embedded", {})
                self.admitted.set()
                while not self.may_end.wait(0.01):
                    if self.run_.cancelled.is_set():
                        raise RunCancelledError("The run was cancelled.")
        except Exception as error:
            self.error = error


def working(runs: Runs) -> Working:
    worker = Working(runs)
    worker.start()
    assert worker.admitted.wait(10)
    return worker


def test_a_run_from_beginning_to_end() -> None:
    runs = Runs(2)
    with runs.admit(a_run()) as run:
        assert runs.in_flight() == [run]
        assert run.state == "queued"
        run.start("0123456789ab", "embedded", {})
        assert run.state == "running"
    assert run.state == "done"
    assert runs.in_flight() == []
    assert 0 <= run.queued_seconds <= run.seconds


def test_how_a_run_ended_is_kept() -> None:
    runs = Runs(2)
    failing, cancelled = a_run(), a_run()
    with pytest.raises(ZeroDivisionError), runs.admit(failing):
        raise ZeroDivisionError
    with pytest.raises(RunCancelledError), runs.admit(cancelled):
        raise RunCancelledError("The run was cancelled.")
    assert (failing.state, cancelled.state) == ("failed", "cancelled")
    assert runs.in_flight() == []


def test_there_is_a_limit() -> None:
    runs = Runs(2)
    with runs.admit(a_run()):
        with runs.admit(a_run()):
            with pytest.raises(QueueFullError) as caught, runs.admit(a_run()):
                pass
            assert caught.value.details["retry_after"] >= 1
        with runs.admit(a_run()):
            pass


def test_draining_lets_runs_finish() -> None:
    runs = Runs(2)
    worker = working(runs)
    threading.Timer(0.05, worker.may_end.set).start()
    assert runs.drain(grace=60) is True
    worker.join()
    assert worker.error is None
    assert worker.run_.state == "done"
    with pytest.raises(ShuttingDownError), runs.admit(a_run()):
        pass


def test_draining_cancels_what_does_not_finish() -> None:
    runs = Runs(2)
    worker = working(runs)
    assert runs.drain(grace=0) is True
    worker.join()
    assert isinstance(worker.error, ShuttingDownError)
    assert worker.run_.state == "cancelled"
