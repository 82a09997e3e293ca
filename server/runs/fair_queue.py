"""Whose turn it is: runs wait here, and go on a few at a time, fairly between people.

The rule, each time that a turn is free:

1. `interactive` goes before `batch`; but of five turns that are given while a batch run waits, one is a batch run's.
2. Among the people who wait, it is the turn of whoever used the fewest tokens lately (`Spending`), what their runs
   under way have used so far among them. A person is a workspace.
3. Of one person's runs, and between people who used the same, the first that came goes first.
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
"""Turns that interactive runs may have in a row while a batch run waits."""
RECENT = 32
"""How many of the last runs tell how long one takes, and what it uses."""
HALF_LIFE_SECONDS = 300.0
"""After so long half of what somebody used is forgotten."""


class Turns:
    """Gives up to `at_once` turns at a time. Safe for any number of threads."""

    def __init__(self, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_once = at_once
        self._clock = clock
        self._waiting: list[Run] = []
        self._running: list[Run] = []
        self._spending = Spending(clock)
        self._passed_over = 0
        """Turns that interactive runs had in a row while a batch run waited."""
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._tokens: deque[int] = deque(maxlen=RECENT)
        self._changing = threading.Lock()

    @contextmanager
    def take(self, run: Run) -> Iterator[None]:
        """Waits until it is the turn of `run`; it has the turn within this context. While it waits, it is told its
        position, each time that this changes.

        Raises `RunCancelledError` when it is stopped while it waits.
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
                    self._spending.add(run.workspace, run.spent)
                    if run.spent:
                        self._seconds.append(self._clock() - began)
                        self._tokens.append(run.spent)
                self._hand_out()

    def seconds_until(self, ends: int) -> int:
        """About how long it takes until so many runs have ended, going by the last ones; at least 1."""
        with self._changing:
            now = self._clock()
            seconds = (
                self._seconds or [now - run.started for run in self._running if run.started is not None] or [0.0]
            )
            return max(1, math.ceil(ends * fmean(seconds) / (len(self._running) or self._at_once)))

    def _hand_out(self) -> None:
        """Give the turns that are free, and tell those who wait where they are."""
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
            run.have_turn()

    def _order(self) -> list[Run]:
        if not self._waiting:
            return []
        spent = self._spending.by_person()
        for run in self._running:
            spent[run.workspace] = spent.get(run.workspace, 0.0) + run.spent
        return in_order(self._waiting, spent, fmean(self._tokens or [1]), self._passed_over)


class Spending:
    """Tokens by person, which fade. Not safe for several threads: whoever owns it has a lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spent: dict[str, tuple[float, float]] = {}
        """Tokens, and at what time they were so many."""

    def add(self, person: str, tokens: int) -> None:
        """Somebody used so many."""
        now = self._clock()
        self._spent[person] = (self._faded(person, now) + tokens, now)

    def by_person(self) -> dict[str, float]:
        """What is left of it. Who has less than a token is forgotten."""
        now = self._clock()
        left = {person: self._faded(person, now) for person in self._spent}
        for person, tokens in left.items():
            if tokens < 1:
                del self._spent[person]
        return {person: tokens for person, tokens in left.items() if tokens >= 1}

    def _faded(self, person: str, now: float) -> float:
        tokens, then = self._spent.get(person, (0.0, now))
        return float(tokens * 0.5 ** ((now - then) / HALF_LIFE_SECONDS))


def in_order(waiting: Sequence[Run], spent: Mapping[str, float], each: float, passed_over: int) -> list[Run]:
    """The order in which the turns of `waiting`, given in the order of their arrival, will come, if every run uses
    `each` tokens and nobody else comes. `passed_over`: turns that interactive runs had in a row while a batch run
    waited."""
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
    """How often in a row interactive runs went before a batch run, after a turn of `priority`."""
    return before + 1 if priority == "interactive" and batch_waits else 0
