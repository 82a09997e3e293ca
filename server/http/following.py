"""Following a run: waiting for its answer, or reading its events as they come."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response

from server.errors import RunCancelledError
from server.http.streams import LOOK_SECONDS, Message, client_gone, event_stream
from server.runs import LAST, Run


def wait_for(run: Run, detach: bool) -> dict[str, Any]:
    """The answer of a run that is under way. Raises its error.

    When the client goes away, the run is cancelled, unless `detach`.
    """
    gone = client_gone()
    while not run.ended.wait(LOOK_SECONDS):
        if gone():
            if not detach:
                run.stop(_left())
            # Nobody reads it; it frees the thread.
            raise _left()
    return _answer(run)


def stream(run: Run, detach: bool, told: Callable[[Message], list[Message]] = lambda message: [message]) -> Response:
    """The events of a run that was asked just now, each as `told` has it, which may make none or several of it.
    Raises the run's error where it fails before the stream has begun.

    When the client goes away, the run is cancelled, unless `detach`.
    """

    def batches(begun: Callable[[], bool]) -> Iterator[list[Message]]:
        for batch in events_after(run, 0):
            messages: list[Message] = []
            for message in batch:
                if message[1] == "error" and not messages and not begun():
                    _answer(run)
                messages += told(message)
            yield messages

    return event_stream(batches, when_left=lambda: detach or run.stop(_left()))


def events_after(run: Run, number: int) -> Iterator[list[Message]]:
    """The events of a run after the one with that number, to the last, and nothing now and then."""
    while True:
        found = run.events.since(number, LOOK_SECONDS)
        yield [(event.number, event.kind, event.data) for event in found]
        if (found and found[-1].kind in LAST) or (not found and run.events.ended):
            return
        number = found[-1].number if found else number


def _answer(run: Run) -> dict[str, Any]:
    if run.error is not None:
        # A copy: raised, it has a traceback, and others may follow the same run.
        raise copy.copy(run.error)
    assert run.answer is not None, "it has ended without an error"
    return run.answer


def _left() -> RunCancelledError:
    return RunCancelledError(
        'The run was cancelled, because whoever asked has closed the connection. Ask with "detach": true to have it '
        "go on without you."
    )
