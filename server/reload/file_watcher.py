"""A file watcher, which reports saved files."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

_QUIET_MILLISECONDS = 50
"""Saves within this time are reported together."""
_LONGEST_MILLISECONDS = 1000
"""The longest time that saves are collected."""


def watched(folders: Sequence[Path], stop: threading.Event) -> Iterator[list[str]]:
    """Yields the paths that have changed below any of `folders`, until `stop` is set.

    Only a hint: a network file system may report nothing, and of many changes at once some may be missing.
    """
    import watchfiles

    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for changes in watchfiles.watch(
        *folders,
        step=_QUIET_MILLISECONDS,
        debounce=_LONGEST_MILLISECONDS,
        stop_event=stop,
        raise_interrupt=False,
        ignore_permission_denied=True,
    ):
        yield sorted({path for _, path in changes})
