"""`GET /v1/models`: what may be asked for."""

import time
from typing import Any

from flask_openapi3 import APIBlueprint

from server.errors import UnknownModelError
from server.host import Host
from server.http.access import access
from server.http.openai.run_factory import OWN, resident_names
from server.http.openai.schemas import ModelAvailable, ModelId, ModelsAvailable, ModelsQuery, OpenAIError


def blueprint(host: Host) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("openai_models", __name__)
    created = int(time.time())

    def available(workspace: str) -> list[dict[str, Any]]:
        """The resident models, the default one under both its names, and the agents of a workspace's live code."""
        names = resident_names(host)
        live = host.workspaces.get(workspace).live
        if live is not None:
            names += [f"{OWN}/{agent}" for agent in sorted(live.agents)]
        sees = {model.name: bool(model.takes_images) for model in host.models.all}
        # Everything that is no model's name is answered by the default one, which comes first.
        by_default = next(iter(sees.values()), False)
        return [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": OWN,
                "takes_images": sees.get(name, by_default),
            }
            for name in names
        ]

    @routes.get(
        "/v1/models",
        summary="OpenAI: the resident models, and the agents",
        responses={200: ModelsAvailable, 409: OpenAIError},
    )
    @access("read", "workspace")
    def list_models(query: ModelsQuery) -> dict[str, Any]:
        return {"object": "list", "data": available(query.x_workspace)}

    @routes.get(
        "/v1/models/<path:model>",
        summary="OpenAI: one of them",
        responses={200: ModelAvailable, 404: OpenAIError, 409: OpenAIError},
    )
    @access("read", "workspace")
    def show_model(path: ModelId, query: ModelsQuery) -> dict[str, Any]:
        for shown in available(query.x_workspace):
            if shown["id"] == path.model:
                return shown
        raise UnknownModelError(f"There is no model {path.model!r} here. GET /v1/models lists those that there are.")

    return routes
