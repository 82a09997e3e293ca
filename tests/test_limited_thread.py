"""Threads that are given up: what is raised inside them ends them, and loses no lock that others need."""

import gc
import io
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from server import limited_thread
from server.limited_thread import GivenUpError, LimitedThread
from server.reload.naming import executed_filename

PEOPLES = executed_filename("tools/busy.py", b"")
LIBRARY = "/usr/lib/python3/site-packages/busy.py"


def compiled(text: str, filename: str) -> Callable[..., Any]:
    """The function `work` of a file of that name."""
    names: dict[str, Any] = {}
    exec(compile(text, filename, "exec"), names)
    return names["work"]  # type: ignore[no-any-return]


@dataclass
class Shared:
    """What work takes locks of."""

    condition: threading.Condition = field(default_factory=threading.Condition)
    queue: "queue.Queue[int]" = field(default_factory=queue.Queue)
    handler: logging.Handler = field(default_factory=lambda: logging.StreamHandler(io.StringIO()))
    logger: logging.Logger = field(default_factory=lambda: logging.Logger("of the test"))

    def __post_init__(self) -> None:
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self.logger.addHandler(self.handler)

    def lost(self) -> list[str]:
        """The locks that this thread can't take."""
        assert self.handler.lock is not None
        locks = {"condition": self.condition, "queue": self.queue.mutex, "handler": self.handler.lock}
        # Neither RLock nor Condition have a type in common with Lock.
        found = {name: lock.acquire(timeout=0.5) for name, lock in locks.items()}  # type: ignore[attr-defined]
        return [name for name, taken in found.items() if not taken]


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Nothing of the garbage collector's is called, in which what ends a thread could land."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are ended in libraries' code at once."""
    monkeypatch.setattr(limited_thread, "PEOPLES_CODE_SECONDS", 0)


def given_up(work: Callable[[], Any], after: float = 0.02) -> LimitedThread[Any]:
    thread = LimitedThread(work, "of the test")
    thread.start()
    time.sleep(after)
    assert thread.give_up()
    return thread


BUSY = {
    "condition": "def work(shared):\n    while True:\n        with shared.condition:\n            pass",
    "queue": "def work(shared):\n    while True:\n        shared.queue.put(1)\n        shared.queue.get()",
    "logging": "def work(shared):\n    while True:\n        shared.logger.info('%d', 1)",
}


@pytest.mark.parametrize("filename", [PEOPLES, LIBRARY], ids=["of people", "of a library"])
@pytest.mark.parametrize("takes", BUSY)
@pytest.mark.usefixtures("soon")
def test_no_lock_is_lost(takes: str, filename: str) -> None:
    work = compiled(BUSY[takes], filename)
    for i in range(30):
        shared = Shared()
        thread = given_up(lambda shared=shared: work(shared), after=0.01 + i % 10 / 1000)  # type: ignore[misc]
        thread.join(30)
        assert not thread.is_alive()
        assert shared.lost() == []


def test_a_library_is_left_alone_until_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_thread, "PEOPLES_CODE_SECONDS", 600)
    opened: list[bool] = []
    raised: list[BaseException] = []
    text = """
def work(opened, raised):
    try:
        while not opened:
            pass
    except BaseException as error:
        raised.append(error)
"""
    library = compiled(text, LIBRARY)
    peoples = compiled("def work(library):\n    library()\n    while True:\n        pass", PEOPLES)
    thread = given_up(lambda: peoples(lambda: library(opened, raised)))
    thread.join(0.3)
    assert thread.is_alive()
    opened.append(True)
    thread.join(30)
    assert not thread.is_alive() and raised == []


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "text",
    ["def work():\n    while True:\n        pass", "def work(event):\n    while not event.wait(0.05):\n        pass"],
    ids=["computes", "waits"],
)
def test_a_library_that_does_not_return_is_ended(text: str) -> None:
    work = compiled(text, LIBRARY)
    event = [threading.Event()] if "event" in text else []
    thread = given_up(lambda: work(*event))
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.usefixtures("no_garbage")
def test_what_ends_the_work_ends_nothing_that_comes_after_it() -> None:
    """Work that blocks where nothing can be raised, and then ends with an error of its own."""
    ours, theirs = socket.socketpair()
    late = threading.Event()
    work = compiled("def work(blocked):\n    blocked.recv(1)", PEOPLES)
    with ours, theirs:
        ours.settimeout(0.3)
        thread = LimitedThread(lambda: work(ours), "of the test", when_late=late.set)
        thread.start()
        time.sleep(0.1)
        assert thread.give_up()
        assert late.wait(30)
        thread.join(30)
    assert not thread.ended.is_set()


def test_work_that_has_ended_is_not_given_up() -> None:
    thread = LimitedThread(lambda: 7, "of the test")
    assert not thread.give_up(), "it has not begun"
    thread.start()
    assert thread.ended.wait(30)
    assert not thread.give_up() and thread.outcome == (7,)


def test_work_can_catch_what_ends_it() -> None:
    text = """
def work(raised):
    try:
        while True:
            pass
    except BaseException as error:
        raised.append(error)
"""
    raised: list[BaseException] = []
    work = compiled(text, PEOPLES)
    thread = given_up(lambda: work(raised))
    thread.join(30)
    assert [type(error) for error in raised] == [GivenUpError]
    assert thread.give_up() and thread.outcome is None, "it stays given up"
