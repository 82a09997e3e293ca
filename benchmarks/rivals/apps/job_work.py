"""What the measured jobs do, for the systems that import a function."""

import os
import time


def tick() -> list[float]:
    """The moment when it begins, and when it ends."""
    began = time.time()
    return [began, time.time()]


def compute(seconds: float) -> list[float]:
    """The same, with so many seconds of a processor in between."""
    began, until = time.time(), time.process_time() + seconds
    while time.process_time() < until:
        pass
    return [began, time.time()]


def hang(file: str) -> int:
    """Write down its process, and compute in C for ever."""
    with open(file, "w") as pid:
        pid.write(str(os.getpid()))
    return sum(range(10**13))
