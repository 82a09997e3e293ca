"""A fair queue: runs wait here for a turn of the model, and a few of them have one at a time.

The rules, each time that a turn is free:

1. `interactive` runs go before `batch` runs. But one of five turns goes to a batch run while one waits.
2. Among the waiting people, the one with the least recent usage is next, held turns included. A person is the owner
   of a run.
3. Among the runs of one person, and between people with equal usage, the first to arrive is next.
4. One eighth of the turns is reserved for people who hold none.

Usage counts tokens, the time that a turn is held, and each turn. So a run that writes nothing is not free, and
nobody is overtaken by another person more often than that person's lead in usage allows, plus once. A run whose tool
works gives its turn back meanwhile, and waits for another one before it asks the model again.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean

from server.runs.run import Priority, Run

INTERACTIVE_IN_A_ROW = 4
"""Maximum number of interactive turns in a row while a batch run waits."""
RECENT = 32
"""Number of past runs that the estimates of time and usage are based on."""
HALF_LIFE_SECONDS = 300.0
"""Half-life of a person's recent usage."""
RESERVED_SHARE = 8
"""One eighth of the turns, and of the places in flight, is reserved for people without one."""
SECOND_COSTS = 100.0
"""The usage of holding a turn for a second, in tokens."""
TURN_COSTS = 100.0
"""The usage of a turn, in tokens."""


class Turn:
    """A run's right to use the model, which it may give back for a while. Safe for any number of threads."""

    def __init__(self, queue: "FairQueue", run: Run) -> None:
        self.run = run
        self.since = 0.0
        """When it was handed out last."""
        self.tokens_before = 0
        """The run's tokens at that time."""
        self.ended = False
        """Whether it is never handed out again."""
        self._queue = queue

    def pause(self) -> None:
        """Let others use the model until `resume`."""
        self._queue.release(self)

    def resume(self) -> None:
        """Wait until it is handed out again, if it was paused. Raises `RunCancelledError` if the run is stopped
        or ends."""
        self._queue.request(self)
        self.run.wait_for_turn()


class FairQueue:
    """Gives out up to `at_once` turns at a time. Safe for any number of threads."""

    def __init__(self, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_once = at_once
        self._reserved = at_once // RESERVED_SHARE
        self._clock = clock
        self._waiting: list[Turn] = []
        """In the order of their runs' arrival."""
        self._held: list[Turn] = []
        self._started: list[Run] = []
        """Runs that have had a turn and have not ended."""
        self._recent_usage = RecentUsage(clock)
        self._passed_over = 0
        """Number of interactive turns in a row while a batch run waited."""
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._usage: deque[float] = deque(maxlen=RECENT)
        self._changing = threading.Lock()

    @contextmanager
    def take(self, run: Run) -> Iterator[Turn]:
        """Wait for the turn of `run`, and hold it within this context, unless it is paused. While the run waits for
        its first one, it gets its position each time that this changes.

        Raises `RunCancelledError` if the run is stopped while it waits.
        """
        with self.lend(run) as turn:
            self.request(turn)
            run.wait_for_turn()
            began = self._clock()
            with self._changing:
                self._started.append(run)
            try:
                yield turn
            finally:
                with self._changing:
                    self._started.remove(run)
                    if run.tokens_used:
                        self._seconds.append(self._clock() - began)

    @contextmanager
    def lend(self, run: Run) -> Iterator[Turn]:
        """A turn that is not asked for yet: `resume` waits for it. It ends with this context."""
        turn = Turn(self, run)
        try:
            yield turn
        finally:
            with self._changing:
                turn.ended = True
            self.release(turn)

    def request(self, turn: Turn) -> None:
        """Let a turn wait until it is handed out, unless it is held, waits already, or has ended."""
        with self._changing:
            if turn.ended or turn in self._held or turn in self._waiting:
                return
            # A run that resumes arrived before those that wait for their first turn.
            later = (place for place, other in enumerate(self._waiting) if other.run.arrived > turn.run.arrived)
            self._waiting.insert(next(later, len(self._waiting)), turn)
            self._hand_out()

    def release(self, turn: Turn) -> None:
        """Take a turn back, whether it is held or waits."""
        with self._changing:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn in self._held:
                self._held.remove(turn)
                turn.run.lose_turn()
                used = self._used(turn)
                self._usage.append(used)
                self._recent_usage.add(turn.run.owner, used)
            self._hand_out()

    def seconds_until(self, ends: int) -> int:
        """The estimated seconds until so many runs have ended, from the last ones; at least 1."""
        with self._changing:
            now = self._clock()
            seconds = (
                self._seconds or [now - run.started for run in self._started if run.started is not None] or [0.0]
            )
            return max(1, math.ceil(ends * fmean(seconds) / (len(self._started) or self._at_once)))

    def usage(self) -> dict[str, float]:
        """The recent usage of each person, in tokens, with the turns that are held."""
        with self._changing:
            return self._usage_by_person()

    def _used(self, turn: Turn) -> float:
        """The usage of a held turn so far."""
        tokens = turn.run.tokens_used - turn.tokens_before
        return TURN_COSTS + tokens + SECOND_COSTS * (self._clock() - turn.since)

    def _usage_by_person(self) -> dict[str, float]:
        used = self._recent_usage.by_person()
        for turn in self._held:
            used[turn.run.owner] = used.get(turn.run.owner, 0.0) + self._used(turn)
        return used

    def _hand_out(self) -> None:
        """Give out free turns, and update the positions of waiting runs."""
        while True:
            order = self._order()
            for position, turn in enumerate(order, 1):
                turn.run.wait_at(position)
            free = self._at_once - len(self._held)
            if 0 < free <= self._reserved:
                holders = {turn.run.owner for turn in self._held}
                order = [turn for turn in order if turn.run.owner not in holders]
            if not order or free <= 0:
                return
            turn = order[0]
            self._waiting.remove(turn)
            self._held.append(turn)
            turn.since, turn.tokens_before = self._clock(), turn.run.tokens_used
            batch_waits = any(other.run.priority == "batch" for other in self._waiting)
            self._passed_over = _passed_over(self._passed_over, turn.run.priority, batch_waits)
            turn.run.give_turn()

    def _order(self) -> list[Turn]:
        if not self._waiting:
            return []
        used = self._usage_by_person()
        turns = {turn.run.id: turn for turn in self._waiting}
        runs = in_order([turn.run for turn in self._waiting], used, fmean(self._usage or [1]), self._passed_over)
        return [turns[run.id] for run in runs]


class RecentUsage:
    """Usage by person, in tokens, with exponential decay. Not safe for several threads: its owner has a lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens_of: dict[str, tuple[float, float]] = {}
        """Tokens, and the time of the last update."""

    def add(self, person: str, tokens: float) -> None:
        """Add what a person used."""
        now = self._clock()
        self._tokens_of[person] = (self._decayed(person, now) + tokens, now)

    def by_person(self) -> dict[str, float]:
        """Tokens after decay. People with less than one token are dropped."""
        now = self._clock()
        left = {person: self._decayed(person, now) for person in self._tokens_of}
        for person, tokens in left.items():
            if tokens < 1:
                del self._tokens_of[person]
        return {person: tokens for person, tokens in left.items() if tokens >= 1}

    def _decayed(self, person: str, now: float) -> float:
        tokens, then = self._tokens_of.get(person, (0.0, now))
        return float(tokens * 0.5 ** ((now - then) / HALF_LIFE_SECONDS))


def in_order(waiting: Sequence[Run], spent: Mapping[str, float], each: float, passed_over: int) -> list[Run]:
    """The order of the turns of `waiting` (sorted by arrival), if every run uses `each` and no other run
    arrives. `passed_over`: the number of interactive turns in a row while a batch run waited."""
    left: dict[Priority, dict[str, deque[tuple[int, Run]]]] = {"interactive": {}, "batch": {}}
    for number, run in enumerate(waiting):
        left[run.priority].setdefault(run.owner, deque()).append((number, run))
    spent = dict(spent)
    order: list[Run] = []
    while left["interactive"] or left["batch"]:
        batch_is_due = passed_over >= INTERACTIVE_IN_A_ROW or not left["interactive"]
        people = left["batch"] if left["batch"] and batch_is_due else left["interactive"]
        person = min(people, key=lambda name: (spent.get(name, 0.0), people[name][0][0]))
        _, run = people[person].popleft()
        if not people[person]:
            del people[person]
        order.append(run)
        spent[person] = spent.get(person, 0.0) + each
        passed_over = _passed_over(passed_over, run.priority, bool(left["batch"]))
    return order


def _passed_over(before: int, priority: Priority, batch_waits: bool) -> int:
    """The number of interactive turns in a row while a batch run waits, after a turn of `priority`."""
    return before + 1 if priority == "interactive" and batch_waits else 0
