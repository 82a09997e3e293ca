"""`/sessions`: what was said, and the notepads."""

from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.errors import SessionNotFoundError
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.schemas import ErrorAnswer, HistoryQuery, SessionPath, WorkspaceQuery
from server.http.session_schemas import (
    ExportQuery,
    Notepad,
    NotepadShown,
    SessionDeleted,
    SessionExported,
    SessionMessages,
    SessionsListed,
    SessionsQuery,
)
from server.sessions.markdown import as_markdown
from server.store import Exchange, SessionShown
from server.store.sessions import entries_of


def blueprint(host: Host) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("sessions", __name__)
    store = host.session_store

    def answers(of: Any, *errors: int) -> dict[int | str | HTTPStatus, Any]:
        return {200: of, **dict.fromkeys(errors, ErrorAnswer)}

    def with_messages(session: SessionShown, exchanges: list[Exchange]) -> dict[str, Any]:
        # Without accounts nobody knows who a person is.
        askers = {} if caller().everything else store.askers(session.workspace, session.id)
        return _with_messages(session, exchanges, askers)

    @routes.get("/sessions", summary="List sessions, the last used first", responses=answers(SessionsListed))
    @access("read", "caller")
    def list_sessions(query: SessionsQuery) -> dict[str, Any]:
        return sessions_listed(host, query)

    @routes.get(
        "/sessions/<session_id>",
        summary="A session and what was said in its last turns",
        responses=answers(SessionMessages, 404),
    )
    @access("read", "session")
    def show(path: SessionPath, query: HistoryQuery) -> dict[str, Any]:
        session = store.get(query.workspace, path.session_id)
        return with_messages(session, store.exchanges(query.workspace, path.session_id, query.limit))

    @routes.get(
        "/sessions/<session_id>/export",
        summary="All of a session, as JSON or Markdown",
        responses=answers(SessionExported, 404),
    )
    @access("read", "session")
    def export(path: SessionPath, query: ExportQuery) -> dict[str, Any] | Response:
        session = store.get(query.workspace, path.session_id)
        exchanges = store.exchanges(query.workspace, path.session_id)
        if query.format == "markdown":
            return Response(as_markdown(session, exchanges), content_type="text/markdown; charset=utf-8")
        return {**with_messages(session, exchanges), "notepad": entries_of(exchanges)}

    @routes.delete(
        "/sessions/<session_id>",
        summary="Forget a session, its notepad, files and documents; its runs stay",
        responses=answers(SessionDeleted, 404, 409, 503),
    )
    @access("ask", "session", owner_only=True)
    def delete(path: SessionPath, query: WorkspaceQuery) -> dict[str, Any]:
        workspace, session = query.workspace, path.session_id
        host.sandboxes.forget(workspace, session)
        not_found = None
        try:
            host.sessions.delete(workspace, session)
        except SessionNotFoundError as error:
            # A session may have files and documents before its first question.
            not_found = error
        had_documents = host.documents.delete_session(workspace, session)
        had_files = host.session_files.delete_all(workspace, session)
        was_shared = host.permissions.store.remove_session_members(workspace, session)
        if not_found is not None and not (had_documents or had_files or was_shared):
            raise not_found
        host.audit.record(caller().actor, "session.deleted", f"{workspace}/{session}")
        return {"session_id": path.session_id, "workspace": query.workspace}

    def notepad(workspace: str, session: str) -> dict[str, Any]:
        store.get(workspace, session)
        return {
            "session_id": session,
            "workspace": workspace,
            "entries": entries_of(store.exchanges(workspace, session)),
        }

    @routes.get(
        "/sessions/<session_id>/notepad",
        summary="What a session remembers of its turns",
        responses=answers(NotepadShown, 404),
    )
    @access("read", "session")
    def read_notepad(path: SessionPath, query: WorkspaceQuery) -> dict[str, Any]:
        return notepad(query.workspace, path.session_id)

    @routes.put(
        "/sessions/<session_id>/notepad",
        summary="Put another notepad in its place",
        responses=answers(NotepadShown, 404, 422),
    )
    @access("ask", "session")
    def write_notepad(path: SessionPath, query: WorkspaceQuery, body: Notepad) -> dict[str, Any]:
        entries = {entry.turn: entry.model_dump(exclude={"turn", "run_id"}) for entry in body.entries}
        store.replace_entries(query.workspace, path.session_id, entries)
        return notepad(query.workspace, path.session_id)

    return routes


def sessions_listed(host: Host, query: SessionsQuery) -> dict[str, Any]:
    """The last used sessions."""
    found = host.session_store.latest(query.workspace, query.limit, host.permissions.reader(caller()))
    return {"sessions": [_shown(one) for one in found]}


def _shown(session: SessionShown) -> dict[str, Any]:
    return {"session_id": session.id, **{name: value for name, value in asdict(session).items() if name != "id"}}


def _with_messages(session: SessionShown, exchanges: list[Exchange], askers: Mapping[str, str]) -> dict[str, Any]:
    def name(run: str, role: str) -> dict[str, str]:
        return {"username": askers[run]} if role == "user" and run in askers else {}

    said = [
        {"turn": one.number, "role": role, "content": content, "run_id": one.run, "time": one.time}
        | name(one.run, role)
        for one in exchanges
        for role, content in ((one.asker, one.question), ("assistant", one.answer))
    ]
    return {**_shown(session), "messages": said}
