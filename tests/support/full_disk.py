"""A disk that is full for one process: the kernel lets none of its files grow past a size."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def full_disk(process: int, database: Path) -> Iterator[None]:
    """Within it, what that process writes to the SQLite file `database` fails, at the end of its log."""
    size = Path(f"{database}-wal").stat().st_size
    limited = psutil.Process(process)
    before = limited.rlimit(psutil.RLIMIT_FSIZE)
    limited.rlimit(psutil.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        limited.rlimit(psutil.RLIMIT_FSIZE, before)
