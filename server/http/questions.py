"""`POST /run_script`."""

from http import HTTPStatus
from typing import Any, TypeVar

from flask_openapi3 import APIBlueprint

from server.errors import InvalidRequestError
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.run_schemas import Answer, Question, RunStarted
from server.http.schemas import ErrorAnswer
from server.http.sse import Answered, answer_to
from server.images.sources import is_url
from server.runs import Run


def blueprint(host: Host) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("questions", __name__)
    settings = host.settings
    responses: dict[int | str | HTTPStatus, Any] = {
        200: Answer,
        202: RunStarted,
        **dict.fromkeys((404, 408, 409, 413, 422, 429, 499, 503, 507), ErrorAnswer),
    }

    @routes.post(
        "/run_script",
        summary="Answer a question, at the end or, with Accept: text/event-stream, as it is answered",
        responses=responses,
    )
    @access("ask", "session")
    def run_script(body: Question) -> Answered:
        run = Run(
            body.question,
            body.workspace,
            body.max_steps or settings.MAX_STEPS,
            body.agent,
            body.priority,
            session_id=body.session_id,
            owner=caller().owner_in(body.workspace),
            key=caller().key,
            max_tokens=_at_most(settings.MAX_TOKENS, body.max_tokens, "max_tokens"),
            timeout=_at_most(settings.RUN_TIMEOUT, body.timeout, "timeout"),
        )
        if body.images:
            host.workspaces.get(body.workspace)
            intake = host.pictures.intake(body.workspace, body.session_id)
            marks = [intake.mark(image, is_url=is_url(image)) for image in body.images]
            run.question = "\n".join([f"{run.question}\n", *dict.fromkeys(marks)])
            run.add_images(intake.parts)
        host.questions.start(run, body.generation, body.model)
        return answer_to(run, body.detach)

    return routes


Number = TypeVar("Number", int, float)


def _at_most(setting: Number, asked: Number | None, name: str) -> Number:
    """What holds for a run. Raises `InvalidRequestError` when more is asked for than the server's setting."""
    if asked is not None and asked > setting:
        message = f"Input should be less than or equal to {setting:g}, as the server has it"
        raise InvalidRequestError(
            f"The request is not valid: {name}: {message}.",
            details=[{"type": "less_than_equal", "loc": [name], "msg": message}],
        )
    return setting if asked is None else asked
