"""`/runs`: what was asked, and what came of it."""

from contextlib import ExitStack
from http import HTTPStatus
from itertools import chain
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.run_schemas import Replayed, RunCancelled, RunQuery, RunShown, RunsListed, RunsQuery
from server.http.schemas import EVENTS, ErrorAnswer, NoQuery, RunId
from server.http.sse import PING, event_stream, events_after, last_event_id, wait_for
from server.store.runs import RunFilter


def blueprint(host: Host, event_streams: ConcurrencyLimit) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("runs", __name__)
    responses: dict[int | str | HTTPStatus, Any] = {
        200: Replayed,
        **dict.fromkeys((404, 408, 409, 422, 429, 499, 503), ErrorAnswer),
    }

    @routes.get(
        "/runs",
        summary="List runs, those in flight first, then the latest",
        responses={200: RunsListed, 404: ErrorAnswer},
    )
    @access("read", "caller")
    def list_runs(query: RunsQuery) -> dict[str, Any]:
        wanted = RunFilter(
            workspace=query.workspace,
            state=query.state,
            agent=query.agent,
            model=query.model,
            session_id=query.session_id,
            text=query.text,
            since=None if query.since is None else query.since.timestamp(),
            before=query.before,
            reader=host.permissions.reader(caller()),
        )
        return {"runs": host.questions.records(wanted, query.limit)}

    @routes.get("/runs/<run_id>", summary="A run", responses={200: RunShown, 404: ErrorAnswer})
    @access("read", "run")
    def show(path: RunId, query: RunQuery) -> dict[str, Any]:
        return host.questions.record(path.run_id, query.steps)

    @routes.get(
        "/runs/<run_id>/events",
        summary="The events of a run as they come, from the first or from the one after Last-Event-ID",
        responses={200: EVENTS, 204: None, **dict.fromkeys((404, 422, 429), ErrorAnswer)},
    )
    @access("read", "run")
    def events(path: RunId, query: NoQuery) -> Response:
        run, number = host.runs.get(path.run_id), last_event_id()
        if run.events.ended and not run.events.since(number):
            # With 204 a browser does not reconnect.
            return Response(status=204)
        held = ExitStack()
        held.enter_context(event_streams.acquire())
        # The headers are sent with the first bytes, and a client that reconnects should see at once that the run
        # exists.
        return event_stream(lambda _: chain([[PING]], events_after(run.events, number)), when_left=held.close)

    @routes.delete("/runs/<run_id>", summary="Cancel a run", responses={200: RunCancelled, 404: ErrorAnswer})
    @access("ask", "run")
    def cancel(path: RunId, query: NoQuery) -> dict[str, Any]:
        host.questions.cancel(path.run_id)
        return {"run_id": path.run_id, "cancelled": True}

    @routes.post(
        "/runs/<run_id>/replay",
        summary="Ask the question of a run again, of the same code and the same model",
        responses=responses,
    )
    @access("ask", "run")
    def replay(path: RunId, query: NoQuery) -> dict[str, Any]:
        run, record = host.questions.ask_again(path.run_id, caller().owner_in, caller().key)
        answer = wait_for(run, detach=False)
        return {**answer, "replay_of": path.run_id, "same_answer": answer["answer"] == record.get("answer")}

    return routes
