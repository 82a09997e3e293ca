"""`POST /run_script`."""

from http import HTTPStatus
from typing import Any

from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.following import wait_for
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
        run = Run(body.question, body.workspace, body.max_steps or host.settings.MAX_STEPS, body.agent)
        host.ask(run, body.generation)
        return wait_for(run)

    return routes
