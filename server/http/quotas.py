"""`/usage` and `/quotas`: who has used how much, and who may use how much."""

from datetime import date
from typing import Annotated, Any

from flask_openapi3 import APIBlueprint
from pydantic import Field, StringConstraints

from server.errors import InvalidRequestError
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.schemas import ErrorAnswer, Name, StrictRequest
from server.quotas.quotas import shown
from server.store.usage import By

Limit = Annotated[int, Field(ge=0, le=2**62)]
QuotaName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$")]


class UsageQuery(StrictRequest):
    """What to sum, and from which day on."""

    by: By = Field("person", description="person, key, model or day")
    since: str | None = Field(None, description="a day of UTC, like 2026-01-31; default: the first one")
    limit: int = Field(100, ge=1, le=1000, strict=False)
    after: Name | None = Field(None, description="the last value of the page before")


class UsageListed(StrictRequest):
    """Each entry has the value of `by` under its name, `tokens_processed`, `tokens_written`, `runs`, `job_seconds`.
    `next`: for `after`; null if there are no more."""

    by: By
    usage: list[dict[str, Any]]
    next: str | None


class QuotasQuery(StrictRequest):
    """How many quotas."""

    limit: int = Field(100, ge=1, le=1000, strict=False)
    after: Name | None = Field(None, description="the last name of the page before")


class QuotaPath(StrictRequest):
    name: QuotaName = Field(description="a role, or the name of a person")


class QuotaLimits(StrictRequest):
    """All limits of a role or a person. null: no limit of its own."""

    tokens_per_day: Limit | None = Field(None, description="tokens that the model processes on a day of UTC")
    runs_at_once: Limit | None = Field(None, description="questions in flight")
    jobs_at_once: Limit | None = Field(None, description="jobs that wait or run")
    disk_bytes: Limit | None = Field(None, description="files of sessions, saved variables, and documents")


class QuotaShown(StrictRequest):
    """The quota of a role or a person."""

    name: str
    limits: QuotaLimits


class QuotasListed(StrictRequest):
    """By name. `next`: for `after`; null if there are no more."""

    quotas: list[QuotaShown]
    next: str | None


def blueprint(host: Host) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("quotas", __name__)
    store = host.quotas.store

    @routes.get(
        "/usage",
        summary="What was used: one's own, or, for admins, everybody's",
        responses={200: UsageListed, 422: ErrorAnswer},
    )
    @access("read", "caller")
    def usage(query: UsageQuery) -> dict[str, Any]:
        person = None if _sees_all() else caller().name
        found = host.quotas.usage.summed(query.by, person, _day(query.since), query.limit + 1, query.after)
        more = len(found) > query.limit
        return {
            "by": query.by,
            "usage": found[: query.limit],
            "next": found[query.limit - 1][query.by] if more else None,
        }

    @routes.get(
        "/quotas",
        summary="The quotas: those that hold for oneself, or, for admins, all",
        responses={200: QuotasListed},
    )
    @access("read", "caller")
    def list_quotas(query: QuotasQuery) -> dict[str, Any]:
        found = (
            store.all(query.limit + 1, query.after) if _sees_all() else store.get(host.quotas.names_of(caller().name))
        )
        named = [{"name": name, "limits": shown(limits)} for name, limits in found.items()]
        return {
            "quotas": named[: query.limit],
            "next": named[query.limit - 1]["name"] if len(named) > query.limit else None,
        }

    @routes.put(
        "/quotas/<name>",
        summary="Replace the quota of a role or a person; without limits, there is none",
        responses={200: QuotaShown, 422: ErrorAnswer},
    )
    @access("admin", "nobody")
    def put_quota(path: QuotaPath, query: StrictRequest, body: QuotaLimits) -> dict[str, Any]:
        limits = body.model_dump(exclude_none=True)
        store.put(path.name, limits)
        host.audit.record(caller().actor, "quota.changed", path.name, **limits)
        return {"name": path.name, "limits": shown(limits)}

    return routes


def _sees_all() -> bool:
    return "admin" in caller().scopes


def _day(text: str | None) -> str | None:
    try:
        return None if text is None else date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise InvalidRequestError(
            f"The request is not valid: since: {error}. It is a day, like 2026-01-31."
        ) from error
