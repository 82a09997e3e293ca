"""`GET /v1/models`: what may be asked for."""

import time
from typing import Any

from flask_openapi3 import APIBlueprint

from server.errors import UnknownModelError
from server.host import Host
from server.http.access import access
from server.http.openai.run_factory import OWN
from server.http.openai.schemas import ModelAvailable, ModelId, ModelsAvailable, ModelsQuery, OpenAIError
from server.models.resident import ResidentModel


def blueprint(host: Host) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("openai_models", __name__)
    created = int(time.time())

    def available(workspace: str) -> list[dict[str, Any]]:
        """The resident models, also while they are loading, the default one under both its names, and the agents of a
        workspace's live code."""
        models = [model for model in host.models.all if model.state != "failed"]
        names = list(dict.fromkeys(model.name for model in models))
        names += [OWN] if names else []
        live = host.workspaces.get(workspace).live
        if live is not None:
            names += [f"{OWN}/{agent}" for agent in sorted(live.agents)]
        by_name = {model.name: model for model in reversed(models)}
        # Everything that is no model's name is answered by the default one, which comes first.
        default = models[0] if models else None
        return [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": OWN,
                **_described(by_name.get(name, default)),
            }
            for name in names
        ]

    @routes.get(
        "/v1/models",
        summary="OpenAI: the resident models, and the agents",
        responses={200: ModelsAvailable},
    )
    @access("read", "workspace")
    def list_models(query: ModelsQuery) -> dict[str, Any]:
        return {"object": "list", "data": available(query.x_workspace)}

    @routes.get(
        "/v1/models/<path:model>",
        summary="OpenAI: one of them",
        responses={200: ModelAvailable, 404: OpenAIError},
    )
    @access("read", "workspace")
    def show_model(path: ModelId, query: ModelsQuery) -> dict[str, Any]:
        for shown in available(query.x_workspace):
            if shown["id"] == path.model:
                return shown
        raise UnknownModelError(f"There is no model {path.model!r} here. GET /v1/models lists those that there are.")

    return routes


def _described(model: ResidentModel | None) -> dict[str, Any]:
    """What clients want to know of a model; None: there is none."""
    engine = None if model is None else model.own_engine
    length = None if engine is None else engine.context_length
    return {
        "context_length": length,
        "max_model_len": length,
        "takes_images": model is not None and bool(model.takes_images),
    }
