"""`/generations`: the code that was ever live, and what differs between two moments of it."""

import difflib
from typing import Any

from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.schemas import (
    DiffQuery,
    ErrorAnswer,
    GenerationDeleted,
    GenerationHash,
    GenerationsDiffer,
    GenerationsListed,
    HistoryQuery,
    TokenQuery,
)


def blueprint(host: Host) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("generations", __name__)

    @routes.get(
        "/generations",
        summary="What was live when in a workspace, the latest first",
        responses={200: GenerationsListed, 404: ErrorAnswer},
    )
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
    def diff(path: GenerationHash, query: DiffQuery) -> dict[str, Any]:
        before, after = host.generations.find(path.generation), host.generations.find(query.to)
        old, new = host.generations.files(before), host.generations.files(after)
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        return {
            "from": before,
            "to": after,
            "files": [{"path": name, "diff": unified_diff(name, old.get(name), new.get(name))} for name in changed],
        }

    @routes.delete(
        "/generations/<generation>",
        summary="Forget a generation that is live nowhere and that no run names",
        responses={200: GenerationDeleted, 404: ErrorAnswer, 409: ErrorAnswer},
    )
    def delete(path: GenerationHash, query: TokenQuery) -> dict[str, Any]:
        return {"generation": host.delete_generation(path.generation)}

    return routes


def unified_diff(path: str, old: bytes | None, new: bytes | None) -> str:
    """The difference between two texts of a file, as `diff -u` and `patch` have it; None: there is no such file."""

    def lines(data: bytes | None) -> list[str]:
        return (data or b"").decode("utf-8", "replace").splitlines(keepends=True)

    text = ""
    for line in difflib.unified_diff(
        lines(old),
        lines(new),
        "/dev/null" if old is None else f"a/{path}",
        "/dev/null" if new is None else f"b/{path}",
    ):
        text += line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
    return text
