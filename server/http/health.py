"""`GET /health`: whether the server is there, and how far it is."""

from dataclasses import asdict
from typing import Any

from flask_openapi3 import APIBlueprint

from server import VERSION
from server.errors import HearthError, StoreError
from server.host import Host
from server.http.access import may_come_in
from server.http.schemas import Health
from server.resident import ResidentModel, ResidentModels
from server.runs.abandoned import abandoned_tools


def blueprint(host: Host) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("health", __name__)

    @routes.get("/health", summary="Is the server there, and how far is it?", responses={200: Health}, security=[])
    def health() -> dict[str, Any]:
        live = host.workspaces.main.live
        tools = live.tools if live is not None else None
        states = [run.state for run in host.runs.in_flight()]
        abandoned = abandoned_tools()
        answer = {
            "status": "ok",
            "version": VERSION,
            **describe_all(host.models),
            "tools": None if live is None or tools is None else {"generation": live.hash, "count": len(tools)},
            "runs": {state: states.count(state) for state in ("running", "queued")},
            "kv_bytes": host.models.kv_bytes,
            "abandoned": len(abandoned),
        }
        unkept = host.database.failure
        if may_come_in(host.settings):
            # Whose tools they are is nobody's business.
            answer["abandoned_tools"] = [asdict(one) for one in abandoned]
        elif unkept is not None:
            unkept = "The last record could not be kept."
        if host.autoload_error is not None and tools is None:
            answer["autoload_error"] = name(host.autoload_error)
        if unkept is not None:
            answer["store_error"] = name(StoreError(unkept))
        return answer

    return routes


def describe_all(residents: ResidentModels) -> dict[str, Any]:
    """The models as the routes show them: the default, and all."""
    models = [describe(one) for one in residents.all]
    return {"model": models[0] if models else None, "models": models}


def describe(resident: ResidentModel) -> dict[str, Any]:
    """A model as the routes show it."""
    shown: dict[str, Any] = {
        "name": resident.name,
        "state": resident.state,
        "device": resident.device,
        "quantization": resident.quantization,
        "memory_bytes": resident.memory_bytes,
    }
    if resident.state == "loading":
        shown["progress"] = dict(zip(("stage", "done", "total"), resident.progress, strict=True))
    if resident.error is not None:
        shown["error"] = name(resident.error)
    return shown


def name(error: HearthError) -> dict[str, str]:
    """An error without its details, for a route that needs no token."""
    return {"type": error.code, "message": error.message}
