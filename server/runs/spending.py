"""Who used how much lately."""

import time
from collections.abc import Callable

HALF_LIFE_SECONDS = 300.0
"""After so long half of what somebody used is forgotten."""


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
