"""Authentication: a bearer token, or local requests only."""

import hmac
import re

from flask import Flask, Response, request

from constants import Settings, is_loopback
from server.errors import ForbiddenError, UnauthorizedError
from server.http import cors


def register(app: Flask, settings: Settings) -> None:
    """Check every request before any view, except `GET /health`."""

    def before() -> Response | None:
        if request.path == "/health" and request.method in ("GET", "HEAD"):
            return None
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            # A CORS preflight request, which has no token. The answer is the same for every path.
            return Response(status=204)
        check(settings)
        return None

    app.before_request(before)


def check(settings: Settings) -> None:
    """Raises `UnauthorizedError` or `ForbiddenError` if the current request is not allowed."""
    if settings.TOKEN:
        _check_token(settings.TOKEN)
    else:
        _check_local([cors.pattern(origin) for origin in settings.CORS_ORIGINS])


def is_authorized(settings: Settings) -> bool:
    """Whether `check` accepts the current request."""
    try:
        check(settings)
    except (UnauthorizedError, ForbiddenError):
        return False
    return True


def _check_token(token: str) -> None:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    given = [credentials.strip()] if scheme.lower() in ("bearer", "token") else []
    given += request.args.getlist("token")
    if not any(hmac.compare_digest(candidate.encode(), token.encode()) for candidate in given):
        found = "The token is wrong." if given else "There is no token."
        raise UnauthorizedError(
            f"{found} Send `Authorization: Bearer <token>` or `?token=<token>`; "
            "the server prints its token when it starts."
        )


def _check_local(pages: list[re.Pattern[str]]) -> None:
    # Without a token, a web page in a browser of this machine could call the server unnoticed: directly, or under a
    # host name of its own that resolves to this machine (DNS rebinding).
    name = re.sub(r":\d*$", "", request.host).strip("[]")
    origin = request.headers.get("Origin")
    if not is_loopback(name):
        raise ForbiddenError("Without a token the server answers only at localhost, 127.0.0.1 or [::1].")
    if origin is not None and not any(page.match(origin) for page in pages):
        raise ForbiddenError(f"Pages of {origin} may not call the server. HEARTH_CORS_ORIGINS says which may.")
