"""Following a run: waiting for its answer."""

import copy
from typing import Any

from server.runs import Run


def wait_for(run: Run) -> dict[str, Any]:
    """The answer of a run that is under way. Raises its error."""
    run.ended.wait()
    if run.error is not None:
        # A copy: raised, it has a traceback, and others may follow the same run.
        raise copy.copy(run.error)
    assert run.answer is not None, "it has ended without an error"
    return run.answer
