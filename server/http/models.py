"""`POST /load_model` and `POST /unload_model`."""

import time
from typing import Any

from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.health import describe
from server.http.schemas import ErrorAnswer, ModelChoice, ModelLoaded, ModelUnloaded, Nothing
from server.http.waiting import WaitingRoom


def blueprint(host: Host, room: WaitingRoom) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("models", __name__)

    @routes.post(
        "/load_model",
        summary="Make a model resident, and answer when it is ready",
        responses={200: ModelLoaded, 422: ErrorAnswer, 503: ErrorAnswer},
    )
    def load_model(body: ModelChoice) -> dict[str, Any]:
        started = time.perf_counter()
        with room.place():
            resident = host.load_model(body.model, body.load_in_8bit, body.device_map, body.dtype)
        return {"model": describe(resident), "seconds": time.perf_counter() - started}

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
