"""Who may call the server: a bearer token, or local requests only; and which web pages (CORS)."""

import hmac
import re
from typing import Any

from flask import Flask, Response, redirect, request
from werkzeug.wrappers import Request

from constants import Settings, is_loopback
from server.errors import ForbiddenError, UnauthorizedError


def register(app: Flask, settings: Settings) -> None:
    """Check every request before any view, except `GET /health`."""

    def before() -> Any:
        if request.path == "/health" and request.method in ("GET", "HEAD"):
            return None
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            # A CORS preflight request, which has no token. The answer is the same for every path.
            return Response(status=204)
        if request.path.startswith("/ui/static/"):
            return None
        check(settings, request)
        if (
            request.method == "GET"
            and "token" in request.args
            and (request.path == "/" or request.path.startswith("/ui/"))
        ):
            answer = redirect("/ui/ask" if request.path == "/" else request.path, 303)
            answer.set_cookie("hearth_session", settings.TOKEN, httponly=True, samesite="Lax")
            return answer
        return None

    app.before_request(before)


def check(settings: Settings, asked: Request) -> None:
    """Raises `UnauthorizedError` or `ForbiddenError` if the request is not allowed. Looks at its head only."""
    if settings.TOKEN:
        _check_token(settings.TOKEN, asked)
    else:
        _check_local([origin_pattern(origin) for origin in settings.CORS_ORIGINS], asked)


def is_authorized(settings: Settings, asked: Request) -> bool:
    """Whether `check` accepts the request."""
    try:
        check(settings, asked)
    except (UnauthorizedError, ForbiddenError):
        return False
    return True


def origin_pattern(origin: str) -> re.Pattern[str]:
    """The pattern for an entry of `CORS_ORIGINS`: an origin, an origin with any port (`:*`), or all (`*`)."""
    if origin == "*":
        return re.compile(r".*\Z")
    if origin.endswith(":*"):
        return re.compile(re.escape(origin.removesuffix(":*")) + r"(:\d+)?\Z", re.IGNORECASE)
    return re.compile(re.escape(origin) + r"\Z", re.IGNORECASE)


def _check_token(token: str, asked: Request) -> None:
    scheme, _, credentials = asked.headers.get("Authorization", "").partition(" ")
    given = [credentials.strip()] if scheme.lower() in ("bearer", "token") else []
    given += asked.args.getlist("token")
    given += [asked.cookies["hearth_session"]] if "hearth_session" in asked.cookies else []
    if not any(hmac.compare_digest(candidate.encode(), token.encode()) for candidate in given):
        found = "The token is wrong." if given else "There is no token."
        raise UnauthorizedError(
            f"{found} Send `Authorization: Bearer <token>` or `?token=<token>`; "
            "the server prints its token when it starts."
        )


def _check_local(pages: list[re.Pattern[str]], asked: Request) -> None:
    # Without a token, a web page in a browser of this machine could call the server unnoticed: directly, or under a
    # host name of its own that resolves to this machine (DNS rebinding).
    name = re.sub(r":\d*$", "", asked.host).strip("[]")
    origin = asked.headers.get("Origin")
    if not is_loopback(name):
        raise ForbiddenError("Without a token the server answers only at localhost, 127.0.0.1 or [::1].")
    if origin is not None and not any(page.match(origin) for page in pages):
        raise ForbiddenError(f"Pages of {origin} may not call the server. HEARTH_CORS_ORIGINS says which may.")
