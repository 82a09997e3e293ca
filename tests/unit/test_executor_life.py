"""Start, stop and reset of an executor; its callbacks; `run_once`."""

import logging
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import pytest

from server.jobs.executor import ConcurrentAgentExecutor, JobState, Message
from tests.support.executor_jobs import SECONDS, is_alive, processes_of_jobs
from tests.support.scripted_model import action
from tests.support.watched_executor import Make, executors_threads, waits


def test_callbacks_that_raise_are_logged_and_disturb_nothing(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    watched = make(action("steps", count=2), "Started.", "Ended.")
    later: list[Message] = []

    @watched.executor.on_message
    def fail(who: str, type: str, outputs: dict[str, Any]) -> None:
        raise RuntimeError("no")

    watched.executor.on_message(lambda who, type, outputs: later.append(Message(who, type, outputs)))
    with caplog.at_level(logging.ERROR):
        messages = list(watched.executor.run_once("Start."))
    watched.executor.stop()
    assert watched.messages == later == messages
    assert caplog.text.count("RuntimeError: no") == len(messages)


def test_callbacks_get_what_is_emitted(make: Make) -> None:
    watched = make()
    watched.executor.emit_message("me", "note", {"output": "hello"})
    watched.wait_until(lambda: watched.messages == [Message("me", "note", {"output": "hello"})], "no message")


def test_run_once_starts_and_stops_a_fresh_executor(make: Make) -> None:
    watched = make(start=False)
    for _ in range(2):
        watched.model.replies[:] = [action("echo", value=1), "Started.", "Ended."]
        messages = list(watched.executor.run_once({"input": "Start."}))
        answers = [message.outputs["output"] for message in messages if message.who == "agent"]
        assert answers == ["Started.", "Ended."]
        assert executors_threads() == []
    watched.model.replies[:] = [action("sleeper"), "Started."]
    iterator = cast("Generator[Message, None, None]", watched.executor.run_once("Again."))
    assert next(iterator).type == "start"
    iterator.close()
    assert executors_threads() == processes_of_jobs() == []


def test_run_once_many_times(make: Make) -> None:
    """An end that is older than the message must not end it."""
    watched = make()
    for number in range(200):
        watched.model.replies[:] = [f"answer {number}"]
        messages = list(watched.executor.run_once(f"question {number}"))
        assert [message.outputs["output"] for message in messages] == [f"answer {number}"]


def test_run_once_ends_when_the_executor_stops(make: Make) -> None:
    watched = make(action("sleeper"), "Started.")
    types = []
    for message in watched.executor.run_once("Start."):
        types.append(message.type)
        if message.type == "message":
            watched.executor.stop()
    assert types == ["start", "message", "cancel"]


def test_twice_is_harmless_and_it_may_start_again(make: Make) -> None:
    watched = make(start=False)
    watched.executor.stop()
    with watched.executor as executor:
        executor.start()
        assert len(executors_threads()) == 2
        assert len(list(executor.run_once("Hello."))) == 1
    executor.stop()
    with watched.executor as executor:
        assert len(list(executor.run_once("Hello."))) == 1


def test_messages_before_the_start_wait(make: Make) -> None:
    watched = make(start=False)
    watched.executor({"input": "Hello."})
    watched.executor.start()
    watched.wait_until(watched.answers, "no answer")
    with pytest.raises(ValueError, match="input"):
        watched.executor({"question": "Hello?"})


def test_stop_with_twenty_jobs_leaves_nothing(make: Make) -> None:
    starts = [action("sleeper"), action("stubborn"), action("counter", times=10**9), action("sleeper")] * 5
    watched = make(*starts, "All started.", max_iterations=30)
    watched.executor("Start twenty.")
    watched.wait_until(watched.answers, "no answer")
    jobs = watched.executor.jobs
    watched.wait_until(lambda: all(job.state is JobState.Running for job in jobs), "they do not run")
    assert len(jobs) == 20
    watched.executor.stop()
    assert processes_of_jobs() == executors_threads() == []
    assert not any(is_alive(job.pid) for job in jobs if job.pid is not None)
    assert {job.state for job in jobs} == {JobState.Cancelled}


def test_stop_while_the_agent_waits(make: Make) -> None:
    watched = make(action("sleeper"), waits(), "Never said.")
    watched.executor("Start it and wait.")
    watched.wait_until(lambda: len(watched.model.prompts) == 2 and watched.of("start"), "it does not wait")
    watched.executor.stop()
    assert watched.answers() == [] and [message.type for message in watched.messages] == ["start", "cancel"]


def test_stop_in_a_callback(make: Make) -> None:
    watched = make(action("sleeper"), "Started.")
    over = threading.Event()

    @watched.executor.on_message
    def end(who: str, type: str, outputs: dict[str, Any]) -> None:
        if type == "message":
            watched.executor.stop()
            over.set()

    watched.executor("Start it.")
    assert over.wait(SECONDS)
    watched.wait_until(lambda: watched.of("cancel"), "it was not cancelled")
    watched.wait_until(lambda: executors_threads() == [], "a thread is left")


def test_stop_and_start_in_a_callback(make: Make) -> None:
    watched = make("one", "two")
    again = threading.Event()

    @watched.executor.on_message
    def restart(who: str, type: str, outputs: dict[str, Any]) -> None:
        if not again.is_set():
            again.set()
            watched.executor.stop()
            watched.executor.start()
            watched.executor("Once more.")

    watched.executor("Hello.")
    watched.wait_until(lambda: watched.answers() == ["one", "two"], "it does not answer again")
    watched.wait_until(lambda: len(executors_threads()) == 2, "a thread is left")
    watched.executor.stop()
    assert executors_threads() == []


def test_reset_forgets_and_continues(make: Make) -> None:
    busy, free = threading.Event(), threading.Event()

    def wait(text: str) -> str:
        busy.set()
        assert free.wait(SECONDS)
        return action("sleeper")

    watched = make(action("sleeper"), "Started.", wait, "New.")
    executor: ConcurrentAgentExecutor = watched.executor
    executor.global_context["stays"] = True
    executor("Start it.")
    watched.wait_until(watched.answers, "no answer")
    executor("This is forgotten.")
    assert busy.wait(SECONDS)
    executor("This too.")
    executor.reset()
    assert executor.jobs == [] and processes_of_jobs() == []
    executor("Something new.")
    free.set()
    watched.wait_until(lambda: len(watched.answers()) == 2, "it does not continue")
    assert watched.answers() == ["Started.", "New."]
    assert [message.text for message in watched.model.prompts[-1][1:]] == ["Something new."]
    assert len(watched.of("start")) == len(watched.of("cancel")) == 1
    assert executor.global_context["stays"] is True
    assert executor.queue.get_multiple() == []


def test_reset_while_jobs_start_and_end(make: Make) -> None:
    def next_step(text: str) -> str:
        if text.startswith("This message comes from the system") or "Running sleeper" in text:
            return "Noted."
        return action("sleeper") if "Running echo" in text else action("echo", value=1)

    watched = make(*[next_step] * 100)
    for number in range(8):
        watched.executor(f"Start {number}.")
        watched.wait_until(lambda: watched.executor.running_jobs, "no job")
        watched.executor.reset()
        assert watched.executor.running_jobs == set()
    watched.model.replies[:] = []
    messages = list(watched.executor.run_once("Hello."))
    assert messages[-1].outputs["output"] == "Noted."


def test_no_thread_spins(make: Make, fifo: Path) -> None:
    watched = make(action("gate", fifo=str(fifo)), "Started.")
    watched.executor("Start it.")
    watched.wait_until(watched.answers, "no answer")
    watched.wait_until(lambda: watched.executor.jobs[0].state is JobState.Running, "it does not run")
    before = time.process_time()
    threading.Event().wait(1.0)  # what is measured is that nothing happens
    assert time.process_time() - before < 0.1
