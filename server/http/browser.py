"""What browsers are told and asked: security headers on every response, and where a request with a cookie comes from.

A page of somebody else can send a request here, and the browser adds the cookie (CSRF). It can't add a header
`Authorization`, so requests with one are not checked. https://fetch.spec.whatwg.org/#http-origin-header
"""

import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from flask import Flask, Response, g, request

from server.errors import CrossSiteError, UnsupportedMediaTypeError
from server.http.cookie import COOKIE
from server.http.credential import has_bearer

LOGIN_PATHS = ("/auth/", "/api/auth/")
"""Below these, a request that has no cookie yet is checked as well: a page of somebody else's must not log a browser
in."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
FORM_TYPE = "multipart/form-data"
OWN_SITES = ("same-origin", "none")
"""`none`: a person has typed the address. `same-site` is not enough: it is any port of the machine."""
HSTS_SECONDS = 365 * 86_400

_ANY = "default-src 'none'; frame-ancestors 'none'"
_PAGE = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; "
    # Of elements, and not of the page: browsers set them themselves while somebody types in the editor.
    "style-src-attr 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; worker-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types hearth"
)
ALWAYS: Mapping[str, str] = {
    "Content-Security-Policy": _ANY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), "
    "magnetometer=(), microphone=(), midi=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every response that has no other value for them."""


def register_headers(app: Flask) -> None:
    """Add the headers to every response. Registered before all else, so that the headers of CORS are there when these
    are added. `g.csp_nonce` is the nonce of a page's scripts and styles."""

    def before() -> None:
        g.csp_nonce = secrets.token_urlsafe(16)

    app.before_request(before)
    app.after_request(_add_headers)


def register_checks(app: Flask) -> None:
    """Check where every request comes from."""
    app.before_request(check_origin)


def check_origin() -> None:
    """Raises `CrossSiteError` if a page of somebody else may have sent the request, and `UnsupportedMediaTypeError`
    for a body that such a page could send without asking."""
    has_cookie = COOKIE in request.cookies
    if request.method in SAFE_METHODS or has_bearer(request):
        return
    if not has_cookie and not request.path.startswith(LOGIN_PATHS):
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        own = site in OWN_SITES
    elif origin is not None:
        own = _netloc(origin) is not None and _netloc(origin) == _netloc(f"//{request.host}")
    elif has_cookie:
        own = False
    else:
        # A script: browsers of today send one of them.
        return
    if not own:
        raise CrossSiteError(
            f"A page of {origin or 'another site'} has sent this request with the cookie of {request.host}. Only the "
            "server's own pages may do so. Scripts send `Authorization: Bearer <token>`. Behind a proxy, it has to "
            "pass the header Host as it is."
        )
    has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
    # With other methods a browser asks first whether the page may.
    if request.method == "POST" and has_body and not (request.is_json or request.mimetype == FORM_TYPE):
        raise UnsupportedMediaTypeError(
            "A request with a cookie has to say what its body is: Content-Type: application/json, or "
            "multipart/form-data for files."
        )


def _netloc(origin: str) -> tuple[str | None, int | None] | None:
    """Host and port. The scheme does not count: behind a proxy with TLS it is another one here, unless the proxy is
    among HEARTH_TRUSTED_PROXIES."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    return (parts.hostname, None if port in (80, 443) else port) if parts.hostname else None


def _add_headers(response: Response) -> Response:
    headers = response.headers
    if response.mimetype == "text/html":
        headers.setdefault("Content-Security-Policy", _PAGE.format(nonce=g.csp_nonce))
    for name, value in ALWAYS.items():
        headers.setdefault(name, value)
    if "Access-Control-Allow-Origin" not in headers:
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    if request.is_secure and _has_usual_port():
        headers["Strict-Transport-Security"] = f"max-age={HSTS_SECONDS}"
    return response


def _has_usual_port() -> bool:
    """Whether the server is at port 443. Browsers would want TLS at all other ports of the name as well, where a
    notebook server may be."""
    return ":" not in request.headers.get("Host", ":").rpartition("]")[2]
