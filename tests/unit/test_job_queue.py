"""The order of waiting jobs, and what is kept of their logs."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.jobs.job import Job
from server.jobs.process import JobLog
from server.jobs.queue import JobQueue


def job(number: int, owner: str = "alice", priority: int = 0) -> Job:
    return Job(f"job-{number}", owner, owner, "aaaa", "nap", {}, 60.0, priority=priority)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-2, 2)), max_size=30), st.integers(1, 4))
def test_fair_between_people_and_ordered_for_each(wanted: list[tuple[str, int]], places: int) -> None:
    """No person gets a place while another one who waits holds fewer. Of one person's jobs the highest
    priority is next, and among equals the first."""
    queue, running = JobQueue(), list[Job]()
    waiting = [job(number, owner, priority) for number, (owner, priority) in enumerate(wanted)]
    for one in waiting:
        queue.put(one)
    while waiting:
        if len(running) == places:
            running.pop(0)
        held = Counter(one.owner for one in running)
        taken = queue.take(held)
        assert taken in waiting
        assert held[taken.owner] == min(held[one.owner] for one in waiting)
        own = [one for one in waiting if one.owner == taken.owner]
        assert taken is next(one for one in own if one.priority == max(other.priority for other in own))
        waiting.remove(taken)
        running.append(taken)
    assert queue.take({}) is None and len(queue) == 0


def test_a_job_is_taken_out_once() -> None:
    queue = JobQueue()
    queue.put(job(1))
    queue.put(job(2))
    assert "job-1" in queue and queue.of("alice") == 2
    assert queue.remove("job-1") and not queue.remove("job-1")
    assert queue.take({"alice": 1}, only_new=True) is None
    assert queue.take({}) == job(2) and queue.take({}) is None


@given(st.lists(st.text(max_size=30), max_size=30), st.integers(2, 60))
def test_a_log_keeps_its_beginning_and_its_end(parts: list[str], longest: int) -> None:
    log, whole = JobLog(longest), "".join(parts).replace("\x00", "\ufffd")
    data = whole.encode("utf-8", "replace")
    for at in range(0, len(data), 7):  # in the middle of characters, too
        log.write(data[at : at + 7])
    whole = data.decode()
    text, half = log.text(), longest // 2
    if len(whole) <= 2 * half:
        assert text == whole
    else:
        assert text.startswith(whole[:half]) and text.endswith(whole[len(whole) - half :])
        assert f"[... {len(whole) - 2 * half:,} characters left out ...]" in text


def test_a_log_takes_bytes_that_are_no_text() -> None:
    log = JobLog()
    assert log.write(b"\xff\x00a") == "\ufffd\ufffda"
    assert log.text() == "\ufffd\ufffda"
