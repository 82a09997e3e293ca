"""Jobs: each is a process of its own, and has exactly one end."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.jobs.executor import JobState
from server.jobs.executor.jobs import Job, TooManyJobsError
from tests.support import executor_tools as tools
from tests.support.executor_jobs import GRACE, SECONDS, RecordedJobs, is_alive, processes_of_jobs

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: subreaper, /proc")


@pytest.fixture
def jobs() -> Iterator[RecordedJobs]:
    made = RecordedJobs()
    yield made
    made.cancel_all()
    assert all(count == 1 for count in made.ends.values())
    assert made.ends.keys() == {job.job_id for job in made.all()}
    assert made.states_at_end == {job.job_id: job.state.value for job in made.all()}
    assert processes_of_jobs() == []


def running(jobs: RecordedJobs, tool: Any, **tool_input: Any) -> Job:
    job = jobs.run(tool, **tool_input)
    jobs.wait_until(lambda: job.state is not JobState.Starting, "it does not start")
    return job


def wait_for_reports(jobs: RecordedJobs, job: Job, count: int) -> None:
    """Until the job runs, and has reported so often or ended."""
    jobs.wait_until(lambda: job.state is not JobState.Starting, "it does not start")
    jobs.wait_until(lambda: len(job.reports) >= count or job.state.is_end, "it does not report")


def test_a_job_gives_its_result(jobs: RecordedJobs) -> None:
    given = {"text": "ä\ud800", "list": [1, 2.5, None, True]}
    job = jobs.run(tools.Echo(), value=given)
    assert job.job_id.count("-") >= 1
    jobs.wait_for_end(job)
    assert job.state is JobState.Succeeded
    assert job.result == {"text": "ä?", "list": [1, 2.5, None, True]}
    assert job.text.startswith('{"text": "ä')


def test_each_job_is_a_process_in_its_own_session_and_group(jobs: RecordedJobs) -> None:
    one, two = running(jobs, tools.Sleeper()), running(jobs, tools.Sleeper())
    assert one.pid is not None and two.pid is not None and one.pid != two.pid
    for job in (one, two):
        assert job.pid is not None
        assert os.getsid(job.pid) == os.getpgid(job.pid) == job.pid != os.getsid(0)


def test_names_differ(jobs: RecordedJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coolname.generate_slug", lambda words: "brave-otter" if words == 2 else "very-brave-otter")
    started = [jobs.run(tools.Echo(), value=1) for _ in range(4)]
    assert len({job.job_id for job in started}) == 4
    jobs.wait_for_end(*started)


def test_the_number_of_jobs_is_limited() -> None:
    few = RecordedJobs(max_jobs=2)
    few.run(tools.Sleeper())
    few.run(tools.Sleeper())
    with pytest.raises(TooManyJobsError, match="2 jobs are running"):
        few.run(tools.Sleeper())
    few.cancel_all()
    few.wait_for_end(few.run(tools.Echo(), value=1))


def test_a_generator_reports(jobs: RecordedJobs) -> None:
    steps, answering = jobs.run(tools.Steps(), count=3), jobs.run(tools.Answering())
    jobs.wait_for_end(steps, answering)
    assert list(steps.reports) == ['{"step": 0}', '{"step": 1}', '{"step": 2}']
    assert steps.result == {"step": 2}
    assert (list(answering.reports), answering.result) == (["half"], "whole")


def test_functions_are_background_tools_too(jobs: RecordedJobs) -> None:
    one, two = jobs.run(tools.plus_one, number=1), jobs.run(tools.plus_two, number=1)
    jobs.wait_for_end(one, two)
    assert (one.result, two.result) == (2, 3)
    assert jobs.context["number"] == 1


def test_a_job_has_the_environment_and_the_folder_of_its_start(
    jobs: RecordedJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.wait_for_end(jobs.run(tools.Echo(), value=1))  # the fork server runs
    monkeypatch.setenv("HEARTH_TEST_VALUE", "new")
    monkeypatch.chdir(tmp_path)
    job = jobs.run(tools.Place())
    jobs.wait_for_end(job)
    assert job.result == ["new", str(tmp_path)]


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("exception", "ToolException: no value for tin"),
        ("exit", "its process ended with exit code 3"),
        ("sys.exit", "SystemExit: enough"),
        ("abort", "its process was killed by SIGABRT"),
        ("term", "its process was killed by SIGTERM"),
        ("large", "the limit is 16,777,216"),
    ],
)
def test_a_job_fails(jobs: RecordedJobs, how: str, text: str) -> None:
    job = jobs.run(tools.Failing(), how=how)
    jobs.wait_for_end(job)
    assert job.state is JobState.Failed and text in job.text
    assert ("Traceback" in job.traceback) == (how in ("exception", "sys.exit", "large"))


def test_a_result_that_is_not_json_becomes_text(jobs: RecordedJobs) -> None:
    job = jobs.run(tools.Failing(), how="not at all")
    jobs.wait_for_end(job)
    assert job.state is JobState.Succeeded and job.result == job.text == "<class 'object'>"


def test_a_process_that_is_killed_while_it_writes_its_result_has_failed(jobs: RecordedJobs) -> None:
    job = jobs.run(tools.HalfAResult())
    jobs.wait_for_end(job)
    assert (job.state, job.text) == (JobState.Failed, "its process was killed by SIGKILL")


def test_a_process_that_sends_no_message_is_ended(jobs: RecordedJobs) -> None:
    job = jobs.run(tools.Garbage())
    jobs.wait_for_end(job)
    assert job.state is JobState.Failed and "no message" in job.text


@LINUX
def test_two_hundred_random_kills_give_one_end_each(jobs: RecordedJobs) -> None:
    chance = random.Random(20)
    ends: dict[str, int] = {"succeeded": 0, "failed": 0}
    for _ in range(20):
        started = [jobs.run(tools.Writer()) for _ in range(10)]
        for job in started:
            wait_for_reports(jobs, job, chance.randint(0, 20))
            victim = job.pid
            try:
                assert victim is not None
                if chance.random() < 0.3:
                    victim = psutil.Process(victim).ppid()  # the guard
                if is_alive(victim) and victim != 1:
                    os.kill(victim, signal.SIGKILL)
            except (ProcessLookupError, psutil.NoSuchProcess):
                pass
        jobs.wait_for_end(*started)
        for job in started:
            ends[job.state.value] += 1
            assert job.state is JobState.Succeeded or "SIGKILL" in job.text, job.text
            assert job.pid is not None and not is_alive(job.pid)
    assert len(jobs.ends) == 200 and set(jobs.ends.values()) == {1}
    assert ends["failed"] >= 50, ends


@LINUX
def test_jobs_can_be_spawned_as_on_other_systems(jobs: RecordedJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.jobs.executor.process.METHOD", "spawn")
    before = set(psutil.Process().children())
    echo, sleeper, killed = jobs.run(tools.Echo(), value=1), jobs.run(tools.Sleeper()), jobs.run(tools.Sleeper())
    jobs.wait_until(lambda: all(job.state is not JobState.Starting for job in (sleeper, killed)), "they do not start")
    assert killed.pid is not None
    os.kill(psutil.Process(killed.pid).ppid(), signal.SIGKILL)
    jobs.cancel([sleeper])
    jobs.wait_for_end(echo, sleeper, killed)
    assert [job.state.value for job in (echo, sleeper, killed)] == ["succeeded", "cancelled", "failed"]
    assert killed.text == "its guard process was killed by SIGKILL"
    assert not set(psutil.Process().children()) - before


# Cancelling


@LINUX
@pytest.mark.parametrize("attempt", range(5))
def test_nothing_is_left_of_a_loop_in_c_that_ignores_sigterm(jobs: RecordedJobs, attempt: int) -> None:
    job = jobs.run(tools.Stubborn())
    pids = [int(pid) for pid in jobs.wait_for_report().split()]
    assert len(pids) == 4 and all(map(is_alive, pids))
    began = time.monotonic()
    jobs.cancel([job])
    assert time.monotonic() - began < GRACE + 1
    assert not any(map(psutil.pid_exists, pids))
    assert (job.state, job.text) == (JobState.Cancelled, "")


@LINUX
def test_nothing_is_left_of_processes_that_a_tool_starts_by_multiprocessing(jobs: RecordedJobs) -> None:
    job = jobs.run(tools.Pool())
    pids = [int(pid) for pid in jobs.wait_for_report().split()]
    below = psutil.Process(job.pid).children(recursive=True)
    assert {one.pid for one in below} >= set(pids)
    jobs.cancel([job])
    assert not any(psutil.pid_exists(one.pid) for one in below)


@LINUX
def test_nothing_is_left_when_a_tool_returns_or_its_guard_is_killed(jobs: RecordedJobs) -> None:
    left = jobs.run(tools.LeavesAProcess())
    jobs.wait_for_end(left)
    assert left.state is JobState.Succeeded and not psutil.pid_exists(left.result)

    job = jobs.run(tools.LeavesAProcess(), then_sleep=True)
    pid = int(jobs.wait_for_report(2))
    assert job.pid is not None
    os.kill(psutil.Process(job.pid).ppid(), signal.SIGKILL)
    jobs.wait_for_end(job)
    assert (job.state, job.text) == (JobState.Failed, "its guard process was killed by SIGKILL")
    assert not is_alive(pid)


def test_finally_blocks_run_in_the_grace_period(jobs: RecordedJobs, tmp_path: Path) -> None:
    file = tmp_path / "cleaned"
    job = jobs.run(tools.Cleaner(), finally_file=str(file))
    jobs.wait_for_report()
    jobs.cancel([job])
    assert job.state is JobState.Cancelled
    assert file.read_text(encoding="utf-8") == "cleaned up"


def test_cancelled_before_it_starts_right_after_and_while_it_starts(jobs: RecordedJobs) -> None:
    chance = random.Random(3)
    for _ in range(30):
        job = jobs.run(tools.Sleeper())
        delay = chance.choice((0.0, 0.0, chance.uniform(0, 0.06)))
        deadline = time.monotonic() + delay
        while time.monotonic() < deadline:
            with jobs._changed:
                jobs._changed.wait(deadline - time.monotonic())
        jobs.cancel([job])
        assert job.state is JobState.Cancelled, job.text
    jobs.wait_for_end(*jobs.all())


def test_a_job_that_has_ended_stays_as_it_is(jobs: RecordedJobs) -> None:
    job = jobs.run(tools.Echo(), value=1)
    jobs.wait_for_end(job)
    jobs.cancel([job])
    assert (job.state, job.result) == (JobState.Succeeded, 1)


def test_a_job_may_be_cancelled_by_several_at_once(jobs: RecordedJobs) -> None:
    from concurrent.futures import ThreadPoolExecutor

    started = [jobs.run(tools.Sleeper()) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(jobs.cancel, [started] * 8))
    assert {job.state for job in started} == {JobState.Cancelled}
    jobs.wait_for_end(*started)


def test_a_stopped_process_is_cancelled(jobs: RecordedJobs) -> None:
    job = running(jobs, tools.Sleeper())
    assert job.pid is not None
    os.kill(job.pid, signal.SIGSTOP)
    jobs.cancel([job])
    assert job.state is JobState.Cancelled and not is_alive(job.pid)


@LINUX
def test_jobs_end_with_the_executors_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.support.executor_jobs import RecordedJobs\n"
        "from tests.support.executor_tools import Stubborn\n"
        "if __name__ == '__main__':\n"
        "    jobs = RecordedJobs()\n"
        "    jobs.run(Stubborn())\n"
        "    print(jobs.wait_for_report(), flush=True)\n"
        "    input()\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 4 and all(map(is_alive, pids))
        process.kill()
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=SECONDS)
    assert alive == []


@LINUX
def test_a_fork_server_that_was_killed_is_replaced(jobs: RecordedJobs) -> None:
    job = running(jobs, tools.Sleeper())
    server = next(one for one in psutil.Process().children() if "multiprocessing.forkserver" in str(one.cmdline()))
    server.kill()
    jobs.wait_for_end(job)
    assert job.state is JobState.Failed and job.pid is not None and not is_alive(job.pid)
    other = jobs.run(tools.Echo(), value=1)
    jobs.wait_for_end(other)
    assert other.state is JobState.Succeeded


# The global context


def test_increments_and_updates_of_many_jobs_are_atomic(jobs: RecordedJobs) -> None:
    started = [jobs.run(tools.Counter(), times=25) for _ in range(4)]
    for _ in range(100):
        jobs.context.increment("incremented")
    jobs.wait_for_end(*started)
    assert jobs.context["incremented"] == 200
    assert sorted(jobs.context["updated"]) == sorted(job.result for job in started for _ in range(25))
    assert {job.result for job in started} == {job.pid for job in started}
