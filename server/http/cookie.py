"""The cookie of a browser's login."""

from flask import request
from werkzeug.wrappers import Response

from server.people.accounts import LOGIN_SECONDS

COOKIE = "hearth_session"


def set_cookie(response: Response, secret: str) -> None:
    """Let the browser send `secret` from now on. No page can read it, and no other site's form sends it."""
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(LOGIN_SECONDS),
        path="/",
        httponly=True,
        samesite="Lax",
        # Over plain HTTP a browser would not send it back, and ask for the password for ever.
        secure=request.is_secure,
    )


def clear_cookie(response: Response) -> None:
    """Let the browser forget the login."""
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="Lax", secure=request.is_secure)
