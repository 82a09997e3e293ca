"""What the agent has to answer, and the queue that it waits in."""

import heapq
import itertools
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar


class Comparable(Protocol):
    """What a priority queue can hold."""

    def __lt__(self, other: Any, /) -> bool: ...


Item = TypeVar("Item", bound=Comparable)


class InteractionType(Enum):
    """Who speaks to the agent."""

    User = "user"
    Tool = "tool"
    """The system: a job has ended."""
    Stop = "stop"
    """The executor's own: the agent's thread ends."""


PRIORITIES = {InteractionType.Stop: -1, InteractionType.User: 0, InteractionType.Tool: 1}
"""The lowest number is first."""


@dataclass(order=True)
class Interaction:
    """One message to the agent. Only the priority counts in comparisons."""

    priority: int
    interaction_type: InteractionType = field(compare=False)
    who: str = field(compare=False)
    """`user`, or `tool:job`."""
    inputs: dict[str, Any] = field(compare=False)


def interaction(kind: InteractionType, who: str, inputs: dict[str, Any]) -> Interaction:
    """An interaction with the priority of its kind."""
    return Interaction(PRIORITIES[kind], kind, who, inputs)


class PriorityQueueMultiGet(queue.PriorityQueue[Item], Generic[Item]):
    """A priority queue; first in, first out among equals. Several items can be taken at once.

    `get` waits on the condition of the standard library's queue, which releases the lock that `put` needs.
    """

    def _init(self, maxsize: int) -> None:
        self._entries: list[tuple[Item, int]] = []
        self._order = itertools.count()

    def _qsize(self) -> int:
        return len(self._entries)

    def _put(self, item: Item) -> None:
        # Tuples compare the second part only if the first parts are equal.
        heapq.heappush(self._entries, (item, next(self._order)))

    def _get(self) -> Item:
        return heapq.heappop(self._entries)[0]

    def get_multiple(
        self, count: int | None = None, accept: Callable[[Item], bool] = lambda item: True
    ) -> list[Item]:
        """Take up to `count` items, all by default, in the order of `get`, without waiting. Only those that `accept`
        takes; the others stay."""
        with self.mutex:
            ordered = sorted(self._entries)
            taken = [entry for entry in ordered if accept(entry[0])][:count]
            numbers = {number for _, number in taken}
            self._entries = [entry for entry in ordered if entry[1] not in numbers]  # sorted, and so a heap
            self.not_full.notify_all()
        return [item for item, _ in taken]

    def first(self) -> Item | None:
        """The item that `get` would take; None if there is none."""
        with self.mutex:
            return self._entries[0][0] if self._entries else None

    def wait_for(self, condition: Callable[[Item | None], bool], timeout: float | None = None) -> bool:
        """Wait until `condition` is true of the first item (None: empty), or `timeout` seconds have passed.

        Looks again after each `put` and each `notify`. Returns whether it is true. `condition` must not use the
        queue.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.mutex:
            while not condition(self._entries[0][0] if self._entries else None):
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self.not_empty.wait(left)
            return True

    def notify(self) -> None:
        """Let `wait_for` look at its condition again."""
        with self.mutex:
            self.not_empty.notify_all()
