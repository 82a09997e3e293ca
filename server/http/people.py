"""`/auth` and `/people`: accounts, logins and keys.

`/auth` is there under `/api/auth` too, where clients of the older LLM API look for it.
"""

import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint

from server.errors import ConflictError, ForbiddenError
from server.host import Host
from server.http.access import access
from server.http.auth import caller, known_caller
from server.http.cookie import clear_cookie, set_cookie
from server.http.people_schemas import (
    AccountMade,
    Adopted,
    AdoptedWorkspace,
    Invitation,
    KeyMade,
    KeyPath,
    KeysListed,
    LoggedInAnswer,
    LoggedOut,
    LoginPath,
    LoginsListed,
    Me,
    NamedLogin,
    NewAccount,
    NewInvitation,
    NewKey,
    NewPassword,
    NewRole,
    ObjectsListed,
    ObjectsQuery,
    Opened,
    PeopleListed,
    PersonPath,
    PersonShown,
    Reason,
    Refresh,
    Ticket,
    TokenLogin,
    TokensGiven,
)
from server.http.schemas import EmptyRequest, ErrorAnswer
from server.people.accounts import LoggedIn
from server.people.principal import MAIN
from server.store.people import Account, ApiKey

DAY = 86_400.0
Responses = dict[int | str | HTTPStatus, Any]


def auth_blueprint(host: Host, prefix: str) -> APIBlueprint:
    """Becoming somebody, over `host`. `prefix`: of the paths."""
    routes = APIBlueprint(f"auth{prefix.replace('/', '_')}", __name__, url_prefix=prefix or None)
    accounts = host.accounts

    @routes.post(
        "/auth/register",
        summary="Make an account, by an invitation; the first one by the start token",
        responses=_answers(AccountMade, 401, 403, 409, 422, 429, status=201),
        security=[],
    )
    @access("public", "nobody")
    def register(body: NewAccount) -> tuple[dict[str, Any], int]:
        role = accounts.register(body.username, body.password, body.invitation, known_caller())
        return {"username": body.username, "role": role}, HTTPStatus.CREATED

    @routes.post(
        "/auth/login",
        summary="Log in by a password",
        responses=_answers(LoggedInAnswer, 401, 409, 422, 429),
        security=[],
    )
    @access("public", "nobody")
    def log_in(body: NamedLogin) -> dict[str, Any] | Response:
        given = accounts.log_in(body.username, body.password)
        return _with_cookie(given) if body.cookie else _tokens(given)

    @routes.post(
        "/auth/refresh",
        summary="New tokens for a refresh token, which many tabs may send at once",
        responses=_answers(TokensGiven, 401, 422),
        security=[],
    )
    @access("public", "nobody")
    def refresh(body: Refresh) -> dict[str, Any]:
        return _tokens(accounts.refresh(body.refresh_token))

    @routes.post("/auth/logout", summary="End this login", responses=_answers(LoggedOut, 403))
    @access("read", "account")
    def log_out(body: EmptyRequest) -> Response:
        principal = caller()
        if principal.credential == "key":
            raise ForbiddenError("An API key has no login. DELETE /auth/keys/<prefix> revokes it.")
        if principal.id:
            accounts.end_login(principal, principal.id)
        response = jsonify({"logged_out": bool(principal.id)})
        clear_cookie(response)
        return response

    @routes.get("/auth/me", summary="Who this request comes from", responses=_answers(Me))
    @access("read", "account")
    def me() -> dict[str, Any]:
        principal = caller()
        return {
            "username": None if principal.name == MAIN else principal.name,
            "role": principal.role,
            "scopes": sorted(principal.scopes),
            "credential": principal.credential,
            "accounts": host.credentials.are_on,
        }

    return routes


def own_blueprint(host: Host) -> APIBlueprint:
    """One's own credentials, over `host`."""
    routes = APIBlueprint("credentials", __name__)
    accounts = host.accounts

    @routes.post(
        "/auth/login/token",
        summary="Log a browser in by the start token",
        responses=_answers(LoggedInAnswer, 401, 422),
        security=[],
    )
    @access("public", "nobody")
    def log_in_by_token(body: TokenLogin) -> Response:
        return _with_cookie(accounts.log_in_by_token(body.token))

    @routes.post(
        "/auth/tickets", summary="A link's token that logs a browser in once", responses=_answers(Ticket, 403)
    )
    @access("read", "account")
    def make_ticket(body: EmptyRequest) -> dict[str, Any]:
        _refuse_key("make tickets")
        ticket, seconds = accounts.ticket(caller())
        return {"ticket": ticket, "expires_in": seconds}

    @routes.put(
        "/auth/password",
        summary="Another password; all other logins end",
        responses=_answers(None, 403, 409, 422, 429, status=204),
    )
    @access("read", "account")
    def change_password(body: NewPassword) -> Response:
        accounts.set_password(caller(), body.old, body.new)
        return Response(status=HTTPStatus.NO_CONTENT)

    @routes.get("/auth/keys", summary="Your API keys", responses=_answers(KeysListed))
    @access("read", "account")
    def list_keys() -> dict[str, Any]:
        return keys_shown()

    def keys_shown() -> dict[str, Any]:
        return {"keys": [_key(one) for one in accounts.keys(caller())]}

    @routes.post("/auth/keys", summary="A new API key", responses=_answers(KeyMade, 403, 409, 422, status=201))
    @access("read", "account")
    def make_key(body: NewKey) -> tuple[dict[str, Any], int]:
        expires = None if body.expires_in_days is None else time.time() + body.expires_in_days * DAY
        text, key = accounts.make_key(caller(), body.name, body.scopes, expires)
        return {**_key(key), "key": text}, HTTPStatus.CREATED

    @routes.delete("/auth/keys/<prefix>", summary="Revoke an API key", responses=_answers(KeysListed, 403, 404))
    @access("read", "key")
    def revoke_key(path: KeyPath) -> dict[str, Any]:
        _refuse_key("revoke keys")
        accounts.revoke_key(caller(), path.prefix)
        return keys_shown()

    def logins_shown() -> dict[str, Any]:
        principal = caller()
        shown = [
            {
                "login_id": one.id,
                "created_at": _iso(one.created),
                "expires_at": _iso(one.expires),
                "current": one.id == principal.id,
            }
            for one in accounts.logins(principal)
        ]
        return {"logins": shown}

    @routes.get("/auth/logins", summary="Where you are logged in", responses=_answers(LoginsListed))
    @access("read", "account")
    def list_logins() -> dict[str, Any]:
        return logins_shown()

    @routes.delete("/auth/logins/<login_id>", summary="End a login", responses=_answers(LoginsListed, 403, 404))
    @access("read", "account")
    def end_login(path: LoginPath) -> dict[str, Any]:
        _refuse_key("end logins")
        accounts.end_login(caller(), path.login_id)
        return logins_shown()

    return routes


def admin_blueprint(host: Host) -> APIBlueprint:
    """What admins do, over `host`."""
    routes = APIBlueprint("people", __name__)
    accounts, store = host.accounts, host.permissions.store

    @routes.post(
        "/auth/invitations",
        summary="An invitation for one account",
        responses=_answers(Invitation, 403, 409, status=201),
    )
    @access("admin", "nobody")
    def invite(body: NewInvitation) -> tuple[dict[str, Any], int]:
        invitation, expires = accounts.invite(caller(), body.role)
        return {"invitation": invitation, "role": body.role, "expires_at": _iso(expires)}, HTTPStatus.CREATED

    @routes.get("/people", summary="All accounts", responses=_answers(PeopleListed, 403))
    @access("admin", "nobody")
    def list_people() -> dict[str, Any]:
        found = sorted(host.credentials.known.accounts.values(), key=lambda one: one.username)
        return {"people": [_person(one) for one in found]}

    @routes.put(
        "/people/<username>/role",
        summary="Give somebody another role",
        responses=_answers(PersonShown, 403, 404, 422),
    )
    @access("admin", "account")
    def set_role(path: PersonPath, body: NewRole) -> dict[str, Any]:
        accounts.set_role(caller(), path.username, body.role)
        return _person(host.credentials.known.accounts[path.username])

    @routes.delete(
        "/people/<username>",
        summary="Delete an account; what it owns stays, and nobody else gets its name",
        responses=_answers(PersonShown, 403, 404),
    )
    @access("admin", "account")
    def delete(path: PersonPath) -> dict[str, Any]:
        accounts.delete(caller(), path.username)
        return _person(host.credentials.known.accounts[path.username])

    @routes.get(
        "/people/<username>/objects",
        summary="What somebody owns, without any content",
        responses=_answers(ObjectsListed, 403, 422),
    )
    @access("admin", "account")
    def list_objects(path: PersonPath, query: ObjectsQuery) -> dict[str, Any]:
        found = store.objects_of(path.username, query.limit)
        return {
            "username": path.username,
            "objects": [
                {"kind": one["kind"], "id": one["id"], "workspace": one["workspace"], "used_at": _iso(one["time"])}
                for one in found
            ],
        }

    @routes.post(
        "/people/<username>/open",
        summary="Read what somebody owns, for an hour; the audit log says so",
        responses=_answers(Opened, 403, 404, 422),
    )
    @access("admin", "account")
    def open_person(path: PersonPath, body: Reason) -> dict[str, Any]:
        return {
            "username": path.username,
            "until": _iso(accounts.open_person(caller(), path.username, body.reason)),
        }

    @routes.post(
        "/people/<username>/adopt",
        summary="Give somebody what a workspace owned before there were accounts",
        responses=_answers(Adopted, 403, 404, 409, 422),
    )
    @access("admin", "account")
    def adopt(path: PersonPath, body: AdoptedWorkspace) -> dict[str, Any]:
        accounts.require(path.username)
        if body.old_workspace != path.username and body.old_workspace in host.credentials.known.accounts:
            raise ConflictError(f"{body.old_workspace!r} is an account, which owns what its workspace owned.")
        host.audit.record(caller().actor, "member.changed", path.username, adopted=body.old_workspace)
        count = store.adopt(body.old_workspace, path.username)
        host.credentials.look(at_once=True)
        return {"username": path.username, "objects": count}

    return routes


def _answers(of: Any, *errors: int, status: int = 200) -> Responses:
    return {status: of, **dict.fromkeys(errors, ErrorAnswer)}


def _refuse_key(act: str) -> None:
    """Raises `ForbiddenError`: a key that somebody has found must not outlive its end."""
    if caller().credential == "key":
        raise ForbiddenError(f"An API key can't {act}. Log in with the password.")


def _tokens(given: LoggedIn) -> dict[str, Any]:
    return {
        "access_token": given.access_token,
        "token_type": "bearer",
        "expires_in": given.expires_in,
        "refresh_token": given.refresh_token,
    }


def _with_cookie(given: LoggedIn) -> Response:
    response = jsonify({"username": None if given.username == MAIN else given.username})
    set_cookie(response, given.cookie)
    return response


def _key(key: ApiKey) -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": _iso(key.created),
        "expires_at": _iso(key.expires),
        "used_at": _iso(key.used),
    }


def _person(account: Account) -> dict[str, Any]:
    return {
        "username": account.username,
        "role": account.role,
        "created_at": _iso(account.created),
        "login_at": _iso(account.used),
        "deleted_at": _iso(account.deleted),
    }


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
