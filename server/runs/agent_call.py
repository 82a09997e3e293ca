"""Calling an agent, which may be anybody's code: one that does not stop can be left behind."""

import logging
from collections.abc import Callable
from typing import TypeVar

from server.limited_thread import GivenUpError
from server.runs.abandoned import RunThread
from server.runs.run import Run

log = logging.getLogger(__name__)

T = TypeVar("T")

NOTICE_SECONDS = 0.1
"""How soon it is noticed that a run was stopped."""
STOP_SECONDS = 3.0
"""How long an agent may take to stop by itself: most do at the model's next token."""


def call_agent(run: Run, work: Callable[[], T]) -> T:
    """What `work`, the agent's, gives for `run`, which is stopped when its time is up. Raises what it raises.

    An agent that goes on though its run is stopped (it computes for ever, or catches what tells it so) is given up
    (see `LimitedThread`), and `GivenUpError` is raised: the run ends, and others have its turn. It is among the
    `abandoned_tools` until it ends.
    """
    thread = RunThread(work, f"agent of run {run.id}", run, doing=f"agent {run.agent}")
    thread.start()
    while not thread.ended.wait(min(NOTICE_SECONDS, run.seconds_left)):
        run.stop_if_late()
        if run.cancelled.is_set() and not thread.ended.wait(STOP_SECONDS) and thread.give_up():
            log.warning("the agent of run %s did not stop within %g s, and was left behind", run.id, STOP_SECONDS)
            raise GivenUpError(f"the agent of run {run.id} did not stop")
    outcome, error = thread.outcome, thread.error
    # The error's frames hold this one, and so would hold the error.
    del thread
    try:
        if error is not None:
            raise error
    finally:
        del error
    assert outcome is not None, "it ended, and not with an error"
    return outcome[0]
