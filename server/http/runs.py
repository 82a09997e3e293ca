"""`/runs`: what was asked, and what came of it."""

from http import HTTPStatus
from typing import Any

from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.following import wait_for
from server.http.schemas import (
    ErrorAnswer,
    Replayed,
    RunCancelled,
    RunId,
    RunShown,
    RunsListed,
    RunsQuery,
    TokenQuery,
)


def blueprint(host: Host) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("runs", __name__)
    responses: dict[int | str | HTTPStatus, Any] = {
        200: Replayed,
        **dict.fromkeys((404, 409, 422, 429, 499, 503), ErrorAnswer),
    }

    @routes.get("/runs", summary="List runs, those in flight first, then the latest", responses={200: RunsListed})
    def list_runs(query: RunsQuery) -> dict[str, Any]:
        return {"runs": host.runs_of(query.workspace, query.limit)}

    @routes.get("/runs/<run_id>", summary="A run", responses={200: RunShown, 404: ErrorAnswer})
    def show(path: RunId, query: TokenQuery) -> dict[str, Any]:
        return host.run_record(path.run_id)

    @routes.delete("/runs/<run_id>", summary="Cancel a run", responses={200: RunCancelled, 404: ErrorAnswer})
    def cancel(path: RunId, query: TokenQuery) -> dict[str, Any]:
        host.cancel(path.run_id)
        return {"run_id": path.run_id, "cancelled": True}

    @routes.post(
        "/runs/<run_id>/replay",
        summary="Ask the question of a run again, of the same code and the same model",
        responses=responses,
    )
    def replay(path: RunId, query: TokenQuery) -> dict[str, Any]:
        run, record = host.replay(path.run_id)
        answer = wait_for(run)
        return {**answer, "replay_of": path.run_id, "same_answer": answer["answer"] == record.get("answer")}

    return routes
