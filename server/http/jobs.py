"""`/jobs`: tools that run in the background; and `/sessions/<id>/events`, which says how they fare."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from itertools import chain
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.errors import InvalidRequestError, ToolNotFoundError
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.job_schemas import JobPath, JobShown, JobsListed, JobsQuery, JobStarted, NewJob
from server.http.schemas import EVENTS, ErrorAnswer, NoQuery, SessionPath, WorkspaceQuery
from server.http.sse import PING, ServerSentEvent, event_stream, events_after, last_event_id
from server.jobs.job import Job
from server.runs import Events


def blueprint(host: Host, event_streams: ConcurrencyLimit, slow_requests: ConcurrencyLimit) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("jobs", __name__)
    jobs = host.jobs

    def answers(of: Any, *errors: int, status: int = 200) -> dict[int | str | HTTPStatus, Any]:
        return {status: of, **dict.fromkeys(errors, ErrorAnswer)}

    @routes.post(
        "/jobs",
        summary="Start a tool as a job",
        responses=answers(JobStarted, 404, 409, 422, 429, 503, status=202),
    )
    @access("code", "session")
    def start(body: NewJob) -> tuple[dict[str, Any], int]:
        space = host.workspaces.get(body.workspace)
        wanted = None if body.generation is None else host.generations.find(body.generation)
        with space.pin() if wanted is None else space.pin_earlier(wanted) as pinned:
            generation, tool = pinned.hash, (pinned.tools or {}).get(body.tool)
        if tool is None:
            raise ToolNotFoundError(
                f"Generation {generation} of the workspace {body.workspace!r} has no tool {body.tool!r}. GET /tools "
                "lists the tools of the live generation."
            )
        longest = host.settings.JOB_TIMEOUT
        if body.timeout is not None and body.timeout > longest:
            raise InvalidRequestError(f"timeout: {longest:g} seconds are the maximum (HEARTH_JOB_TIMEOUT).")
        job = jobs.start(
            Job(
                id="",
                workspace=space.name,
                owner=caller().owner_in(space.name),
                generation=generation,
                tool=body.tool,
                input=body.input,
                timeout=longest if body.timeout is None else body.timeout,
                session_id=body.session_id,
                wakes=body.session_id is not None,
                priority=body.priority,
                idempotent=tool.is_idempotent,
            )
        )
        return {"job_id": job.id, "state": job.state}, HTTPStatus.ACCEPTED

    @routes.get("/jobs", summary="List jobs, the latest first", responses=answers(JobsListed))
    @access("read", "caller")
    def list_jobs(query: JobsQuery) -> dict[str, Any]:
        found = jobs.latest(
            query.limit,
            states=[query.state] if query.state is not None else [],
            session_id=query.session_id,
            workspace=query.workspace,
            before=query.before,
            reader=host.permissions.reader(caller()),
        )
        return {"jobs": [job.shown() for job in found]}

    @routes.get("/jobs/<job_id>", summary="A job", responses=answers(JobShown, 404))
    @access("read", "job")
    def show(path: JobPath, query: NoQuery) -> dict[str, Any]:
        return jobs.get(path.job_id).shown()

    @routes.delete(
        "/jobs/<job_id>",
        summary="Cancel a job; answers when nothing of it is left",
        responses=answers(JobShown, 404, 409, 429),
    )
    @access("ask", "job")
    def cancel(path: JobPath, query: NoQuery) -> dict[str, Any]:
        with slow_requests.acquire():
            return jobs.cancel(path.job_id).shown()

    @routes.post(
        "/jobs/<job_id>/retry",
        summary="Start an ended job again, with the same code and input",
        responses=answers(JobStarted, 404, 409, 429, 503, status=202),
    )
    @access("code", "job")
    def retry(path: JobPath, query: NoQuery) -> tuple[dict[str, Any], int]:
        job = jobs.retry(path.job_id)
        return {"job_id": job.id, "state": job.state, "retry_of": path.job_id}, HTTPStatus.ACCEPTED

    @routes.get(
        "/jobs/<job_id>/log",
        summary="What a job has printed",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, 404: ErrorAnswer},
    )
    @access("read", "job")
    def log(path: JobPath, query: NoQuery) -> Response:
        response = Response(jobs.log(path.job_id), content_type="text/plain; charset=utf-8")
        # It is people's text, and never a page.
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def follow(events: Events, stop_if: Callable[[], bool] = lambda: False) -> Response:
        number = last_event_id()
        if events.ended and not events.since(number):
            # With 204 a browser does not reconnect.
            return Response(status=204)
        held = ExitStack()
        held.enter_context(event_streams.acquire())

        def batches(_: Callable[[], bool]) -> Iterator[list[ServerSentEvent]]:
            for batch in events_after(events, number):
                yield batch
                if stop_if():
                    return

        return event_stream(lambda begun: chain([[PING]], batches(begun)), when_left=held.close)

    @routes.get(
        "/jobs/<job_id>/events",
        summary="The events of a job, from the first or from the one after Last-Event-ID",
        responses={200: EVENTS, 204: None, **dict.fromkeys((404, 422, 429), ErrorAnswer)},
    )
    @access("read", "job")
    def job_events(path: JobPath, query: NoQuery) -> Response:
        return follow(jobs.events(path.job_id))

    @routes.get(
        "/sessions/<session_id>/events",
        summary="The messages of a session and the changes of its jobs, as they come",
        responses={200: EVENTS, **dict.fromkeys((404, 422, 429), ErrorAnswer)},
    )
    @access("read", "session")
    def session_events(path: SessionPath, query: WorkspaceQuery) -> Response:
        space = host.workspaces.get(query.workspace)
        return follow(host.feeds.events(space.name, path.session_id), host.closing.is_set)

    return routes
