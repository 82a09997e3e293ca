"""`POST /load_model` and `POST /unload_model`."""

import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.errors import HearthError, known
from server.host import Host
from server.http.health import describe
from server.http.schemas import ErrorAnswer, ModelChoice, ModelLoaded, ModelUnloaded, Nothing
from server.http.streams import LOOK_SECONDS, Message, event_stream, wants_events
from server.http.waiting import WaitingRoom
from server.resident import Report


def blueprint(host: Host, room: WaitingRoom) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("models", __name__)

    @routes.post(
        "/load_model",
        summary="Make a model resident; answers when it is ready or, with Accept: text/event-stream, as it goes on",
        responses={200: ModelLoaded, 422: ErrorAnswer, 502: ErrorAnswer, 503: ErrorAnswer},
    )
    def load_model(body: ModelChoice) -> dict[str, Any] | Response:
        def load(report: Report = lambda *_: None) -> dict[str, Any]:
            started = time.perf_counter()
            with room.place():
                resident = host.load_model(
                    body.model, body.load_in_8bit, body.device_map, body.dtype, body.base_url, report
                )
            return {"model": describe(resident), "seconds": time.perf_counter() - started}

        return event_stream(_progress(load)) if wants_events() else load()

    @routes.post(
        "/unload_model",
        summary="Give the model's memory back",
        responses={200: ModelUnloaded, 422: ErrorAnswer},
    )
    def unload_model(body: Nothing) -> dict[str, Any]:
        started = time.perf_counter()
        with room.place():
            host.unload_model()
        return {"model": None, "seconds": time.perf_counter() - started}

    return routes


def _progress(load: Callable[[Report], dict[str, Any]]) -> Iterator[list[Message]]:
    """What `load` reports, and then what it gives or raises; it goes on to its end whoever reads this."""
    told: SimpleQueue[Message | HearthError] = SimpleQueue()

    def report(stage: str, done: int, total: int) -> None:
        told.put((None, "progress", {"stage": stage, "done": done, "total": total}))

    def work() -> None:
        try:
            told.put((None, "model", load(report)))
        except Exception as error:  # boundary: the thread's end
            told.put(known(error))

    threading.Thread(target=copy_context().run, args=(work,), name="load for a stream", daemon=True).start()
    begun = False
    while True:
        try:
            message = told.get(timeout=LOOK_SECONDS)
        except Empty:
            yield []
            continue
        if isinstance(message, HearthError):
            if not begun:
                raise message
            yield [(None, "error", {"status": message.status, **message.to_dict()["error"]})]
            return
        begun = True
        yield [message]
        if message[1] == "model":
            return
