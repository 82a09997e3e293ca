"""`GET /health`: liveness and loading state."""

import sys
from dataclasses import asdict
from typing import Any

from flask_openapi3 import APIBlueprint

from server import VERSION
from server.errors import StoreError
from server.host import Host
from server.http.access import access
from server.http.auth import known_caller
from server.http.health_schemas import Health
from server.models.described import describe_all, error_shown


def blueprint(host: Host) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("health", __name__)

    @routes.get("/health", summary="Is the server there, and how far is it?", responses={200: Health}, security=[])
    @access("public", "nobody")
    def health() -> dict[str, Any]:
        live = host.workspaces.main.live
        tools = live.tools if live is not None else None
        states = [run.state for run in host.runs.in_flight()]
        # Only Linux enforces it: see `isolation.py`.
        memory = host.workers.memory_bytes if sys.platform == "linux" else None
        principal = known_caller()
        trusted = principal is not None
        answer = {
            "status": "ok",
            "version": VERSION,
            **describe_all(host.models, trusted),
            "tools": None if live is None or tools is None else {"generation": live.hash, "count": len(tools)},
            "runs": {state: states.count(state) for state in ("running", "queued")},
            "kv_bytes": host.models.kv_bytes,
            "sandbox": host.sandboxes.health(),
            "worker_memory": None if memory is None else {"bytes": memory, "by": "RLIMIT_DATA"},
        }
        if principal is not None and "admin" in principal.scopes:
            # The workers show the names of workspaces.
            answer["workers"] = [asdict(one) for one in host.workers.describe()]
        if host.autoload.error is not None and tools is None:
            answer["autoload_error"] = error_shown(host.autoload.error, trusted)
        if host.database.failure is not None:
            answer["store_error"] = error_shown(StoreError(host.database.failure), trusted)
        return answer

    return routes
