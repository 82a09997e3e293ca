"""Noticing that files are saved."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

_QUIET_MILLISECONDS = 50
"""Saves that follow each other faster are one."""
_LONGEST_MILLISECONDS = 1000
"""Saves that never pause are told all the same, so often."""


def watched(folders: Sequence[Path], stop: threading.Event) -> Iterator[list[str]]:
    """The paths that have changed below any of `folders`, whenever some have, until `stop` is set.

    Only a hint to look: a network file system may tell of nothing, and many changes at once may not all be told.
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
