"""The objects that a request names, and whether its caller may use them.

The names are in the path, the query and the JSON body. All are checked, here and not in the views, whatever the
route is about: a question may name a session, a workspace and a generation.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from flask import Request
from pydantic import BaseModel, ValidationError

from server.http.access import Access
from server.http.body import refuse
from server.http.multipart import is_form
from server.people.permissions import Permissions
from server.people.principal import MAIN, Principal

WORKSPACE = ("workspace", "x_workspace")
SESSION = ("session_id", "x_session_id", "session")
GENERATION = ("generation", "generations", "to")
RUN = ("run_id", "run_ids", "runs")
JOB = ("job_id", "job_ids", "jobs")
COMPARISON = ("comparison_id",)
RESPONSE = ("response_id", "previous_response_id")
"""The names that fields of requests have for these objects."""
LIVE = "live"
"""In the place of a generation: the one that is live in the workspace."""
SAFE = ("GET", "HEAD", "OPTIONS")

Source = tuple[type[BaseModel] | None, Mapping[str, Any]]
"""A model of a part of the request, and what the request has there."""


def check(permissions: Permissions, principal: Principal, access: Access, asked: Request) -> None:
    """Raises the error that an object does not exist, if the caller may not use it; or `ForbiddenError`, if they may
    use it otherwise. Raises what reading the body raises."""
    if principal.everything or asked.method == "OPTIONS":
        return
    path: Mapping[str, Any] = asked.view_args or {}
    sources: list[Source] = [(access.query, asked.args)]
    writes = asked.method not in SAFE
    # Views take JSON whatever the Content-Type says, so only that of a view that reads forms counts.
    if access.body is not None and writes and not (access.takes_form and is_form(asked)):
        sources += parts_of(access.body, asked.get_json())
    owns = access.owner_only and (writes or access.owner == "account")

    workspaces = [path["workspace"]] if "workspace" in path else list(_workspaces(sources))
    if access.owner != "caller":
        workspaces = [one or MAIN for one in workspaces] or [MAIN]
    sessions = [path["session_id"]] if "session_id" in path else []
    sessions += _values(sources, SESSION)
    # A collection of a session is the session's. The body may name another session, whose file is added.
    is_of_session = bool(_values(sources[:1], SESSION))
    is_about_workspace = access.owner == "workspace" or (access.owner == "collection" and not is_of_session)
    for workspace in workspaces:
        if workspace is not None and access.owner not in ("nobody", "account", "key"):
            permissions.check_workspace(
                principal,
                workspace,
                writes=is_about_workspace and writes and (access.scope == "code" or access.owner == "collection"),
                owns=owns and access.owner == "workspace",
                makes=access.owner == "workspace" and access.scope == "code" and asked.method == "PUT",
            )
        if access.owner != "caller":
            for session in sessions:
                permissions.check_session(
                    principal,
                    workspace or MAIN,
                    session,
                    writes=writes,
                    owns=owns,
                    makes=asked.method in ("POST", "PUT"),
                    check_request=lambda: _check_request(access, path, sources),
                )
    for run in [*_in_path(path, RUN), *_values(sources, RUN)]:
        is_run = access.owner == "run"
        permissions.check_run(principal, run, writes=writes and is_run, repeats=asked.method == "POST" and is_run)
    for job in [*_in_path(path, JOB), *_values(sources, JOB)]:
        is_job = access.owner == "job"
        permissions.check_job(principal, job, writes=writes and is_job, repeats=asked.method == "POST" and is_job)
    for comparison in _in_path(path, COMPARISON):
        permissions.check_comparison(principal, comparison, writes=writes)
    for response in [*_in_path(path, RESPONSE), *_values(sources, RESPONSE)]:
        permissions.check_response(principal, response, writes=writes and access.owner == "response")
    for generation in _in_path(path, GENERATION):
        permissions.check_generation(principal, generation, writes=writes)
    for generation in _values(sources, GENERATION):
        if generation != LIVE:
            permissions.check_generation(principal, generation)


def _check_request(access: Access, path: Mapping[str, Any], sources: list[Source]) -> None:
    """Raises `InvalidRequestError` for a request that its view would refuse: it must not make anything."""
    body = next((given for model, given in sources[1:] if model is access.body), None)
    for model, given in ((access.path, path), (access.body, body)):
        if model is not None and given is not None:
            try:
                model.model_validate(given)
            except ValidationError as error:
                refuse(error)


def check_read(permissions: Permissions, principal: Principal, model: type[BaseModel], given: Any) -> None:
    """The same for JSON that a view has read itself, of which it only reads."""
    sources = parts_of(model, given)
    for workspace in _workspaces(sources):
        if workspace is not None:
            permissions.check_workspace(principal, workspace)
    for run in _values(sources, RUN):
        permissions.check_run(principal, run, writes=False)
    for generation in _values(sources, GENERATION):
        if generation != LIVE:
            permissions.check_generation(principal, generation)


def parts_of(model: type[BaseModel], given: Any) -> list[Source]:
    """A body, and the objects in it that have models of their own."""
    if not isinstance(given, Mapping):
        return []  # the view refuses it
    found: list[Source] = [(model, given)]
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += parts_of(kind, given.get(name))
    return found


def _workspaces(sources: list[Source]) -> Iterator[str | None]:
    """The workspace of each part of the request that may name one; None: it may, and does not."""
    for model, given in sources:
        for name in WORKSPACE:
            if model is not None and name in model.model_fields:
                value = given.get(name, model.model_fields[name].default)
                # What is no text is refused by the view.
                yield value if isinstance(value, str) else None


def _values(sources: list[Source], names: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for model, given in sources:
        for name in names:
            if model is not None and name in model.model_fields:
                value = given.get(name)
                found += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    return found


def _in_path(path: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    return [path[name] for name in names if name in path]
