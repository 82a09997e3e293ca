"""`/docs` and `/redoc`: the API in a browser, by Swagger UI and by ReDoc. Both read `GET /openapi.json`.

https://swagger.io/docs/open-source-tools/swagger-ui/usage/configuration/, https://redocly.com/docs/redoc/config/
"""

from pathlib import Path

from flask import Response, g, render_template
from flask_openapi3 import APIBlueprint

from server.http.access import access

PATHS = {"docs": "/docs", "redoc": "/redoc"}
"""The paths of the pages, by the names of their templates, and of their scripts in `static/api/`."""
# Both libraries put markup into the page that they have cleaned themselves, so trusted types are not required. Only
# the page's nonce lets a script run, and not where it comes from.
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def blueprint() -> APIBlueprint:
    """The routes."""
    routes = APIBlueprint("api_pages", __name__, template_folder=Path(__file__).parent / "templates")

    def show(name: str, path: str) -> None:
        # flask-openapi3 would describe the page as a route of the API.
        @access("read", "nobody")
        def view() -> Response:
            response = Response(
                render_template("api.html", shown=name, nonce=g.csp_nonce), content_type="text/html; charset=utf-8"
            )
            response.headers["Content-Security-Policy"] = _POLICY.format(nonce=g.csp_nonce)
            # It names the files of this version.
            response.headers["Cache-Control"] = "no-cache"
            return response

        routes.add_url_rule(path, f"page_{name}", view)

    for name, path in PATHS.items():
        show(name, path)
    return routes
