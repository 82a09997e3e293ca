"""`/generations`: the code that was ever live, and what differs between two moments of it."""

from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.generation_schemas import (
    DiffQuery,
    GenerationDeleted,
    GenerationFilePath,
    GenerationFiles,
    GenerationHash,
    GenerationsDiffer,
    GenerationsListed,
)
from server.http.schemas import ErrorAnswer, HistoryQuery, NoQuery
from server.http.workspaces import file_response
from server.reload import unified_diffs


def blueprint(host: Host) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("generations", __name__)

    @routes.get(
        "/generations",
        summary="What was live when in a workspace, the latest first",
        responses={200: GenerationsListed, 404: ErrorAnswer},
    )
    @access("read", "workspace")
    def list_generations(query: HistoryQuery) -> dict[str, Any]:
        space = host.workspaces.get(query.workspace)
        live = space.live
        history = host.generations.history(space.name, query.limit)
        return {
            "workspace": space.name,
            "live": None if live is None else live.hash,
            "generations": [
                {"generation": one.generation, "time": one.time, "runs": one.runs, "changed": one.changed}
                for one in history
            ],
        }

    @routes.get(
        "/generations/<generation>/diff",
        summary="What differs between a generation and another one, as unified diffs",
        responses={200: GenerationsDiffer, 404: ErrorAnswer},
    )
    @access("read", "generation")
    def diff(path: GenerationHash, query: DiffQuery) -> dict[str, Any]:
        before, after = host.generations.find(path.generation), host.generations.find(query.to)
        diffs = unified_diffs(host.generations.files(before), host.generations.files(after))
        return {
            "from": before,
            "to": after,
            "files": [{"path": path, "diff": text} for path, text in diffs.items()],
        }

    @routes.get(
        "/generations/<generation>/files",
        summary="List a generation's files: the workspace's own, and those of main below them",
        responses={200: GenerationFiles, 404: ErrorAnswer},
    )
    @access("read", "generation")
    def list_files(path: GenerationHash, query: NoQuery) -> dict[str, Any]:
        found = host.generations.find(path.generation)
        sizes = host.generations.sizes(found)
        return {"generation": found, "files": [{"path": name, "bytes": size} for name, size in sizes.items()]}

    @routes.get(
        "/generations/<generation>/files/<path:path>",
        summary="The bytes of a file of a generation",
        responses={200: {"content": {"text/x-python": {"schema": {"type": "string"}}}}, 404: ErrorAnswer},
    )
    @access("read", "generation")
    def get_file(path: GenerationFilePath, query: NoQuery) -> Response:
        return file_response(host.generations.file(path.generation, path.path))

    @routes.delete(
        "/generations/<generation>",
        summary="Forget a generation that is live nowhere and that no run names",
        responses={200: GenerationDeleted, 404: ErrorAnswer, 409: ErrorAnswer},
    )
    @access("code", "generation")
    def delete(path: GenerationHash, query: NoQuery) -> dict[str, Any]:
        gone = host.code_loader.delete_generation(path.generation)
        host.audit.record(caller().actor, "generation.deleted", gone)
        return {"generation": gone}

    return routes
