"""`POST /run_script`."""

from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.schemas import Answer, ErrorAnswer, Question
from server.runs import Run


def blueprint(host: Host) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("questions", __name__)
    responses: dict[int | str | HTTPStatus, Any] = {
        200: Answer,
        **dict.fromkeys((404, 409, 422, 429, 499, 503), ErrorAnswer),
    }

    @routes.post("/run_script", summary="Answer a question", responses=responses)
    def run_script(body: Question) -> dict[str, Any]:
        run = Run(body.question, body.workspace, body.max_steps or host.settings.MAX_STEPS)
        result = host.answer(run, body.agent, body.generation)
        return {
            "run_id": run.id,
            "answer": result.answer,
            "function": result.function,
            "steps": [_step(step) for step in result.steps],
            "workspace": run.workspace,
            "generation": run.generation,
            "model": run.model,
            "usage": result.usage,
            "seconds": run.seconds,
            "queued_seconds": run.queued_seconds,
        }

    return routes


def _step(step: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(step).items() if name != "error" or value is not None}
