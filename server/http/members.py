"""`/workspaces/<workspace>/members` and `/sessions/<id>/members`: with whom people share."""

from http import HTTPStatus
from typing import Any

from flask_openapi3 import APIBlueprint

from server.errors import ConflictError, ForbiddenError, InvalidRequestError
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.people_schemas import (
    MemberPath,
    MembersListed,
    SessionMemberPath,
    SessionMembersListed,
    WorkspaceMember,
)
from server.http.schemas import ErrorAnswer, NoQuery, SessionPath, WorkspaceName, WorkspaceQuery
from server.people.principal import MAIN


def blueprint(host: Host) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("members", __name__)
    store = host.permissions.store

    def answers(of: Any, *errors: int) -> dict[int | str | HTTPStatus, Any]:
        return {200: of, **dict.fromkeys(errors, ErrorAnswer)}

    def changed(target: str, act: str, **details: object) -> None:
        host.credentials.look(at_once=True)
        host.audit.record(caller().actor, act, target, **details)

    # Workspaces

    def of_workspace(workspace: str) -> dict[str, Any]:
        members = [{"username": name, "role": role} for name, role in store.workspace_members(workspace).items()]
        return {"workspace": workspace, "members": members}

    @routes.get(
        "/workspaces/<workspace>/members",
        summary="Who shares a workspace; main is everybody's",
        responses=answers(MembersListed, 404),
    )
    @access("read", "workspace")
    def list_members(path: WorkspaceName, query: NoQuery) -> dict[str, Any]:
        host.workspaces.get(path.workspace)
        return of_workspace(path.workspace)

    @routes.put(
        "/workspaces/<workspace>/members/<username>",
        summary="Share a workspace: reader, editor or owner",
        responses=answers(MembersListed, 403, 404, 409, 422),
    )
    @access("ask", "workspace", owner_only=True)
    def put_member(path: MemberPath, body: WorkspaceMember) -> dict[str, Any]:
        host.workspaces.get(path.workspace)
        if path.workspace == MAIN:
            raise ForbiddenError("Everybody reads main, and researchers change it. A role decides: PUT /people.")
        host.accounts.require(path.username)
        if body.role != "owner":
            keep_an_owner(path)
        if store.set_workspace_member(path.workspace, path.username, body.role):
            changed(path.workspace, "member.changed", username=path.username, role=body.role)
        return of_workspace(path.workspace)

    @routes.delete(
        "/workspaces/<workspace>/members/<username>",
        summary="Share a workspace with somebody no longer",
        responses=answers(MembersListed, 403, 404, 409),
    )
    @access("ask", "workspace", owner_only=True)
    def delete_member(path: MemberPath) -> dict[str, Any]:
        keep_an_owner(path)
        if store.set_workspace_member(path.workspace, path.username, None):
            changed(path.workspace, "member.changed", username=path.username, role=None)
        return of_workspace(path.workspace)

    def keep_an_owner(path: MemberPath) -> None:
        owners = [name for name, role in store.workspace_members(path.workspace).items() if role == "owner"]
        if owners == [path.username]:
            raise ConflictError(f"{path.username!r} is the only owner of {path.workspace!r}. Name another one first.")

    # Sessions

    def of_session(workspace: str, session: str) -> dict[str, Any]:
        return {
            "session_id": session,
            "workspace": workspace,
            "owner": store.session_owner(workspace, session),
            "members": store.session_members(workspace, session),
        }

    @routes.get(
        "/sessions/<session_id>/members",
        summary="With whom a session is shared",
        responses=answers(SessionMembersListed, 404),
    )
    @access("read", "session")
    def list_session_members(path: SessionPath, query: WorkspaceQuery) -> dict[str, Any]:
        return of_session(query.workspace, path.session_id)

    @routes.put(
        "/sessions/<session_id>/members/<username>",
        summary="Share a session: a colleague reads it, and asks in it under their own name",
        responses=answers(SessionMembersListed, 403, 404, 422),
    )
    @access("ask", "session", owner_only=True)
    def put_session_member(path: SessionMemberPath, query: WorkspaceQuery) -> dict[str, Any]:
        colleague = host.accounts.require(path.username)
        if host.permissions.role_in(colleague, query.workspace) is None:
            raise InvalidRequestError(
                f"{path.username!r} can't read the workspace {query.workspace!r}. Its owner shares it with PUT "
                f"/workspaces/{query.workspace}/members/{path.username}."
            )
        store.add_session_member(query.workspace, path.session_id, path.username)
        changed(path.session_id, "session.shared", workspace=query.workspace, username=path.username)
        return of_session(query.workspace, path.session_id)

    @routes.delete(
        "/sessions/<session_id>/members/<username>",
        summary="Share a session with somebody no longer",
        responses=answers(SessionMembersListed, 403, 404),
    )
    @access("ask", "session", owner_only=True)
    def delete_session_member(path: SessionMemberPath, query: WorkspaceQuery) -> dict[str, Any]:
        if store.remove_session_members(query.workspace, path.session_id, path.username):
            changed(path.session_id, "member.changed", workspace=query.workspace, username=path.username, role=None)
        return of_session(query.workspace, path.session_id)

    return routes
