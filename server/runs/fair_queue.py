"""A fair queue: runs wait here, and a few of them work at a time.

The rules, each time that a turn is free:

1. `interactive` runs go before `batch` runs. But one of five turns goes to a batch run while one waits.
2. Among the waiting people, the one with the fewest recent tokens is next (`RecentUsage`, plus their running runs). A
   person is a workspace.
3. Among the runs of one person, and between people with equal usage, the first to arrive is next.
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
"""Number of past runs that the estimates of time and tokens are based on."""
HALF_LIFE_SECONDS = 300.0
"""Half-life of a person's recent usage."""


class FairQueue:
    """Gives out up to `at_once` turns at a time. Safe for any number of threads."""

    def __init__(self, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_once = at_once
        self._clock = clock
        self._waiting: list[Run] = []
        self._running: list[Run] = []
        self._recent_usage = RecentUsage(clock)
        self._passed_over = 0
        """Number of interactive turns in a row while a batch run waited."""
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._tokens: deque[int] = deque(maxlen=RECENT)
        self._changing = threading.Lock()

    @contextmanager
    def take(self, run: Run) -> Iterator[None]:
        """Wait for the turn of `run`, and hold it within this context. While the run waits, it gets its position each
        time that this changes.

        Raises `RunCancelledError` if the run is stopped while it waits.
        """
        with self._changing:
            self._waiting.append(run)
            self._hand_out()
        began = self._clock()
        try:
            run.wait_for_turn()
            began = self._clock()
            yield
        finally:
            with self._changing:
                if run in self._waiting:
                    self._waiting.remove(run)
                else:
                    self._running.remove(run)
                    self._recent_usage.add(run.workspace, run.tokens_used)
                    if run.tokens_used:
                        self._seconds.append(self._clock() - began)
                        self._tokens.append(run.tokens_used)
                self._hand_out()

    def seconds_until(self, ends: int) -> int:
        """The estimated seconds until so many runs have ended, from the last ones; at least 1."""
        with self._changing:
            now = self._clock()
            seconds = (
                self._seconds or [now - run.started for run in self._running if run.started is not None] or [0.0]
            )
            return max(1, math.ceil(ends * fmean(seconds) / (len(self._running) or self._at_once)))

    def _hand_out(self) -> None:
        """Give out free turns, and update the positions of waiting runs."""
        while True:
            order = self._order()
            for position, run in enumerate(order, 1):
                run.wait_at(position)
            if not order or len(self._running) >= self._at_once:
                return
            run = order[0]
            self._waiting.remove(run)
            self._running.append(run)
            batch_waits = any(other.priority == "batch" for other in self._waiting)
            self._passed_over = _passed_over(self._passed_over, run.priority, batch_waits)
            run.give_turn()

    def _order(self) -> list[Run]:
        if not self._waiting:
            return []
        spent = self._recent_usage.by_person()
        for run in self._running:
            spent[run.workspace] = spent.get(run.workspace, 0.0) + run.tokens_used
        return in_order(self._waiting, spent, fmean(self._tokens or [1]), self._passed_over)


class RecentUsage:
    """Tokens by person, with exponential decay. Not safe for several threads: its owner has a lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens_of: dict[str, tuple[float, float]] = {}
        """Tokens, and the time of the last update."""

    def add(self, person: str, tokens: int) -> None:
        """Add tokens that a person used."""
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
    """The order of the turns of `waiting` (sorted by arrival), if every run uses `each` tokens and no other run
    arrives. `passed_over`: the number of interactive turns in a row while a batch run waited."""
    left: dict[Priority, dict[str, deque[tuple[int, Run]]]] = {"interactive": {}, "batch": {}}
    for number, run in enumerate(waiting):
        left[run.priority].setdefault(run.workspace, deque()).append((number, run))
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
