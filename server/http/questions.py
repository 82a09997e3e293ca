"""`POST /run_script`."""

from http import HTTPStatus
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.following import stream, wait_for
from server.http.schemas import Answer, ErrorAnswer, Question
from server.http.streams import wants_events
from server.runs import Run


def blueprint(host: Host) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("questions", __name__)
    responses: dict[int | str | HTTPStatus, Any] = {
        200: Answer,
        **dict.fromkeys((404, 409, 422, 429, 499, 503), ErrorAnswer),
    }

    @routes.post(
        "/run_script",
        summary="Answer a question, at the end or, with Accept: text/event-stream, as it is answered",
        responses=responses,
    )
    def run_script(body: Question) -> dict[str, Any] | Response:
        run = Run(body.question, body.workspace, body.max_steps or host.settings.MAX_STEPS, body.agent)
        host.ask(run, body.generation)
        return stream(run, body.detach) if wants_events() else wait_for(run, body.detach)

    return routes
