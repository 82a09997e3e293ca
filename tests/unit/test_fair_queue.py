"""Whose turn it is: the rule, and that no turn is lost or given twice."""

import heapq
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import HearthError, RunCancelledError
from server.runs.fair_queue import (
    HALF_LIFE_SECONDS,
    INTERACTIVE_IN_A_ROW,
    TURN_COSTS,
    FairQueue,
    RecentUsage,
    Turn,
    in_order,
)
from server.runs.run import Priority, Run
from server.sdk.usage import Usage

PEOPLE = st.sampled_from(["anna", "bert", "cora"])
WAITING = st.lists(st.tuples(PEOPLE, st.sampled_from(["interactive", "batch"])), max_size=40)


def a_run(person: str, priority: Priority = "interactive") -> Run:
    return Run("What is 37 * 52?", person, 6, priority=priority)


@given(
    WAITING,
    st.dictionaries(PEOPLE, st.floats(0, 1e6)),
    st.floats(1, 1e4),
    st.integers(0, INTERACTIVE_IN_A_ROW),
)
def test_the_rule(
    waiting: list[tuple[str, Priority]], spent: dict[str, float], each: float, passed_over: int
) -> None:
    runs = [a_run(*one) for one in waiting]
    order = in_order(runs, spent, each, passed_over)
    assert Counter(run.id for run in order) == Counter(run.id for run in runs), "each has one turn"

    used = {"anna": 0.0, "bert": 0.0, "cora": 0.0} | spent
    left = list(runs)
    for run in order:
        priorities = {other.priority for other in left}
        if run.priority == "batch" and "interactive" in priorities:
            assert passed_over >= INTERACTIVE_IN_A_ROW, "interactive goes first"
        if run.priority == "interactive" and "batch" in priorities:
            assert passed_over < INTERACTIVE_IN_A_ROW, "batch is not passed over for ever"
        rivals = [other for other in left if other.priority == run.priority]
        assert used[run.workspace] == min(used[other.workspace] for other in rivals), "who used least"
        assert run is next(other for other in rivals if other.workspace == run.workspace), "who came first"
        left.remove(run)
        used[run.workspace] += each
        batch_waits = any(other.priority == "batch" for other in left)
        passed_over = passed_over + 1 if run.priority == "interactive" and batch_waits else 0


def test_one_question_among_many_is_next_but_one() -> None:
    many = [a_run("anna") for _ in range(200)]
    one = a_run("bert")
    # What both used is the same, and anna came first.
    assert in_order([*many, one], {}, 100, 0).index(one) == 1
    assert in_order([*many, one], {"anna": 1.0}, 100, 0).index(one) == 0


def test_what_was_used_fades() -> None:
    now = 0.0
    recent = RecentUsage(clock=lambda: now)
    recent.add("anna", 1000)
    now = HALF_LIFE_SECONDS
    assert recent.by_person() == {"anna": 500}
    recent.add("anna", 100)
    assert recent.by_person() == {"anna": 600}
    now = 20 * HALF_LIFE_SECONDS
    assert recent.by_person() == {}


def wait_until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Asking(threading.Thread):
    """A run in a thread of its own, which continues until the test ends it."""

    def __init__(self, queue: FairQueue, run: Run) -> None:
        super().__init__()
        self.queue, self.run_ = queue, run
        self.has_turn, self.may_end = threading.Event(), threading.Event()
        self.error: HearthError | None = None
        self.start()

    def run(self) -> None:
        try:
            with self.queue.take(self.run_):
                self.has_turn.set()
                self.may_end.wait(60)
        except HearthError as error:
            self.error = error

    def end(self) -> None:
        self.may_end.set()
        self.join(60)

    def is_at(self, position: int) -> None:
        """Wait until that is reported."""
        number = 0
        while self.run_.position != position:
            found = self.run_.events.since(number, 60)
            assert found, f"it never is at {position}"
            number = found[-1].number


def test_a_turn_that_is_held_counts_before_it_ends() -> None:
    queue = FairQueue(1)
    first = Asking(queue, a_run("anna"))
    assert first.has_turn.wait(60)
    again = Asking(queue, a_run("anna"))
    again.is_at(1)
    other = Asking(queue, a_run("bert"))
    other.is_at(1)
    last = Asking(queue, a_run("bert"))
    last.is_at(2)
    again.is_at(3)
    first.end()
    assert other.has_turn.wait(60) and not again.has_turn.is_set()
    # Now bert has used as much as anna, and more with each second.
    other.run_.on_text("text", Usage(prompt_tokens=5000, cached_tokens=20, completion_tokens=10))
    other.end()
    assert again.has_turn.wait(60) and not last.has_turn.is_set()
    for asking in (again, last):
        assert asking.has_turn.wait(60)
        asking.end()


def test_a_paused_run_lets_others_work_and_gets_its_turn_again() -> None:
    queue = FairQueue(1)
    with queue.take(a_run("anna")) as turn:
        second = Asking(queue, a_run("anna"))
        second.is_at(1)
        turn.pause()
        assert second.has_turn.wait(60)
        third = Asking(queue, a_run("anna"))
        third.is_at(1)
        resumed = threading.Thread(target=turn.resume)
        resumed.start()
        third.is_at(2)
        second.end()
        # It has arrived before the third.
        resumed.join(60)
        assert not resumed.is_alive() and not third.has_turn.is_set()
        turn.resume()  # it has it already
    assert third.has_turn.wait(60)
    third.end()


def test_a_paused_run_that_is_stopped_gets_no_turn() -> None:
    queue = FairQueue(1)
    run = a_run("anna")
    with queue.take(run) as turn:
        turn.pause()
        other = Asking(queue, a_run("bert"))
        assert other.has_turn.wait(60)
        run.stop(RunCancelledError("It was cancelled."))
        with pytest.raises(RunCancelledError):
            turn.resume()
        other.end()
    with queue.take(a_run("cora")):
        pass


def test_a_run_that_has_ended_gets_no_turn_any_more() -> None:
    queue = FairQueue(1)
    run, errors = a_run("anna"), list[RunCancelledError]()

    def resume(turn: Turn) -> None:
        try:
            turn.resume()
        except RunCancelledError as error:
            errors.append(error)

    with queue.take(run) as turn:
        turn.pause()
        other = Asking(queue, a_run("bert"))
        assert other.has_turn.wait(60)
        waits = threading.Thread(target=resume, args=[turn])
        waits.start()
    late = threading.Thread(target=resume, args=[turn])
    late.start()
    run.settle({}, None)
    for thread in (waits, late):
        thread.join(60)
        assert not thread.is_alive()
    assert len(errors) == 2
    other.end()
    with queue.take(a_run("cora")):
        pass


def test_one_eighth_of_the_turns_is_for_people_without_one() -> None:
    queue = FairQueue(8)
    many = [Asking(queue, a_run("anna")) for _ in range(9)]
    wait_until(lambda: sum(one.has_turn.is_set() for one in many) == 7)
    other = Asking(queue, a_run("bert"))
    assert other.has_turn.wait(60)
    assert sum(one.has_turn.is_set() for one in many) == 7
    for one in [other, *many]:
        one.may_end.set()
    for one in [other, *many]:
        one.join(60)
        assert one.has_turn.is_set()


class Person:
    """Somebody who always asks again. `tokens`, `seconds`: of a turn; `at_once`: runs in flight."""

    def __init__(self, name: str, tokens: int, seconds: float, at_once: int) -> None:
        self.name, self.tokens, self.seconds, self.at_once = name, tokens, seconds, at_once


HEAVY = st.tuples(
    st.sampled_from([0, 0, 10, 1000, 20_000]), st.sampled_from([0.01, 0.5, 10.0, 120.0]), st.sampled_from([1, 2, 10])
)


@settings(max_examples=40)
@given(st.lists(HEAVY, min_size=1, max_size=5), st.sampled_from([1, 3, 8]), st.floats(0, 300))
def test_nobody_is_overtaken_more_often_than_a_lead_in_usage_allows(
    heavy: list[tuple[int, float, int]], at_once: int, light_arrives: float
) -> None:
    """A simulation, with people who use tokens, time, or many short turns, and one who asks now and then."""
    now = 0.0
    queue = FairQueue(at_once, clock=lambda: now)
    people = {f"p{number}": Person(f"p{number}", *kind) for number, kind in enumerate(heavy)}
    people["light"] = Person("light", 100, 1.0, 1)
    held: list[tuple[float, int, Turn]] = []
    """When each ends."""
    waiting: list[Turn] = []
    number = 0

    def ask(person: str) -> None:
        nonlocal number
        number += 1
        run = a_run(person)
        run.arrived = now + number * 1e-9
        waiting.append(Turn(queue, run))
        queue.request(waiting[-1])

    def handed_out() -> list[str]:
        """The people who have got a turn since."""
        new = [turn for turn in waiting if turn.run.has_turn]
        for turn in new:
            waiting.remove(turn)
            person = people[turn.run.owner]
            heapq.heappush(held, (now + person.seconds, number + id(turn), turn))
            turn.run.on_text("text", Usage(completion_tokens=person.tokens))
        return [turn.run.owner for turn in new]

    for person in people.values():
        if person.name != "light":
            for _ in range(person.at_once):
                ask(person.name)
    handed_out()
    asked_at, questions = light_arrives, 0
    overtaken: Counter[str] = Counter()
    allowed: dict[str, float] = {}
    is_waiting = False
    for _ in range(300):
        if questions == 4:
            break
        if not is_waiting and now >= asked_at:
            used = queue.usage()
            allowed = {
                name: max(0.0, used.get("light", 0.0) - used.get(name, 0.0)) / TURN_COSTS + 1 for name in people
            }
            overtaken.clear()
            ask("light")
            is_waiting = True
        else:
            ends, _, turn = heapq.heappop(held)
            now = max(now, ends)
            queue.release(turn)
            if turn.run.owner != "light":
                ask(turn.run.owner)
        got = handed_out()
        if is_waiting:
            overtaken.update(name for name in got if name != "light")
            assert all(count <= allowed[name] for name, count in overtaken.items()), (overtaken, allowed)
            if "light" in got:
                is_waiting, asked_at, questions = False, now + 60, questions + 1


def test_a_run_that_is_stopped_while_it_waits_gives_its_place_up() -> None:
    queue = FairQueue(1)
    first = Asking(queue, a_run("anna"))
    assert first.has_turn.wait(60)
    second = Asking(queue, a_run("anna"))
    second.is_at(1)
    third = Asking(queue, a_run("anna"))
    third.is_at(2)
    second.run_.stop(RunCancelledError("It was cancelled."))
    second.join(60)
    assert isinstance(second.error, RunCancelledError) and not second.has_turn.is_set()
    third.is_at(1)
    first.end()
    assert third.has_turn.wait(60)
    third.end()


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_turn_is_lost_or_given_twice(at_once: int) -> None:
    queue, had, most, now = FairQueue(at_once), set(), 0, 0
    counting = threading.Lock()
    runs = [a_run(f"p{number % 5}", "batch" if number % 3 else "interactive") for number in range(60)]

    def work(run: Run) -> None:
        nonlocal most, now
        try:
            with queue.take(run):
                with counting:
                    now += 1
                    most = max(most, now)
                    had.add(run.id)
                run.on_text("text", Usage(completion_tokens=random.randrange(50)))
                with counting:
                    now -= 1
        except RunCancelledError:
            pass

    threads = [threading.Thread(target=work, args=[run]) for run in runs]
    for thread in threads:
        thread.start()
    stopped = {run.id for run in runs[::7] if run.stop(RunCancelledError("It was cancelled."))}
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a turn was lost"
    assert most <= at_once
    assert {run.id for run in runs} - stopped <= had
    with queue.take(a_run("anna")):
        pass


def test_how_long_it_takes_until_a_place_is_free() -> None:
    now = 0.0
    queue = FairQueue(2, clock=lambda: now)
    assert queue.seconds_until(5) == 1, "nothing is known yet"
    for seconds in (10, 14):
        run = a_run("anna")
        with queue.take(run):
            run.on_text("text", Usage(completion_tokens=5))
            now += seconds
    # A run takes 12 s, and two run at a time.
    assert [queue.seconds_until(ends) for ends in (1, 2, 5)] == [6, 12, 30]
