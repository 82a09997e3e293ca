"""`POST /load_model`, `/unload_model`, `/sleep` and `/wake`."""

import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import asdict
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.errors import HearthError, as_hearth_error
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.model_schemas import ModelChoice, ModelLoaded, ModelName, ModelsShown, ModelsSlept
from server.http.schemas import EmptyRequest, ErrorAnswer
from server.http.sse import LOOK_SECONDS, ServerSentEvent, event_stream, wants_events
from server.models.described import describe, describe_all
from server.models.resident import Report


def blueprint(host: Host, slow_requests: ConcurrencyLimit) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("models", __name__)

    @routes.post(
        "/load_model",
        summary="Make a model resident; answers when it is ready; with Accept: text/event-stream, its progress",
        responses={200: ModelLoaded, **dict.fromkeys((409, 422, 502, 503), ErrorAnswer)},
    )
    @access("models", "nobody")
    def load_model(body: ModelChoice) -> dict[str, Any] | Response:
        def load(report: Report = lambda *_: None) -> dict[str, Any]:
            started = time.perf_counter()
            with slow_requests.acquire():
                resident = host.model_loader.load(**dict(body), report=report)
            return {"model": describe(resident), "seconds": time.perf_counter() - started}

        return event_stream(partial(_progress, load)) if wants_events() else load()

    def shown(started: float) -> dict[str, Any]:
        return {**describe_all(host.models), "seconds": time.perf_counter() - started}

    @routes.post(
        "/unload_model",
        summary="Give the memory of a model back, or that of all",
        responses={200: ModelsShown, 404: ErrorAnswer, 422: ErrorAnswer},
    )
    @access("models", "nobody")
    def unload_model(body: ModelName) -> dict[str, Any]:
        started = time.perf_counter()
        with slow_requests.acquire():
            host.models.unload(body.model)
        host.audit.record(caller().actor, "model.unloaded", body.model or "all")
        return shown(started)

    @routes.post(
        "/sleep",
        summary="Lend the memory of all models to others: KV memory goes, weights wait in the host's memory",
        responses={200: ModelsSlept, **dict.fromkeys((409, 422, 503), ErrorAnswer)},
    )
    @access("models", "nobody")
    def sleep(body: EmptyRequest) -> dict[str, Any]:
        started = time.perf_counter()
        with slow_requests.acquire():
            slept = host.models.sleep()
        given = [{"model": model.name, **asdict(given_back)} for model, given_back in slept]
        return {**shown(started), "given_back": given}

    @routes.post(
        "/wake",
        summary="Let all models come back from their sleep",
        responses={200: ModelsShown, **dict.fromkeys((422, 503), ErrorAnswer)},
    )
    @access("models", "nobody")
    def wake(body: EmptyRequest) -> dict[str, Any]:
        started = time.perf_counter()
        with slow_requests.acquire():
            host.models.wake()
        return shown(started)

    return routes


def _progress(load: Callable[[Report], dict[str, Any]], begun: Callable[[], bool]) -> Iterator[list[ServerSentEvent]]:
    """The progress of `load`, and then its result or error. The load continues if the client disconnects."""
    sent: SimpleQueue[ServerSentEvent | HearthError] = SimpleQueue()

    def report(stage: str, done: int, total: int) -> None:
        sent.put((None, "progress", {"stage": stage, "done": done, "total": total}))

    def work() -> None:
        try:
            sent.put((None, "model", load(report)))
        except Exception as error:  # boundary: the thread's end
            sent.put(as_hearth_error(error))

    threading.Thread(target=copy_context().run, args=(work,), name="load for a stream", daemon=True).start()
    while True:
        try:
            message = sent.get(timeout=LOOK_SECONDS)
        except Empty:
            yield []
            continue
        if isinstance(message, HearthError):
            if not begun():
                raise message
            yield [(None, "error", {"status": message.status, **message.to_dict()["error"]})]
            return
        yield [message]
        if message[1] == "model":
            return
