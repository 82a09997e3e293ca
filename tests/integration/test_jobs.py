"""Jobs over HTTP: their states and their one end, cancelling, bounds, logs and events."""

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.event_stream import Event, read
from tests.support.job_tools import begin, ended, job, put_tools, wait_for
from tests.support.server_process import REPOSITORY, Server, end, start

GRACE = 1.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the tools in the workspace `jobs`."""
    settings: dict[str, object] = {"JOB_GRACE": GRACE, "MAX_JOBS": 6, "MAX_QUEUED_JOBS": 80}
    made = start(tmp_path_factory.mktemp("jobs") / "server", REPOSITORY, settings)
    try:
        made.wait_until_ready()
        put_tools(made, "jobs")
        yield made
    finally:
        end(made)


def running(lab: Server, name: str) -> int:
    """Wait until a job runs. Returns the pid of its worker."""
    lab.wait_until(lambda: job(lab, name)["state"] == "running", f"the start of {name}")

    def busy() -> int | None:
        workers = [one for one in lab.health()["workers"] if one["workspace"] == "jobs" and one["state"] == "busy"]
        return int(workers[0]["pid"]) if workers else None

    pid: int = lab.wait_until(busy, "its worker")
    return pid


def events_of(lab: Server, name: str, after: str | None = "0") -> list[Event]:
    """The events of a job until its end, without pings."""
    answer = lab.session.get(f"/jobs/{name}/events", headers={"Last-Event-ID": str(after)}, stream=True)
    return [event for event in read(answer) if event.kind != "ping"]


def test_a_job_gives_its_result(lab: Server) -> None:
    """Any tool runs as a job; what it gives is in the job."""
    name = begin(lab, "calculator", input={"expression": "37 * 52"})
    shown = ended(lab, name)
    assert (shown["state"], shown["result"], shown["tries"]) == ("succeeded", "1924", 1)
    assert shown["created_at"] <= shown["started_at"] <= shown["ended_at"]
    assert name.count("-") == 1 and name == name.lower()
    listed = lab.session.get("/jobs", params={"state": "succeeded", "workspace": "jobs"}).json()["jobs"]
    assert name in [one["job_id"] for one in listed]


def test_progress_is_seen_while_it_runs(lab: Server) -> None:
    name = begin(lab, "nap", input={"seconds": 1})
    seen = lab.wait_until(lambda: job(lab, name).get("progress"), "its progress")
    assert seen["total"] == 10 and seen["message"] == "asleep"
    assert ended(lab, name)["progress"]["done"] == 10
    assert lab.session.get(f"/jobs/{name}/log").text.startswith("rested in ")


@pytest.mark.parametrize(
    ("tool", "given", "kind", "words"),
    [
        ("fail", {"reason": "no more tin"}, "tool_failed", "no more tin"),
        ("refuse", {}, "tool_failed", "not today"),
        ("crash", {}, "worker_crashed", "SIGSEGV"),
        ("nap", {"seconds": "long"}, "tool_failed", "seconds"),
    ],
)
def test_a_failure_says_why(lab: Server, tool: str, given: dict[str, Any], kind: str, words: str) -> None:
    shown = ended(lab, begin(lab, tool, input=given))
    assert shown["state"] == "failed" and "result" not in shown
    assert shown["error"]["type"] == kind and words in shown["error"]["message"]
    assert ("traceback" in shown["error"]) == (tool == "fail")


def test_a_time_limit_holds(lab: Server) -> None:
    shown = ended(lab, begin(lab, "nap", input={"seconds": 60}, timeout=0.5))
    assert shown["state"] == "failed" and "0.5 seconds" in shown["error"]["message"]


def test_what_cant_be_started_is_refused(lab: Server) -> None:
    def refused(**given: Any) -> tuple[int, str]:
        answer = lab.session.post("/jobs", json={"workspace": "jobs", **given})
        return answer.status_code, answer.json()["error"]["type"]

    assert refused(tool="unknown") == (404, "tool_not_found")
    assert refused(tool="nap", workspace="nobody") == (404, "workspace_not_found")
    assert refused(tool="nap", input=[1]) == (422, "invalid_request")
    assert refused(tool="nap", timeout=10**9) == (422, "invalid_request")
    assert refused(tool="nap", generation="ffffff") == (404, "generation_not_found")
    for method, path in (("get", ""), ("delete", ""), ("get", "/log"), ("get", "/events"), ("post", "/retry")):
        answer = getattr(lab.session, method)(f"/jobs/no-such{path}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "job_not_found")


def test_what_a_job_needs_is_checked_when_tools_are_loaded(lab: Server) -> None:
    text = (
        "from langchain_core.tools import tool\n\n\n@tool(extras={'background': True, 'num_gpus': 'one'})\n"
        "def compute() -> str:\n    'Compute.'\n    return 'done'\n"
    )
    lab.session.put("/workspaces/amounts/files/tools/compute.py", data=text.encode())
    answer = lab.session.post("/load_tools", json={"workspace": "amounts"})
    assert answer.status_code == 422, answer.text
    report = answer.json()["error"]["errors"][0]
    assert report["file"] == "server/tools/compute.py" and "num_gpus is 'one'" in report["message"]


@pytest.mark.parametrize("moment", ["at once", "when it runs"])
def test_a_cancelled_job_never_succeeds(lab: Server, moment: str) -> None:
    name = begin(lab, "nap", input={"seconds": 30})
    if moment == "when it runs":
        pid = running(lab, name)
    shown = lab.session.delete(f"/jobs/{name}").json()
    assert shown["state"] == "cancelled" and "result" not in shown
    if moment == "when it runs":
        assert not psutil.pid_exists(pid)
    again = lab.session.delete(f"/jobs/{name}")
    assert (again.status_code, again.json()["error"]["type"]) == (409, "job_ended")


def test_cancelling_at_any_moment_ends_once(lab: Server) -> None:
    """While jobs start and end by themselves, cancels arrive: each job has one end, and it stays."""
    names = [begin(lab, "nap", input={"seconds": 0.1 * (number % 3)}) for number in range(15)]

    def cancel(name: str) -> None:
        answer = lab.session.delete(f"/jobs/{name}")
        assert answer.status_code == 200 or answer.json()["error"]["type"] == "job_ended", answer.text

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(cancel, names))
    shown = [ended(lab, name) for name in names]
    assert {one["state"] for one in shown} <= {"cancelled", "succeeded"}
    assert [one["state"] for one in shown] == [job(lab, name)["state"] for name in names]
    for name, one in zip(names, shown, strict=True):
        kinds = [event.kind for event in events_of(lab, name)]
        assert kinds.count("end") == 1 and kinds[-1] == "end", (kinds, one)


def test_a_tool_is_asked_first(lab: Server, tmp_path: Path) -> None:
    """`check_cancelled` raises, so its `finally` runs."""
    file = tmp_path / "polite"
    name = begin(lab, "polite", input={"file": str(file)})
    lab.wait_until(file.exists, "the tool")
    assert lab.session.delete(f"/jobs/{name}").json()["state"] == "cancelled"
    assert file.read_text() == "asked"


def test_a_childs_clean_up_has_the_grace(lab: Server, tmp_path: Path) -> None:
    file = tmp_path / "child"
    name = begin(lab, "with_child", input={"file": str(file)})
    lab.wait_until(lambda: file.exists() and file.read_text() == "waiting", "the child")
    assert lab.session.delete(f"/jobs/{name}").json()["state"] == "cancelled"
    assert file.read_text() == "cleaned up"


def stubborn(lab: Server, file: Path) -> None:
    """Start a job that does not want to end, cancel it, and see that nothing of it is left."""
    name = begin(lab, "stubborn", input={"file": str(file)})
    pids = lab.wait_until(lambda: file.exists() and file.read_text().count("\n") == 2, "its processes")
    pids = [int(pid) for pid in file.read_text().split()]
    assert all(map(psutil.pid_exists, pids))
    assert lab.session.delete(f"/jobs/{name}").json()["state"] == "cancelled"
    assert not any(map(psutil.pid_exists, pids))


def test_nothing_is_left_of_a_stubborn_job(lab: Server, tmp_path: Path) -> None:
    """A C loop that ignores SIGTERM, with grandchildren in other sessions."""
    for number in range(5):
        stubborn(lab, tmp_path / str(number))


@pytest.mark.slow
def test_nothing_is_left_of_stubborn_jobs(lab: Server, tmp_path: Path) -> None:
    """The same, often."""
    for number in range(100):
        stubborn(lab, tmp_path / str(number))


def test_a_kill_is_a_failure_with_its_signal(lab: Server) -> None:
    name = begin(lab, "nap", input={"seconds": 30})
    os.kill(running(lab, name), signal.SIGKILL)
    shown = ended(lab, name)
    assert shown["state"] == "failed" and shown["error"]["signal"] == "SIGKILL"


def test_a_retry_is_a_new_job(lab: Server) -> None:
    name = begin(lab, "nap", input={"seconds": 30, "word": "x"})
    answer = lab.session.post(f"/jobs/{name}/retry")
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "job_ended")
    lab.session.delete(f"/jobs/{name}")
    other = lab.session.post(f"/jobs/{name}/retry").json()["job_id"]
    lab.wait_until(lambda: job(lab, other)["state"] == "running", "the retry")
    assert job(lab, name)["state"] == "cancelled"
    assert job(lab, other)["retry_of"] == name and job(lab, other)["input"] == job(lab, name)["input"]
    assert lab.session.delete(f"/jobs/{other}").json()["state"] == "cancelled"


def test_a_long_log_keeps_both_ends(lab: Server) -> None:
    name = begin(lab, "talk", input={"lines": 50_000})
    assert ended(lab, name)["state"] == "succeeded"
    log = lab.session.get(f"/jobs/{name}/log").text
    assert log.startswith("line 0\n") and "line 49999" in log and "characters left out" in log
    assert len(log) < 250_000


def test_events_say_what_happens(lab: Server) -> None:
    name = begin(lab, "nap", input={"seconds": 0.5})
    events = events_of(lab, name)
    kinds = [event.kind for event in events]
    assert kinds[0] == "state" and kinds[-1] == "end" and {"progress", "log"} <= set(kinds)
    assert events[-1].data["state"] == "succeeded"
    assert [event.kind for event in events_of(lab, name, events[-2].id)] == ["end"]
    over = lab.session.get(f"/jobs/{name}/events", headers={"Last-Event-ID": str(events[-1].id)})
    assert over.status_code == 204


def test_who_follows_a_queued_job_reads_its_end(lab: Server) -> None:
    blocking = [begin(lab, "nap", input={"seconds": 60}) for _ in range(6)]
    lab.wait_until(lambda: all(job(lab, name)["state"] == "running" for name in blocking), "all places")
    cancelled, started = (begin(lab, "talk", input={"lines": 1}) for _ in range(2))
    with ThreadPoolExecutor(6) as pool:
        streams = [pool.submit(events_of, lab, name) for name in (cancelled, started)]
        lab.session.delete(f"/jobs/{cancelled}")
        assert streams[0].result()[-1].data["state"] == "cancelled"
        list(pool.map(lambda name: lab.session.delete(f"/jobs/{name}"), blocking))
        assert streams[1].result()[-1].data["state"] == "succeeded"


def test_jobs_keep_their_code(lab: Server) -> None:
    """A job that waits while its tool changes runs what it was started with."""
    workspace = "changing"
    text = "from langchain_core.tools import tool\n\n\n@tool\ndef version() -> str:\n    'Say it.'\n    return {!r}\n"
    put_tools(lab, workspace, text.format("old"))
    blocking = [begin(lab, "nap", input={"seconds": 2}) for _ in range(6)]
    old = begin(lab, "version", workspace)
    put_tools(lab, workspace, text.format("new"))
    new = begin(lab, "version", workspace)
    assert (ended(lab, old)["result"], ended(lab, new)["result"]) == ("old", "new")
    for name in blocking:
        ended(lab, name)
    generation = job(lab, old)["generation"]
    answer = lab.session.delete(f"/generations/{generation}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "generation_in_use")


def test_too_many_wait_for_nobody_else(lab: Server) -> None:
    """One person has a quarter of the places. Another one still gets one, and the next free one at that."""
    blocking = [begin(lab, "nap", input={"seconds": 60}) for _ in range(6)]
    lab.wait_until(lambda: all(job(lab, name)["state"] == "running" for name in blocking), "all places")
    waiting = [begin(lab, "nap", input={"seconds": 60}) for _ in range(20)]
    answer = lab.session.post("/jobs", json={"tool": "nap", "workspace": "jobs", "input": {"seconds": 60}})
    assert answer.status_code == 429 and answer.json()["error"]["type"] == "queue_full"
    assert int(answer.headers["Retry-After"]) >= 1
    other = begin(lab, "calculator", "main", input={"expression": "1 + 1"})
    assert job(lab, other)["state"] == "queued"
    assert lab.session.delete(f"/jobs/{blocking[0]}").json()["state"] == "cancelled"
    assert ended(lab, other)["result"] == "2"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: lab.session.delete(f"/jobs/{name}"), [*reversed(waiting), *blocking]))
    assert all(ended(lab, name)["state"] == "cancelled" for name in [*waiting, *blocking])


def test_priorities_and_order(lab: Server) -> None:
    """Of one person's jobs the higher priority is next, and among equals the first."""
    blocking = [begin(lab, "nap", input={"seconds": 60}) for _ in range(6)]
    lab.wait_until(lambda: all(job(lab, name)["state"] == "running" for name in blocking), "all places")
    later = [begin(lab, "talk", input={"lines": 1}, priority=priority) for priority in (0, 0, 5)]
    # One place, so that they run one after the other.
    lab.session.delete(f"/jobs/{blocking[0]}")
    starts = [ended(lab, name)["started_at"] for name in later]
    assert starts[2] < starts[0] < starts[1]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda name: lab.session.delete(f"/jobs/{name}"), blocking[1:]))


def test_lists_page(lab: Server) -> None:
    names = [begin(lab, "talk", input={"lines": 1}) for _ in range(3)]
    for name in names:
        ended(lab, name)
    page = lab.session.get("/jobs", params={"limit": 2}).json()["jobs"]
    assert [one["job_id"] for one in page] == [names[2], names[1]]
    rest = lab.session.get("/jobs", params={"limit": "1", "before": names[1]}).json()["jobs"]
    assert [one["job_id"] for one in rest] == [names[0]]


def test_values_are_shared_by_all_processes(lab: Server) -> None:
    """Increments and updates of jobs at the same time are all counted."""
    session = "counting"
    names = [begin(lab, "count", input={"times": 20}, session_id=session) for _ in range(3)]
    names += [begin(lab, "collect", input={"name": str(number)}, session_id=session) for number in range(3)]
    found = [ended(lab, name) for name in names]
    assert all(one["state"] == "succeeded" for one in found), found
    assert max(int(one["result"]) for one in found[:3]) == 60
    last = ended(lab, begin(lab, "collect", input={"name": "3"}, session_id=session))["result"]
    assert all(f'"{number}"' in last for number in range(4))
    shown = ended(lab, begin(lab, "count", input={"times": 1}))
    assert shown["state"] == "failed" and "session_id" in shown["error"]["message"]


@pytest.mark.parametrize("count", [60, *(pytest.param(one, marks=pytest.mark.slow) for one in (500, 2_500, 10_000))])
def test_random_kills_make_one_end_each(lab: Server, count: int) -> None:
    """SIGKILL at random moments, also while a result is written: each job has one end, and no second one.

    The ordinary run has 60 jobs, since 500 took 193 s on two cores with other work: each starts a process.
    """
    stop, chance = threading.Event(), random.Random(count)

    def kill() -> None:
        while not stop.wait(0.05):
            for worker in lab.health()["workers"]:
                if worker["workspace"] == "jobs" and worker["runs"] and chance.random() < 0.3:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        shown = []
        for first in range(0, count, 20):  # as many as may wait
            names = [begin(lab, "talk", input={"lines": 3}) for _ in range(first, min(first + 20, count))]
            shown += [ended(lab, name) for name in names]
    finally:
        stop.set()
        killer.join()
    for one in shown:
        if one["state"] == "succeeded":
            assert one["result"] == "said"
        else:
            assert one["state"] == "failed" and one["error"]["type"] in ("worker_crashed", "reload_failed"), one
    states = Counter(one["state"] for one in shown)
    print(f"{count} jobs: {dict(states)}")
    assert len(states) == 2, "some were killed, and some were not"
    assert [job(lab, one["job_id"]) for one in shown] == shown


def test_left_over_jobs_are_lost_or_go_on(tmp_path: Path) -> None:
    """SIGKILL of the server: its running jobs are lost; idempotent and queued ones go on after the next start."""
    settings = {"MAX_JOBS": 2, "DATA_DIR": tmp_path / "data"}
    first = start(tmp_path / "first", REPOSITORY, settings)
    try:
        first.wait_until_ready()
        put_tools(first, "jobs")
        lost = begin(first, "nap", input={"seconds": 600})
        repeated = begin(first, "again", input={"seconds": 1})
        first.wait_until(
            lambda: {job(first, name)["state"] for name in (lost, repeated)} == {"running"}, "the running ones"
        )
        pids = [one["pid"] for one in first.health()["workers"] if one["workspace"] == "jobs"]
        queued = begin(first, "talk", input={"lines": 1})
        first.process.kill()
        first.process.wait()
        wait_for(lambda: not any(map(psutil.pid_exists, pids)), "the end of the workers")
    finally:
        end(first)
    second = start(tmp_path / "second", REPOSITORY, settings)
    try:
        shown = job(second, lost)
        assert shown["state"] == "lost" and shown["error"]["type"] == "lost"
        assert ended(second, queued)["result"] == "said"
        shown = ended(second, repeated)
        assert shown["state"] == "succeeded" and shown["tries"] == 2, shown
    finally:
        end(second)


def test_fifty_running_jobs_are_told_at_the_next_start(tmp_path: Path) -> None:
    """SIGKILL of the server with fifty jobs running: the next start knows the end of each before it answers."""
    settings: dict[str, object] = {"MAX_JOBS": 58, "DATA_DIR": tmp_path / "data"}
    first = start(tmp_path / "first", REPOSITORY, settings)
    try:
        first.wait_until_ready()
        put_tools(first, "jobs")
        names = {begin(first, "nap", input={"seconds": 600}) for _ in range(50)}
        first.wait_until(
            lambda: len(first.session.get("/jobs", params={"state": "running"}).json()["jobs"]) == 50, "all of them"
        )
        first.process.kill()
        first.process.wait()
    finally:
        end(first)
    second = start(tmp_path / "second", REPOSITORY, settings)
    try:
        lost = second.session.get("/jobs", params={"state": "lost"}).json()["jobs"]
        assert {one["job_id"] for one in lost} == names
    finally:
        end(second)


def test_an_orderly_end_leaves_no_process(tmp_path: Path) -> None:
    """SIGTERM of the server while jobs run: it ends in time, with nothing left."""
    server = start(tmp_path / "server", REPOSITORY, {"DATA_DIR": tmp_path / "data"})
    try:
        server.wait_until_ready()
        put_tools(server, "jobs")
        names = [begin(server, "nap", input={"seconds": 600}) for _ in range(3)]
        server.wait_until(lambda: all(job(server, name)["state"] == "running" for name in names), "the jobs")
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert server.stop() == 0
        psutil.wait_procs(children, timeout=60)
        assert not [child for child in children if child.is_running()]
    finally:
        end(server)
