"""The log: a thread that logs waits neither for another thread nor for the reader."""

import logging
import os
import re
import threading
from collections.abc import Iterator

import pytest

from server.observability import log_writer
from server.observability.log_writer import LONGEST_LINE, MOST_WAITING, LogHandler


class Pipe:
    """A log that goes into a pipe."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self.handler = LogHandler(writing)
        os.close(writing)  # the handler has its own
        self.log = logging.Logger("lab")
        self.log.addHandler(self.handler)

    def read_until(self, end: str) -> str:
        text = ""
        while end not in text:
            text += os.read(self.reading, 1 << 16).decode()
        return text


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reading)


def test_lines_come_in_order_and_whole(pipe: Pipe) -> None:
    for number in range(1000):
        pipe.log.warning("line %d é \udcff", number)
    pipe.handler.flush()
    lines = pipe.read_until("line 999 é \\udcff\n").splitlines()
    assert lines == [f"line {number} é \\udcff" for number in range(1000)]


def test_a_pipe_that_nobody_reads_stops_nobody(pipe: Pipe) -> None:
    line = "x" * 10_000
    count = 3 * MOST_WAITING // len(line)
    for _ in range(count):
        pipe.log.warning(line)
    pipe.handler.flush()  # returns all the same
    text, left_out = "", 0
    # It may have room for a moment, and leave lines out again.
    while text.count(line + "\n") + left_out < count:
        text += pipe.read_until("\n")
        left_out = sum(int(one.replace(",", "")) for one in re.findall(r"\.\.\. ([\d,]+) .* left out\n", text))
    assert left_out > 300 and text.count(line + "\n") + left_out == count
    pipe.log.warning("and after it")
    assert pipe.read_until("and after it\n") == "and after it\n"


def test_an_object_that_takes_long_to_be_written_stops_only_its_own_thread(pipe: Pipe) -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Slow:
        def __str__(self) -> str:
            begun.set()
            may_end.wait()
            return "slow"

    class Broken:
        def __str__(self) -> str:
            raise ValueError

    thread = threading.Thread(target=pipe.log.warning, args=("%s", Slow()))
    thread.start()
    assert begun.wait(60)
    pipe.log.warning("quick")
    assert pipe.read_until("quick\n") == "quick\n"
    may_end.set()
    thread.join()
    assert pipe.read_until("slow\n") == "slow\n"
    pipe.log.warning("%s", Broken())
    assert pipe.read_until("\n") == "a line of lab can't be formatted: ValueError\n"
    pipe.log.warning("y" * 100_000)
    assert len(pipe.read_until("\n")) < LONGEST_LINE + 100


def test_a_pipe_that_is_closed_and_a_thread_that_can_not_start(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    begins = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no thread")))
    pipe.log.warning("before")
    monkeypatch.setattr(threading.Thread, "start", begins)
    pipe.log.warning("after")
    assert pipe.read_until("after\n") == "before\nafter\n"
    monkeypatch.setattr(log_writer, "RETRY_SECONDS", 0.01)
    other = Pipe()
    os.close(other.reading)
    other.log.warning("lost")
    other.handler.flush()
    other.reading = os.open(os.devnull, os.O_RDONLY)
    other.log.warning("and no error")
    other.handler.flush()
    os.close(other.reading)
