"""`POST /runs/<id>/fork`: continue a run from one of its steps, with something changed."""

from http import HTTPStatus
from typing import Any

from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.fork_schemas import ForkRequest
from server.http.run_schemas import Answer, RunStarted
from server.http.schemas import ErrorAnswer, RunId
from server.http.sse import Answered, answer_to
from server.runs.forks import Changes, ContinueFrom


def blueprint(host: Host) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("forks", __name__)
    responses: dict[int | str | HTTPStatus, Any] = {
        200: Answer,
        202: RunStarted,
        **dict.fromkeys((404, 408, 409, 413, 422, 429, 499, 503, 507), ErrorAnswer),
    }

    @routes.post(
        "/runs/<run_id>/fork",
        summary="Continue a run from one of its steps, with something changed; streams like /run_script",
        responses=responses,
    )
    @access("ask", "run")
    def fork(path: RunId, body: ForkRequest) -> Answered:
        place = body.continue_from
        changes = Changes(
            observation=body.observation,
            thought=body.thought,
            input=body.input,
            rerun_tool=body.rerun_tool,
            question=body.question,
            history=None if body.history is None else [one.model_dump() for one in body.history],
            agent=body.agent,
            workspace=body.workspace,
            generation=body.generation,
            sampling=body.sampling.model_dump(exclude_none=True),
            continue_from=None if place is None else ContinueFrom(place.call, place.token, place.text),
        )
        run = host.forks.start(path.run_id, body.step, changes, caller().owner_in, caller().key)
        return answer_to(run, body.detach)

    return routes
