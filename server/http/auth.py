"""Who calls: the credential of a request, and what it may do; and which web pages may call (CORS)."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from flask import Flask, Response, g, redirect, request
from flask import Request as FlaskRequest
from werkzeug.wrappers import Request
from werkzeug.wrappers import Response as AnyResponse

from constants import is_loopback
from server.errors import ForbiddenError, HearthError, UnauthorizedError
from server.http import ownership
from server.http.access import Access
from server.http.cookie import COOKIE, set_cookie
from server.http.credential import bearer_of
from server.people.principal import Principal, Scope

if TYPE_CHECKING:
    from server.host import Host

UNAUTHORIZED = "Send `Authorization: Bearer <token>`; the server prints its token when it starts."
LOG_IN = "Send `Authorization: Bearer <token>` with an access token of POST /auth/login, or with an API key."
LOGIN_PAGE = "/ui/login"
OPEN_BODIES = re.compile(r"/+(api/)?auth/(login|login/token|register|refresh)")
"""The paths whose bodies come without a credential."""


def register(app: Flask, host: "Host") -> None:
    """Check every request before any view."""

    def before() -> AnyResponse | None:
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            # A CORS preflight request, which has no credential. The answer is the same for every path.
            return Response(status=204)
        if "token" in request.args and is_page(request) and host.credentials.of_this_machine() is None:
            return _log_in_by_link(host)
        access = declared(app, request)
        if access is not None and access.scope == "public":
            g.principal = _find_if_allowed(host, request)
            return None
        try:
            principal = identify(host, request)
        except UnauthorizedError:
            if is_page(request) and accepts_page(request):
                return redirect(f"{LOGIN_PAGE}?{urlencode({'next': request.full_path.removesuffix('?')})}", 303)
            raise
        g.principal = principal
        if access is not None:
            _check(host, principal, access, request)
            g.still_allowed = _still_allowed(host, principal, access)
        return None

    app.before_request(before)


def require_declarations(app: Flask) -> None:
    """Raises `RuntimeError` if a route declares no access: nobody has thought of who may call it."""
    missing = sorted(str(rule) for rule in app.url_map.iter_rules() if declared_by(app, rule.endpoint) is None)
    if missing:
        raise RuntimeError(f"These routes have no @access: {', '.join(missing)}. See server/http/access.py.")


def declared(app: Flask, asked: Request) -> Access | None:
    """The declaration of the route of a request; None: there is no such route."""
    rule = getattr(asked, "url_rule", None)
    return None if rule is None else declared_by(app, rule.endpoint)


def declared_by(app: Flask, endpoint: str) -> Access | None:
    """The declaration of the view of an endpoint; None: it has none."""
    return getattr(app.view_functions.get(endpoint), "access", None)


def caller() -> Principal:
    """Who the current request comes from. Not for public routes."""
    principal: Principal = g.principal
    return principal


def known_caller() -> Principal | None:
    """The same on a public route; None: nobody, or with a wrong credential."""
    found: Principal | None = g.principal
    return found


def still_allowed() -> Callable[[], bool]:
    """A function that returns whether the caller of the current request may still do what it asks for. It works
    outside of the request too."""
    found: Callable[[], bool] = g.get("still_allowed", lambda: True)
    return found


def identify(host: "Host", asked: Request) -> Principal:
    """Who a request comes from. Looks at its head only. Raises `UnauthorizedError`, `ForbiddenError`."""
    found = find(host, asked)
    if found is None:
        given = bearer_of(asked) is not None or COOKIE in asked.cookies
        what_to_do = LOG_IN if host.credentials.are_on else UNAUTHORIZED
        raise UnauthorizedError(f"{'The token is wrong.' if given else 'There is no token.'} {what_to_do}")
    return found


def find(host: "Host", asked: Request, quick: bool = False) -> Principal | None:
    """The same; None if there is no credential, or a wrong one. `quick`: without the database, if possible.

    Raises `ForbiddenError`.
    """
    if (nobody := host.credentials.of_this_machine()) is not None:
        _check_local([origin_pattern(origin) for origin in host.settings.CORS_ORIGINS], asked)
        return nobody
    bearer = bearer_of(asked)
    if bearer is not None:
        return host.credentials.of_bearer(bearer, quick)
    return host.credentials.of_cookie(asked.cookies[COOKIE], quick) if COOKIE in asked.cookies else None


def check_scope(principal: Principal, scope: Scope) -> None:
    """Raises `ForbiddenError` if somebody has not the scope that something needs."""
    if scope not in principal.scopes:
        who = "This API key" if principal.credential == "key" else f"A {principal.role}"
        raise ForbiddenError(
            f"{who} may not do this: it needs the scope {scope!r}, and there is "
            f"{', '.join(sorted(principal.scopes)) or 'none'}."
        )


def may_send_body(host: "Host", asked: Request) -> bool:
    """Whether the body of a request is worth reading: it has a credential, or needs none."""
    return OPEN_BODIES.fullmatch(asked.path) is not None or _find_if_allowed(host, asked, quick=True) is not None


def is_page(asked: Request) -> bool:
    """Whether a request is for a page, whose link may have a token."""
    is_path = asked.path in ("/", "/ui", "/docs", "/redoc") or asked.path.startswith("/ui/")
    return asked.method == "GET" and is_path


def accepts_page(asked: Request) -> bool:
    """Whether the client would rather have a page than JSON, as a browser does that opens a link."""
    return asked.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def origin_pattern(origin: str) -> re.Pattern[str]:
    """The pattern for an entry of `CORS_ORIGINS`: an origin, an origin with any port (`:*`), or all (`*`)."""
    if origin == "*":
        return re.compile(r".*\Z")
    if origin.endswith(":*"):
        return re.compile(re.escape(origin.removesuffix(":*")) + r"(:\d+)?\Z", re.IGNORECASE)
    return re.compile(re.escape(origin) + r"\Z", re.IGNORECASE)


def _find_if_allowed(host: "Host", asked: Request, quick: bool = False) -> Principal | None:
    try:
        return find(host, asked, quick)
    except ForbiddenError:
        return None


def _check(host: "Host", principal: Principal, access: Access, asked: FlaskRequest) -> None:
    check_scope(principal, access.scope)
    ownership.check(host.permissions, principal, access, asked)


def _still_allowed(host: "Host", principal: Principal, access: Access) -> Callable[[], bool]:
    """See `still_allowed`. Objects are looked at again when something has changed, and not each time."""
    asked, seen, allowed = _current(request), host.credentials.rights_now(principal), True

    def check() -> bool:
        nonlocal seen, allowed
        now = host.credentials.again(principal)
        if now is None:
            return False
        rights = host.credentials.rights_now(now)
        if rights != seen:
            seen = rights
            try:
                _check(host, now, access, asked)
            except HearthError:  # boundary: the stream ends, and its client reads the error when it asks again
                allowed = False
        return allowed

    return check


def _log_in_by_link(host: "Host") -> AnyResponse:
    """The page again, without the token in its address, and with a cookie."""
    args = [(name, value) for name, value in request.args.items(multi=True) if name != "token"]
    query = urlencode(args)
    response = redirect(quote(request.path) + (f"?{query}" if query else ""), 303)
    # A link that is opened again and again makes one login.
    if COOKIE not in request.cookies or host.credentials.of_cookie(request.cookies[COOKIE]) is None:
        set_cookie(response, host.accounts.log_in_by_link(request.args["token"]).cookie)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _current(proxy: FlaskRequest) -> FlaskRequest:
    """The request itself, which outlives its context."""
    found: FlaskRequest = proxy._get_current_object()  # type: ignore[attr-defined]
    return found


def _check_local(pages: list[re.Pattern[str]], asked: Request) -> None:
    # Without a token, a web page in a browser of this machine could call the server unnoticed: directly, or under a
    # host name of its own that resolves to this machine (DNS rebinding).
    name = re.sub(r":\d*$", "", asked.host).strip("[]")
    origin = asked.headers.get("Origin")
    if not is_loopback(name):
        raise ForbiddenError("Without a token the server answers only at localhost, 127.0.0.1 or [::1].")
    if origin is not None and not any(page.match(origin) for page in pages):
        raise ForbiddenError(f"Pages of {origin} may not call the server. HEARTH_CORS_ORIGINS says which may.")
