"""`/sessions/<id>/files`: what people upload, and what the code of their sessions writes."""

import secrets
from contextlib import ExitStack
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from flask import Response, request
from flask_openapi3 import APIBlueprint
from pydantic import ValidationError
from werkzeug.routing import PathConverter

from server.errors import InvalidRequestError
from server.files.placement import SavedFile
from server.files.session_files import ListedFile
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.body import refuse
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.file_download import as_time, download
from server.http.file_schemas import (
    ANY_FILE,
    FileAnalysed,
    FilesQuery,
    FilesSaved,
    SessionFileDeleted,
    SessionFilePath,
    SessionFilesListed,
    UploadFields,
    form_of,
)
from server.http.multipart import read_form
from server.http.schemas import ErrorAnswer, SessionPath, WorkspaceQuery


class FilePath(PathConverter):
    """In a route: the rest of the path. Code may give a file any name, with a line break in it too."""

    regex = r"[^/][\s\S]*"


def blueprint(host: Host, transfers: ConcurrencyLimit) -> APIBlueprint:
    """The routes, over `host`. `transfers`: the limit for requests that send or get a file."""
    routes = APIBlueprint("files", __name__)
    routes.record(lambda state: state.app.url_map.converters.update(file_path=FilePath))
    files = host.session_files

    def answers(of: Any, *errors: int, status: int = 200) -> dict[int | str | HTTPStatus, Any]:
        return {status: of, **dict.fromkeys(errors, ErrorAnswer)}

    @routes.post(
        "/sessions/<session_id>/files",
        summary="Upload files into a session, new or not; all of them or none",
        responses=answers(FilesSaved, 400, 404, 413, 415, 422, 429, 503, 507, status=201),
        openapi_extensions={"requestBody": {"required": True, "content": form_of({}, ["files"])}},
    )
    @access("ask", "session")
    def upload(path: SessionPath, query: WorkspaceQuery) -> tuple[dict[str, Any], int]:
        return save(host, transfers, query.workspace, path.session_id), 201

    @routes.get(
        "/sessions/<session_id>/files",
        summary="List a session's files, those in its subfolders too",
        responses=answers(SessionFilesListed, 404),
    )
    @access("read", "session")
    def list_files(path: SessionPath, query: FilesQuery) -> dict[str, Any]:
        host.workspaces.get(query.workspace)
        found = files.listing(query.workspace, path.session_id, query.limit, query.after)
        return {
            "session_id": path.session_id,
            "workspace": query.workspace,
            "files": [_shown(file) for file in found.files],
            "has_more": found.has_more,
            "is_complete": found.is_complete,
            "left_out": found.left_out,
        }

    @routes.get(
        "/sessions/<session_id>/files/<file_path:name>",
        summary="A file's content, or a range of it",
        responses={
            **answers(None, 403, 404, 409, 416, 429),
            200: ANY_FILE,
            206: ANY_FILE,
        },
    )
    @access("read", "session")
    def get_file(path: SessionFilePath, query: WorkspaceQuery) -> Response:
        host.workspaces.get(query.workspace)
        with ExitStack() as held:
            held.enter_context(transfers.acquire())
            response = download(request, files.open(query.workspace, path.session_id, path.name), path.name)
            response.call_on_close(held.pop_all().close)
        return response

    @routes.get(
        "/sessions/<session_id>/files/<file_path:name>/analysis",
        summary="What is in a file, and how code reads it",
        responses=answers(FileAnalysed, 403, 404, 409, 422, 429, 503),
    )
    @access("read", "session")
    def analyse(path: SessionFilePath, query: WorkspaceQuery) -> dict[str, Any]:
        host.workspaces.get(query.workspace)
        with transfers.acquire():
            found = host.analyses.get(query.workspace, path.session_id, path.name)
        return {"session_id": path.session_id, "name": path.name, **found.analysis.model_dump()}

    @routes.delete(
        "/sessions/<session_id>/files/<file_path:name>",
        summary="Delete a file",
        responses=answers(SessionFileDeleted, 403, 404, 409),
    )
    @access("ask", "session")
    def delete_file(path: SessionFilePath, query: WorkspaceQuery) -> dict[str, Any]:
        host.workspaces.get(query.workspace)
        files.delete(query.workspace, path.session_id, path.name)
        return {"session_id": path.session_id, "workspace": query.workspace, "name": path.name}

    return routes


def save(host: Host, transfers: ConcurrencyLimit, workspace: str, session: str | None) -> dict[str, Any]:
    """Save the files of the request in a session; with None, in the one that its form names, or in a new one. Raises
    what `read_form` and `SessionFiles.add` raise."""
    host.workspaces.get(workspace)
    with transfers.acquire(), host.session_files.incoming() as upload:
        form = read_form(request, host.settings, upload, () if session else UploadFields.model_fields)
        if not upload.files:
            raise InvalidRequestError("The form has no file. Send each one as a part called 'files'.")
        if session is None:
            session = _session_of(form.fields)
            host.permissions.check_session(caller(), workspace, session, writes=True, makes=True)
        host.quotas.check_disk(caller().owner_in(workspace), sum(file.bytes for file in upload.files))
        saved = host.session_files.add(workspace, session, upload)
    return {"session_id": session, "workspace": workspace, "files": [_saved(file) for file in saved]}


def _session_of(fields: dict[str, str]) -> str:
    try:
        named = UploadFields.model_validate(fields).session_id
    except ValidationError as error:
        refuse(error)
    return named or secrets.token_hex(8)


def _saved(file: SavedFile) -> dict[str, Any]:
    # A name with lone surrogates has no place in JSON.
    return {**asdict(file), "uploaded_as": file.uploaded_as.encode("utf-8", "replace").decode()}


def _shown(file: ListedFile) -> dict[str, Any]:
    modified = as_time(file.modified).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"name": file.name, "bytes": file.bytes, "type": file.type, "modified_at": modified}
