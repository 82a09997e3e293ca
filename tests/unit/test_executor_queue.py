"""The queue before the agent."""

import queue
import random
import threading

import pytest

from server.jobs.executor import Interaction, InteractionType, PriorityQueueMultiGet
from server.jobs.executor.interactions import interaction

SECONDS = 20


def user(name: str) -> Interaction:
    return interaction(InteractionType.User, name, {})


def system(name: str) -> Interaction:
    return interaction(InteractionType.Tool, name, {})


def test_put_does_not_wait_for_a_get_that_waits() -> None:
    """A `get` that holds the lock of `put` while it waits would block both for ever."""
    waiting: PriorityQueueMultiGet[int] = PriorityQueueMultiGet()
    got: list[int] = []
    reader = threading.Thread(target=lambda: got.append(waiting.get(timeout=SECONDS)))
    reader.start()
    with waiting.mutex:  # free while the reader waits
        pass
    writer = threading.Thread(target=waiting.put, args=(7,), daemon=True)
    writer.start()
    writer.join(SECONDS)
    reader.join(SECONDS)
    assert not writer.is_alive() and got == [7]


def test_the_users_messages_are_first_and_equals_are_first_in_first_out() -> None:
    waiting: PriorityQueueMultiGet[Interaction] = PriorityQueueMultiGet()
    for one in (system("a"), user("b"), system("c"), user("d"), user("e"), system("f")):
        waiting.put(one)
    assert [waiting.get().who for _ in range(6)] == ["b", "d", "e", "a", "c", "f"]


def test_the_order_holds_for_any_sequence() -> None:
    chance = random.Random(1)
    waiting: PriorityQueueMultiGet[Interaction] = PriorityQueueMultiGet()
    expected = []
    for number in range(300):
        one = (user if chance.random() < 0.5 else system)(str(number))
        waiting.put(one)
        expected.append(one)
        if chance.random() < 0.3:
            expected.sort(key=lambda item: item.priority)  # stable
            count = chance.randint(1, 3)
            taken, expected = expected[:count], expected[count:]
            assert waiting.get_multiple(count) == taken
    assert waiting.get_multiple() == sorted(expected, key=lambda item: item.priority)


def test_several_items_at_once() -> None:
    waiting: PriorityQueueMultiGet[int] = PriorityQueueMultiGet()
    assert waiting.get_multiple() == []
    for number in (5, 1, 4, 2, 3):
        waiting.put(number)
    assert waiting.get_multiple(2) == [1, 2]
    assert waiting.get_multiple(accept=lambda number: number % 2 == 1) == [3, 5]
    assert waiting.first() == 4
    assert waiting.get_multiple() == [4]
    with pytest.raises(queue.Empty):
        waiting.get(block=False)


def test_no_item_is_lost_or_given_twice() -> None:
    waiting: PriorityQueueMultiGet[int] = PriorityQueueMultiGet()
    got: list[int] = []
    lock = threading.Lock()

    def read() -> None:
        while True:
            found = [waiting.get(timeout=SECONDS)]
            if found[0] < 1_000:
                found += waiting.get_multiple(3, accept=lambda number: number < 1_000)
            with lock:
                got.extend(found)
            if found[0] >= 1_000:
                return

    def write(start: int) -> None:
        for number in range(start, start + 250):
            waiting.put(number)

    readers = [threading.Thread(target=read) for _ in range(3)]
    writers = [threading.Thread(target=write, args=(start,)) for start in (0, 250, 500, 750)]
    for one in readers + writers:
        one.start()
    for one in writers:
        one.join(SECONDS)
    for end in range(3):
        waiting.put(1_000 + end)
    for one in readers:
        one.join(SECONDS)
    assert sorted(got) == list(range(1_003))


def test_waiting_for_a_condition() -> None:
    waiting: PriorityQueueMultiGet[int] = PriorityQueueMultiGet()
    assert not waiting.wait_for(lambda first: first is not None, timeout=0.01)
    threading.Thread(target=waiting.put, args=(1,)).start()
    assert waiting.wait_for(lambda first: first == 1, timeout=SECONDS)
    other: list[str] = []

    def change() -> None:
        other.append("changed")
        waiting.notify()

    threading.Thread(target=change).start()
    assert waiting.wait_for(lambda first: bool(other), timeout=SECONDS)
