"""`/comparisons`: two versions over a list of questions."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from http import HTTPStatus
from itertools import chain
from typing import Any

from flask import Response, request
from flask_openapi3 import APIBlueprint
from pydantic import ValidationError

from server.bounds import bounded
from server.comparisons.comparison import CheckChoice, Row, SideChoice
from server.comparisons.export import as_csv
from server.comparisons.questions_file import read_questions
from server.errors import InvalidRequestError
from server.files.names import cleaned
from server.host import Host
from server.http import ownership
from server.http.access import access
from server.http.auth import caller
from server.http.body import read_json, refuse
from server.http.comparison_schemas import (
    REQUEST,
    ComparedSide,
    ComparisonDeleted,
    ComparisonDetails,
    ComparisonPath,
    ComparisonShown,
    ComparisonsListed,
    ComparisonsQuery,
    ComparisonStarted,
    NewComparison,
    RowsListed,
    RowsQuery,
    body,
)
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.description import components
from server.http.multipart import is_form, read_form
from server.http.schemas import EVENTS, ErrorAnswer, NoQuery
from server.http.sse import PING, ServerSentEvent, event_stream, events_after, last_event_id

LONGEST_SHOWN = 10_000
"""Maximum length of a text in a list of rows, in characters. The run has the whole answer."""


def blueprint(
    host: Host, transfers: ConcurrencyLimit, event_streams: ConcurrencyLimit, slow_requests: ConcurrencyLimit
) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("comparisons", __name__)
    routes.components_schemas |= components(NewComparison)
    comparisons = host.comparisons

    def answers(of: Any, *errors: int, status: int = 200) -> dict[int | str | HTTPStatus, Any]:
        return {status: of, **dict.fromkeys(errors, ErrorAnswer)}

    @routes.post(
        "/comparisons",
        summary="Ask two versions the same questions: in JSON, of runs, or in a file of a form",
        responses=answers(ComparisonStarted, 400, 404, 409, 413, 415, 422, 429, 503, 507, status=202),
        openapi_extensions=body(),
    )
    @access("ask", "caller", body=NewComparison, takes_form=True)
    def start(query: NoQuery) -> tuple[dict[str, Any], int]:
        with transfers.acquire():
            wanted = _read_form(host) if is_form(request) else _checked(request.get_json())
        host.workspaces.get(wanted.workspace)
        rows = _rows(host, wanted)
        sides = _side(host, wanted, wanted.a), _side(host, wanted, wanted.b)
        check = None if wanted.check is None else CheckChoice(wanted.check.kind, wanted.check.tool)
        with slow_requests.acquire():
            owner = caller().owner_in(wanted.workspace)
            made = comparisons.start(wanted.name or "", wanted.workspace, owner, rows, sides, check, wanted.at_once)
        return {"comparison_id": made.id, "state": made.state}, HTTPStatus.ACCEPTED

    @routes.get("/comparisons", summary="List comparisons, the latest first", responses=answers(ComparisonsListed))
    @access("read", "caller")
    def list_comparisons(query: ComparisonsQuery) -> dict[str, Any]:
        found = comparisons.latest(query.limit + 1, query.workspace, query.before, host.permissions.reader(caller()))
        return {
            "comparisons": [one.shown() for one in found[: query.limit]],
            "next": found[query.limit - 1].id if len(found) > query.limit else None,
        }

    @routes.get(
        "/comparisons/<comparison_id>",
        summary="A comparison, with what its rows say so far",
        responses=answers(ComparisonDetails, 404),
    )
    @access("read", "comparison")
    def show(path: ComparisonPath, query: NoQuery) -> dict[str, Any]:
        found = comparisons.get(path.comparison_id)
        return {**found.shown(), "summary": comparisons.summary(found.id)}

    @routes.get(
        "/comparisons/<comparison_id>/rows",
        summary="The questions of a comparison with both answers, the changed ones first",
        responses=answers(RowsListed, 404),
    )
    @access("read", "comparison")
    def list_rows(path: ComparisonPath, query: RowsQuery) -> dict[str, Any]:
        found = comparisons.get(path.comparison_id)
        rows = comparisons.rows(found.id, query.order, query.limit + 1, _cursor(query.after))
        shown = rows[: query.limit]
        last = f"{shown[-1].rank}-{shown[-1].number}" if len(rows) > query.limit else None
        return {"rows": [_shown(row) for row in shown], "next": last}

    @routes.get(
        "/comparisons/<comparison_id>/events",
        summary="The progress of a comparison, from the first event or from the one after Last-Event-ID",
        responses={200: EVENTS, 204: None, **dict.fromkeys((404, 422, 429), ErrorAnswer)},
    )
    @access("read", "comparison")
    def follow(path: ComparisonPath, query: NoQuery) -> Response:
        events, number = comparisons.events(path.comparison_id), last_event_id()
        if events.ended and not events.since(number):
            # With 204 a browser does not reconnect.
            return Response(status=204)
        held = ExitStack()
        held.enter_context(event_streams.acquire())

        def batches() -> Iterator[list[ServerSentEvent]]:
            for batch in events_after(events, number):
                yield batch
                if host.closing.is_set() and not events.ended:
                    return

        return event_stream(lambda begun: chain([[PING]], batches()), when_left=held.close)

    @routes.get(
        "/comparisons/<comparison_id>/export",
        summary="All rows of a comparison as CSV",
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}, 404: ErrorAnswer},
    )
    @access("read", "comparison")
    def export(path: ComparisonPath, query: NoQuery) -> Response:
        found = comparisons.get(path.comparison_id)
        return Response(
            as_csv(comparisons.all_rows(found.id)),
            content_type="text/csv; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="comparison-{found.id}.csv"',
                "X-Content-Type-Options": "nosniff",
            },
        )

    @routes.post(
        "/comparisons/<comparison_id>/cancel",
        summary="Stop a comparison; its answers stay. Answers when its runs have ended",
        responses=answers(ComparisonShown, 404, 409, 429),
    )
    @access("ask", "comparison")
    def cancel(path: ComparisonPath, query: NoQuery) -> dict[str, Any]:
        with slow_requests.acquire():
            return comparisons.cancel(path.comparison_id).shown()

    @routes.post(
        "/comparisons/<comparison_id>/resume",
        summary="Continue a comparison that was stopped, with the questions that have no answer",
        responses=answers(ComparisonStarted, 404, 409, 422, 429, 503, status=202),
    )
    @access("ask", "comparison")
    def resume(path: ComparisonPath, query: NoQuery) -> tuple[dict[str, Any], int]:
        found = comparisons.get(path.comparison_id)
        for side in (found.a, found.b):
            host.permissions.check_workspace(caller(), side.workspace)
            host.permissions.check_generation(caller(), side.generation)
        with slow_requests.acquire():
            resumed = comparisons.resume(path.comparison_id)
        return {"comparison_id": resumed.id, "state": resumed.state}, HTTPStatus.ACCEPTED

    @routes.delete(
        "/comparisons/<comparison_id>",
        summary="Delete a comparison; one that runs is stopped first",
        responses=answers(ComparisonDeleted, 404, 409, 429),
    )
    @access("ask", "comparison")
    def delete(path: ComparisonPath, query: NoQuery) -> dict[str, Any]:
        with slow_requests.acquire():
            comparisons.delete(path.comparison_id)
        return {"comparison_id": path.comparison_id}

    return routes


def _read_form(host: Host) -> NewComparison:
    """The comparison of a form: the field `request`, and a file with the questions."""
    with host.session_files.incoming() as upload:
        form = read_form(request, host.settings, upload, [REQUEST])
        if len(upload.files) != 1:
            raise InvalidRequestError(f"The form has {len(upload.files)} files. Send one, with the questions.")
        given = read_json(form.fields.get(REQUEST, "").encode() or b"{}")
        if not isinstance(given, dict) or "questions" in given:
            raise InvalidRequestError(
                f'The field {REQUEST!r} has to be a JSON object with the two sides, like {{"a": {{}}, "b": {{}}}}, '
                "and without questions: they are in the file."
            )
        [file] = upload.files
        questions = read_questions(file.path, cleaned(file.uploaded_as), host.settings.MAX_BODY_BYTES)
        ownership.check_read(host.permissions, caller(), NewComparison, given)
        return _checked({**given, "questions": questions})


def _checked(given: dict[str, Any]) -> NewComparison:
    try:
        return NewComparison.model_validate(given)
    except ValidationError as error:
        refuse(error)


def _rows(host: Host, wanted: NewComparison) -> list[Row]:
    """The questions, as they are asked. Raises `RunNotFoundError`, `InvalidRequestError`."""
    if wanted.questions is not None:
        return [
            Row(number, one.question, one.expected, [message.model_dump() for message in one.history])
            for number, one in enumerate(wanted.questions, 1)
        ]
    rows = []
    for number, run_id in enumerate(wanted.runs or (), 1):
        record = host.questions.record(run_id)
        if record.get("images"):
            raise InvalidRequestError(f"Run {run_id} has pictures, and a comparison asks without. Leave it out.")
        if not record["question"].strip():
            raise InvalidRequestError(f"Run {run_id} has no question, since no agent answered it. Leave it out.")
        history = [{"role": one["role"], "content": one["content"]} for one in record.get("history", ())]
        rows.append(Row(number, record["question"], None, history))
    return rows


def _side(host: Host, wanted: NewComparison, side: ComparedSide) -> SideChoice:
    return SideChoice(
        side.workspace or wanted.workspace,
        None if side.generation in (None, "live") else host.generations.find(side.generation or ""),
        side.model,
        side.agent,
        side.max_steps or host.settings.MAX_STEPS,
        side.instructions,
    )


def _cursor(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    rank, _, number = text.partition("-")
    return int(rank), int(number)


def _shown(row: Row) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "number": row.number,
        "question": row.question,
        "expected": row.expected,
        "changed": row.has_changed,
        "a": None if row.a is None else asdict(row.a),
        "b": None if row.b is None else asdict(row.b),
    }
    return dict(bounded(shown, LONGEST_SHOWN))
