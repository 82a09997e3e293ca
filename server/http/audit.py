"""`GET /audit`: who has changed what. And the names of those who do."""

from typing import Any

from flask import Flask, g
from flask_openapi3 import APIBlueprint
from pydantic import Field

from server.audit.actor import actor
from server.host import Host
from server.http.access import access
from server.http.schemas import ErrorAnswer, Name, StrictRequest
from server.people.principal import NOBODY

LARGEST_NUMBER = 2**63 - 1
"""As databases have it."""


class AuditQuery(StrictRequest):
    """Which events, and how many."""

    limit: int = Field(100, ge=1, le=1000, strict=False)
    before: int | None = Field(
        None, ge=1, le=LARGEST_NUMBER, strict=False, description="the number of an event: those before it"
    )
    actor: Name | None = Field(None, description="of this actor alone")
    act: Name | None = Field(None, description="of this act alone, like code.reloaded")


class AuditEvent(StrictRequest):
    """An event. `hash`: SHA-256 of the hash before and of this event."""

    number: int
    recorded_at: str
    actor: str
    act: str
    target: str
    details: dict[str, Any]
    hash: str


class AuditListed(StrictRequest):
    """The latest event first. `next`: for `before`; null if there are no more."""

    events: list[AuditEvent]
    next: int | None


def blueprint(host: Host) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("audit", __name__)

    @routes.get(
        "/audit", summary="Who has changed what, the latest first", responses={200: AuditListed, 503: ErrorAnswer}
    )
    @access("admin", "nobody")
    def list_events(query: AuditQuery) -> dict[str, Any]:
        found = host.audit.latest(query.limit + 1, query.before, query.actor, query.act)
        more = len(found) > query.limit
        return {"events": found[: query.limit], "next": found[query.limit - 1]["number"] if more else None}

    return routes


def register(app: Flask) -> None:
    """Let the audit log name the caller of each request. Registered after the check of who it is."""

    def before() -> None:
        principal = g.get("principal")
        actor.set(NOBODY if principal is None else principal.actor)

    app.before_request(before)
