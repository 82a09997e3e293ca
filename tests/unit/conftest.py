"""What the tests of the executor share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.scripted_model import Reply
    from tests.support.watched_executor import Make, Watched


@pytest.fixture
def make() -> "Iterator[Make]":
    """`make(*replies, start=True, **options)`: a watched executor. After the test nothing may be left of it, and each
    of its jobs must have been reported once."""
    from tests.support.executor_jobs import processes_of_jobs
    from tests.support.watched_executor import Watched, executors_threads

    made: list[Watched] = []

    def build(*replies: "Reply", start: bool = True, **options: Any) -> "Watched":
        one = Watched(list(replies), {"grace_seconds": 1.0, **options})
        made.append(one)
        if start:
            one.executor.start()
        return one

    yield build
    for one in made:
        one.executor.stop()
        assert one.ends() == sorted(message.outputs["job_id"] for message in one.of("start"))
    assert processes_of_jobs() == []
    assert executors_threads() == []


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A FIFO, for the tool `gate`."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path
