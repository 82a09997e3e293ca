"""A run's answer, or its events as server-sent events, and clients that go away:
https://html.spec.whatwg.org/multipage/server-sent-events.html"""

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

from flask import Response, request

from server.errors import InvalidRequestError, RunCancelledError
from server.runs import LAST, Run

EVENT_STREAM = "text/event-stream"
PING_SECONDS = 15.0
"""A stream that is silent for so long gets a comment: proxies drop what is silent, and a client that has gone may
show only when it is written to."""
LOOK_SECONDS = 0.5
"""How often to look whether the client is still there."""

Message = tuple[int | None, str | None, Any]
"""An event's id, its kind, and its data, as JSON has it; text is written as it stands."""
PING: Message = (None, "ping", None)
"""A comment, which no client takes for an event."""
Batches = Callable[[Callable[[], bool]], Iterator[Sequence[Message]]]
"""Makes the batches of a stream's events; gets what tells whether its headers have left."""


def wants_events() -> bool:
    """Whether the request asks for a stream in place of one answer."""
    return request.accept_mimetypes.best_match(["application/json", EVENT_STREAM]) == EVENT_STREAM


def client_gone() -> Callable[[], bool]:
    """Tells whether the client of this request has closed its connection; may be called outside of the request."""
    gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    return gone


def last_event_id() -> int:
    """The number of the last event that the client has read; 0 for none. Raises `InvalidRequestError`."""
    given = request.headers.get("Last-Event-ID", "0").strip() or "0"
    if not (given.isascii() and given.isdigit()) or len(given) > 18:
        raise InvalidRequestError("Last-Event-ID is not the id of an event: it has to be a number, like 7.")
    return int(given)


def event_stream(batches: Batches, when_left: Callable[[], object] = lambda: None) -> Response:
    """A stream of `batches` of events. There must be one, if only an empty one, every `LOOK_SECONDS`.

    The headers leave with the first event, or with the first ping. What is raised before is raised here, so that it
    is answered as an error; later it is too late for a status, and only an event can tell it. `when_left` is called
    when the stream ends, by itself or because the client has gone.
    """
    gone, asked, begun = client_gone(), time.monotonic(), False
    told = batches(lambda: begun)
    first: Sequence[Message] = ()
    for batch in told:
        first = batch if batch or time.monotonic() - asked < PING_SECONDS else [PING]
        if first or gone():
            break
    begun = True

    def lines() -> Iterator[bytes]:
        said = time.monotonic()
        for batch in chain([first], told):
            if gone():
                return
            if batch:
                yield b"".join(_written(*message) for message in batch)
            elif time.monotonic() - said >= PING_SECONDS:
                yield _written(*PING)
            else:
                continue
            said = time.monotonic()

    response = Response(lines(), content_type=EVENT_STREAM, headers={"Cache-Control": "no-cache"})
    # nginx would collect events before it sends them on.
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(when_left)
    return response


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


def _written(number: int | None, kind: str | None, data: Any) -> bytes:
    if kind == "ping":
        return b": ping\n\n"
    # JSON has no line's end within, so that one line of data is enough; and in ASCII anything can be sent.
    head = ("" if number is None else f"id: {number}\n") + ("" if kind is None else f"event: {kind}\n")
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode("ascii")
