"""`/sessions/<id>/code` and `/sessions/<id>/variables`: code in the session's sandbox."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any

from flask import Response, request
from flask_openapi3 import APIBlueprint

from server.errors import HearthError, InvalidRequestError, NotFoundError
from server.host import Host
from server.http.access import access
from server.http.code_schemas import Code, CodeInterrupted, VariablePath, VariableShown, VariablesListed
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.file_download import download
from server.http.file_schemas import ANY_FILE
from server.http.schemas import ErrorAnswer, SessionPath, WorkspaceQuery
from server.http.sse import LOOK_SECONDS, ServerSentEvent, client_gone, event_stream, wants_events
from server.sandbox.cells import CellResult


def blueprint(host: Host, slow_requests: ConcurrencyLimit) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("code", __name__)
    sandboxes = host.sandboxes

    def answers(of: Any, *errors: int) -> dict[int | str | HTTPStatus, Any]:
        return {200: of, **dict.fromkeys(errors, ErrorAnswer)}

    @routes.post(
        "/sessions/<session_id>/code",
        summary="Run code in the session's sandbox; with Accept: text/event-stream its output comes as it is printed",
        responses=answers(CellResult, 422, 429, 503),
    )
    @access("code", "session")
    def run_code(path: SessionPath, body: Code) -> dict[str, Any] | Response:
        longest = host.settings.SANDBOX_TIMEOUT
        if body.timeout is not None and body.timeout > longest:
            raise InvalidRequestError(f"timeout: {longest:g} seconds are the maximum (HEARTH_SANDBOX_TIMEOUT).")
        timeout = longest if body.timeout is None else body.timeout
        space = host.workspaces.get(body.workspace)
        gone = client_gone()

        def run(on_text: Callable[[str], None], is_left: Callable[[], bool]) -> dict[str, Any]:
            result = sandboxes.run(
                space.name, path.session_id, body.code, timeout, on_text, should_stop=lambda: gone() or is_left()
            )
            always = {"number": result.number, "result": None, "error": result.error and result.error.model_dump()}
            return always | result.model_dump(exclude_none=True, exclude={"number", "error"})

        if wants_events():
            return _streamed(run, slow_requests)
        with slow_requests.acquire():
            return run(lambda text: None, lambda: False)

    @routes.delete(
        "/sessions/<session_id>/code",
        summary="Interrupt the code that runs; if it does not end, its interpreter is ended",
        responses=answers(CodeInterrupted, 404),
    )
    @access("code", "session")
    def interrupt(path: SessionPath, query: WorkspaceQuery) -> dict[str, Any]:
        if not sandboxes.interrupt(query.workspace, path.session_id):
            raise NotFoundError(f"No code runs in the session {path.session_id!r}.")
        return {"session_id": path.session_id, "interrupted": True}

    @routes.get(
        "/sessions/<session_id>/variables",
        summary="The variables of a session's code",
        responses=answers(VariablesListed, 503),
    )
    @access("read", "session")
    def list_variables(path: SessionPath, query: WorkspaceQuery) -> dict[str, Any]:
        with slow_requests.acquire():
            found = sandboxes.variables(query.workspace, path.session_id)
        return {"session_id": path.session_id, "variables": [one.model_dump(exclude_none=True) for one in found]}

    @routes.get(
        "/sessions/<session_id>/variables/<name>",
        summary="What a variable looks like",
        responses=answers(VariableShown, 404, 503),
    )
    @access("read", "session")
    def show_variable(path: VariablePath, query: WorkspaceQuery) -> dict[str, Any]:
        with slow_requests.acquire():
            shown = sandboxes.preview(query.workspace, path.session_id, path.name)
        return {"name": path.name, **shown.model_dump(exclude_none=True)}

    @routes.get(
        "/sessions/<session_id>/variables/<name>/download",
        summary="A variable as a file: a frame as CSV, an array as .npy, text as it is, another plain value as JSON",
        responses={
            200: ANY_FILE,
            404: ErrorAnswer,
            503: ErrorAnswer,
        },
    )
    @access("read", "session")
    def download_variable(path: VariablePath, query: WorkspaceQuery) -> Response:
        with slow_requests.acquire():
            name, file = sandboxes.export(query.workspace, path.session_id, path.name)
        return download(request, file, name)

    return routes


Cell = Callable[[Callable[[str], None], Callable[[], bool]], dict[str, Any]]
"""Runs a cell, given where its output goes and whether the client has left."""


def _streamed(run: Cell, slow_requests: ConcurrencyLimit) -> Response:
    """The events `output` and, at the end, `result` or `error`."""
    events: queue.Queue[ServerSentEvent | None] = queue.Queue()
    left = threading.Event()
    held = ExitStack()
    held.enter_context(slow_requests.acquire())

    def work() -> None:
        with held:
            try:
                result = run(lambda text: events.put((None, "output", {"text": text})), left.is_set)
                events.put((None, "result", result))
            except HearthError as error:
                events.put((None, "error", error.to_dict()["error"]))
            finally:
                events.put(None)

    def batches(begun: Callable[[], bool]) -> Iterator[list[ServerSentEvent]]:
        while True:
            try:
                event = events.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                yield []
                continue
            if event is None:
                return
            yield [event]

    threading.Thread(target=work, name="cell", daemon=True).start()
    return event_stream(batches, when_left=left.set)
