"""`/runs/<id>/steps` and `/runs/<id>/tokens`: what the model saw."""

from http import HTTPStatus
from typing import Any

from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.access import access
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.schemas import ErrorAnswer, NoQuery, RunId
from server.http.trace_schemas import StepPath, StepShown, StepsListed, StepsQuery, TokensListed, TokensQuery


def blueprint(host: Host, slow_requests: ConcurrencyLimit) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("traces", __name__)
    traces = host.traces

    def answers(of: Any, *errors: int) -> dict[int | str | HTTPStatus, Any]:
        return {200: of, **dict.fromkeys(errors, ErrorAnswer)}

    @routes.get("/runs/<run_id>/steps", summary="The steps of a run", responses=answers(StepsListed, 404, 422))
    @access("read", "run")
    def steps(path: RunId, query: StepsQuery) -> dict[str, Any]:
        return traces.steps(path.run_id, query.after, query.limit)

    @routes.get(
        "/runs/<run_id>/steps/<int:step>",
        summary="A step with its prompts, and how they differ from those before",
        responses=answers(StepShown, 404, 422),
    )
    @access("read", "run")
    def step(path: StepPath, query: NoQuery) -> dict[str, Any]:
        return traces.step(path.run_id, path.step)

    @routes.get(
        "/runs/<run_id>/tokens",
        summary="The tokens of a model call, with their log-probabilities and the likeliest alternatives",
        responses=answers(TokensListed, 404, 409, 422, 429),
    )
    @access("read", "run")
    def tokens(path: RunId, query: TokensQuery) -> dict[str, Any]:
        with slow_requests.acquire():
            return traces.tokens(path.run_id, query.call, query.step, query.after, query.limit)

    return routes
