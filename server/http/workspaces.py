"""`/workspaces`: the files that people have over the common code, and what their code keeps."""

import hashlib
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from flask import Response, request
from flask_openapi3 import APIBlueprint
from werkzeug.routing import PathConverter

from server.errors import NotKeptError, WorkspaceNotFoundError
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.body import read_bytes
from server.http.preconditions import etag_of, precondition
from server.http.schemas import ErrorAnswer, NoQuery, WorkspaceName
from server.http.workspace_schemas import (
    FilePath,
    FilesListed,
    FileWritten,
    KeptDropped,
    KeptListed,
    KeptName,
    WorkspacesListed,
)


class AnyName(PathConverter):
    """In a route: the rest of the path, slashes at its beginning included."""

    part_isolating = False
    regex = ".+"


def blueprint(host: Host) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("workspaces", __name__)
    routes.record(lambda state: state.app.url_map.converters.update(any_name=AnyName))
    errors: dict[int | str | HTTPStatus, Any] = dict.fromkeys((403, 404, 412, 413, 422, 503), ErrorAnswer)

    @routes.get("/workspaces", summary="List the workspaces", responses={200: WorkspacesListed})
    @access("read", "caller")
    def list_workspaces(query: NoQuery) -> dict[str, Any]:
        shown = []
        for name in host.permissions.workspaces(caller()):
            try:
                live = host.workspaces.get(name).live
            except WorkspaceNotFoundError:
                continue  # removed since it was listed
            shown.append({"workspace": name, "generation": None if live is None else live.hash})
        return {"workspaces": shown}

    @routes.get(
        "/workspaces/<workspace>/files", summary="List a workspace's files", responses={200: FilesListed, **errors}
    )
    @access("read", "workspace")
    def list_files(path: WorkspaceName, query: NoQuery) -> dict[str, Any]:
        host.workspaces.get(path.workspace)
        sizes = host.workspaces.files(path.workspace).sizes()
        return {
            "workspace": path.workspace,
            "files": [{"path": name, "bytes": size} for name, size in sizes.items()],
        }

    @routes.put(
        "/workspaces/<workspace>/files/<path:path>",
        summary="Make or replace a file, and the workspace if it is new; takes effect at the next reload. With "
        "If-Match only if the file is the one of that ETag, with If-None-Match: * only if there is none",
        responses={200: FileWritten, 201: FileWritten, **errors},
    )
    @access("code", "workspace")
    def put_file(path: FilePath, query: NoQuery) -> tuple[dict[str, Any], int, dict[str, str]]:
        data = read_bytes(request)
        new = host.workspaces.files(path.workspace).write(path.path, data, precondition(request))
        digest = hashlib.sha256(data).hexdigest()
        host.audit.record(
            caller().actor, "file.written", f"{path.workspace}/{path.path}", bytes=len(data), sha256=digest
        )
        written = {"workspace": path.workspace, "path": path.path, "bytes": len(data)}
        return written, 201 if new else 200, {"ETag": etag_of(data)}

    @routes.get(
        "/workspaces/<workspace>/files/<path:path>",
        summary="A file's bytes",
        responses={200: {"content": {"text/x-python": {"schema": {"type": "string"}}}}, **errors},
    )
    @access("read", "workspace")
    def get_file(path: FilePath, query: NoQuery) -> Response:
        host.workspaces.get(path.workspace)
        data = host.workspaces.files(path.workspace).read(path.path)
        return file_response(data)

    @routes.delete(
        "/workspaces/<workspace>/files/<path:path>",
        summary="Remove a file; takes effect at the next reload. With If-Match only if it is the one of that ETag",
        responses={200: FileWritten, **errors},
    )
    @access("code", "workspace")
    def delete_file(path: FilePath, query: NoQuery) -> dict[str, Any]:
        host.workspaces.get(path.workspace)
        host.workspaces.files(path.workspace).delete(path.path, precondition(request))
        host.audit.record(caller().actor, "file.deleted", f"{path.workspace}/{path.path}")
        return {"workspace": path.workspace, "path": path.path, "bytes": 0}

    @routes.get(
        "/workspaces/<workspace>/kept",
        summary="What the workspace's code keeps over reloads",
        responses={200: KeptListed, 404: ErrorAnswer},
    )
    @access("read", "workspace")
    def list_kept(path: WorkspaceName, query: NoQuery) -> dict[str, Any]:
        values = host.workspaces.get(path.workspace).kept.values()
        return {"workspace": path.workspace, "kept": [asdict(one) for one in values]}

    @routes.delete(
        "/workspaces/<workspace>/kept/<any_name:name>",
        summary="Forget a kept value; it is built again on its next use",
        responses={200: KeptDropped, 404: ErrorAnswer},
    )
    @access("code", "workspace")
    def drop_kept(path: KeptName, query: NoQuery) -> dict[str, Any]:
        if not host.workspaces.get(path.workspace).forget(path.name):
            raise NotKeptError(f"The workspace {path.workspace!r} keeps nothing under the name {path.name!r}.")
        host.audit.record(caller().actor, "kept.dropped", f"{path.workspace}/{path.name}")
        return {"workspace": path.workspace, "name": path.name}

    return routes


def file_response(data: bytes) -> Response:
    """A file of people's code. The text's coding is in the file itself, if anywhere."""
    headers = {"X-Content-Type-Options": "nosniff", "ETag": etag_of(data)}
    return Response(data, content_type="text/x-python", headers=headers)
