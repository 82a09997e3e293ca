"""`POST /reload_modules`."""

from dataclasses import asdict
from typing import Any

from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.access import access
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.generation_schemas import ReloadChoice, Reloaded
from server.http.schemas import ErrorAnswer


def blueprint(host: Host, slow_requests: ConcurrencyLimit) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("reload", __name__)

    @routes.post(
        "/reload_modules",
        summary="Load changed code, all of it or nothing",
        responses={200: Reloaded, 404: ErrorAnswer, 422: ErrorAnswer},
    )
    @access("code", "workspace")
    def reload_modules(body: ReloadChoice) -> dict[str, Any]:
        with slow_requests.acquire():
            return asdict(host.code_loader.reload(body.workspace, body.dry_run, body.generation))

    return routes
