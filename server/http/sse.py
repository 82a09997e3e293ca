"""A run's answer, or its events as server-sent events, and clients that go away:
https://html.spec.whatwg.org/multipage/server-sent-events.html"""

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from itertools import chain
from typing import Any

from flask import Response, request

from server.errors import InvalidRequestError, RunCancelledError, UnauthorizedError
from server.http.auth import still_allowed
from server.runs import Events, Run

EVENT_STREAM = "text/event-stream"
PING_SECONDS = 15.0
"""Interval of comments in a silent stream. Proxies close silent connections, and a closed connection may show only
when something is written to it."""
LOOK_SECONDS = 0.5
"""Interval of the checks whether the client is still connected."""

ServerSentEvent = tuple[int | None, str | None, Any]
"""The id of an event, its kind, and its data as a JSON value; a string is written as it is."""
PING: ServerSentEvent = (None, "ping", None)
"""A comment, which clients ignore."""
Answered = dict[str, Any] | tuple[dict[str, Any], int] | Response
Batches = Callable[[Callable[[], bool]], Iterator[Sequence[ServerSentEvent]]]
"""Yields a stream's events in batches. Its argument returns whether the headers have been sent."""


def wants_events() -> bool:
    """Whether the request asks for a stream instead of one answer."""
    return request.accept_mimetypes.best_match(["application/json", EVENT_STREAM]) == EVENT_STREAM


def client_gone() -> Callable[[], bool]:
    """A function that returns whether the client has closed its connection. It works outside of the request too."""
    gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    return gone


def client_half_closed() -> Callable[[], bool]:
    """A function that returns whether the client sends nothing more. It may still read, or be gone."""
    channel = getattr(request.environ.get("waitress.client_disconnected"), "__self__", None)
    return lambda: getattr(channel, "is_half_closed", False)


def last_event_id() -> int:
    """The number of the last event that the client has read; 0: none. Raises `InvalidRequestError`."""
    given = request.headers.get("Last-Event-ID", "0").strip() or "0"
    if not (given.isascii() and given.isdigit()) or len(given) > 18:
        raise InvalidRequestError("Last-Event-ID is not the id of an event: it has to be a number, like 7.")
    return int(given)


def event_stream(batches: Batches, when_left: Callable[[], object] = lambda: None) -> Response:
    """A stream of `batches` of events. `batches` must yield every `LOOK_SECONDS`, if only an empty batch.

    The headers are sent with the first event or the first ping. An error before that is raised here and becomes the
    response's status; after that only an event can report it. `when_left` is called when the stream ends or the
    client disconnects, or may not read it any more.
    """
    gone, allowed, asked, begun = client_gone(), still_allowed(), time.monotonic(), False
    half_closed = client_half_closed()
    produced = batches(lambda: begun)
    first: Sequence[ServerSentEvent] = ()
    for batch in produced:
        first = batch if batch or time.monotonic() - asked < PING_SECONDS else [PING]
        if not allowed():
            when_left()
            raise revoked()
        if first or gone():
            break
    begun = True

    def lines() -> Iterator[bytes]:
        written, was_probed = time.monotonic(), False
        for batch in chain([first], produced):
            if gone() or not allowed():
                return
            if half_closed() and not was_probed:
                # Whether it still reads shows when something is written.
                was_probed = True
                yield _written(*PING)
            if batch:
                yield b"".join(_written(*message) for message in batch)
            elif time.monotonic() - written >= PING_SECONDS:
                yield _written(*PING)
            else:
                continue
            written = time.monotonic()

    response = Response(lines(), content_type=EVENT_STREAM, headers={"Cache-Control": "no-cache"})
    # Otherwise nginx would buffer events.
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(when_left)
    return response


def answer_to(run: Run, detach: bool) -> Answered:
    """The response to a question: its answer, a stream of its events, or, with `Prefer: respond-async`, its id at
    once (https://www.rfc-editor.org/rfc/rfc7240). Raises the run's error."""
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    if any(one.split(";")[0].strip().lower() == "respond-async" for one in preferences):
        return {"run_id": run.id, "state": run.state}, HTTPStatus.ACCEPTED
    return stream(run, detach) if wants_events() else wait_for(run, detach)


def wait_for(run: Run, detach: bool) -> dict[str, Any]:
    """Wait for the answer of a run. Raises its error.

    If the client disconnects, the run is cancelled, unless `detach`.
    """
    gone, allowed = client_gone(), still_allowed()
    while not run.ended.wait(LOOK_SECONDS):
        if not allowed():
            if not detach:
                run.stop(client_left())
            raise revoked()
        if gone():
            if not detach:
                run.stop(client_left())
            # Nobody reads this response; raising frees the thread.
            raise client_left()
    return _answer(run)


def stream(
    run: Run,
    detach: bool,
    serialize: Callable[[ServerSentEvent], list[ServerSentEvent]] = lambda message: [message],
    raises: Callable[[], bool] = lambda: True,
) -> Response:
    """The events of a new run as a stream. `serialize` turns each event into any number of messages. Raises the run's
    error if the run fails before the headers are sent, and `raises` says that it is no event then.

    If the client disconnects, the run is cancelled, unless `detach`.
    """

    def batches(begun: Callable[[], bool]) -> Iterator[list[ServerSentEvent]]:
        for batch in events_after(run.events, 0):
            messages: list[ServerSentEvent] = []
            for message in batch:
                if message[1] == "error" and not messages and not begun() and raises():
                    _answer(run)
                messages += serialize(message)
            yield messages

    return event_stream(batches, when_left=lambda: detach or run.stop(client_left()))


def events_after(events: Events, number: int) -> Iterator[list[ServerSentEvent]]:
    """The events after the one with that number, in batches, with an empty batch now and then."""
    while True:
        # Before the events are read: the last one may come right after.
        ended = events.ended
        found = events.since(number, LOOK_SECONDS)
        yield [(event.number, event.kind, event.data) for event in found]
        if ended:
            return
        number = found[-1].number if found else number


def client_left() -> RunCancelledError:
    """Why a run is stopped whose client has closed its connection."""
    return RunCancelledError(
        'The run was cancelled, because its client closed the connection. Ask with "detach": true to let it continue.'
    )


def _answer(run: Run) -> dict[str, Any]:
    if run.error is not None:
        # A copy, because raising adds a traceback, and others may read the same run.
        raise copy.copy(run.error)
    assert run.answer is not None, "it has ended without an error"
    return run.answer


def revoked() -> UnauthorizedError:
    """The error for a caller who may not read an answer any more."""
    return UnauthorizedError("The credential was revoked, or what it was used for is not shared with you any more.")


def _written(number: int | None, kind: str | None, data: Any) -> bytes:
    if (number, kind, data) == PING:
        return b": ping\n\n"
    # JSON in ASCII contains no line break, so one line of data is enough.
    head = ("" if number is None else f"id: {number}\n") + ("" if kind is None else f"event: {kind}\n")
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode("ascii")
