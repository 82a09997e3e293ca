"""`/ui`: the pages, their files, and Markdown as HTML."""

from dataclasses import dataclass
from http import HTTPStatus
from mimetypes import guess_type
from pathlib import Path
from typing import Annotated, Any

from flask import Response, redirect, render_template, request, send_from_directory
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field
from werkzeug.exceptions import NotFound

from server.errors import NotFoundError
from server.host import Host
from server.http.access import access
from server.http.schemas import StrictRequest
from server.web import assets, markdown

FOREVER = 31_536_000
WORKER_POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'"
COMPRESSED = ("text/", "application/javascript", "image/svg+xml")
"""The types of files that are sent compressed."""


@dataclass(frozen=True)
class Page:
    """A page. `name`: of its template, and of its module in `static/pages/`. `at`: its path below `/ui/`."""

    name: str
    title: str
    at: str
    icon: str = ""
    """Of its link in the navigation; empty: it has none."""
    is_open: bool = False
    """Whether it is there for people who have not logged in."""


PAGES = [
    Page("ask", "Ask", "ask", icon="chat"),
    Page("runs", "Runs", "runs", icon="list"),
    Page("run", "Run", "runs/<shown>"),
    Page("code", "Code", "code", icon="code"),
    Page("compare", "Compare", "compare", icon="scales"),
    Page("comparison", "Comparison", "compare/<shown>"),
    Page("sessions", "Sessions", "sessions", icon="folder"),
    Page("documents", "Documents", "documents", icon="book"),
    Page("jobs", "Jobs", "jobs", icon="clock"),
    Page("now", "Now", "now", icon="pulse"),
    Page("people", "People", "people", icon="people"),
    Page("login", "Log in", "login", is_open=True),
    Page("register", "Register", "register", is_open=True),
]
MISSING = Page("missing", "Page not found", "<path:shown>")
"""What is shown in the place of a page that there is not."""


class Texts(StrictRequest):
    """Texts in Markdown."""

    texts: Annotated[list[str], Field(max_length=100)]


class Rendered(BaseModel):
    """The same as HTML; null: too long to be rendered."""

    html: list[str | None]


class AssetPath(BaseModel):
    """A file of the pages."""

    version: str
    path: str


def blueprint(host: Host) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("pages", __name__, template_folder=Path(__file__).parent / "templates")
    routes.add_app_template_global(assets.url, "static_url")

    def show(page: Page, status: HTTPStatus = HTTPStatus.OK) -> None:
        # flask-openapi3 would describe the page as a route of the API.
        @access("public" if page.is_open else "read", "nobody")
        def view(**_: str) -> Response:
            response = Response(
                render_template(f"{page.name}.html", page=page, pages=[one for one in PAGES if one.icon]),
                status=status,
                content_type="text/html; charset=utf-8",
            )
            # It names the files of this version.
            response.headers["Cache-Control"] = "no-cache"
            return response

        routes.add_url_rule(f"/ui/{page.at}", f"page_{page.name}", view)

    for page in PAGES:
        show(page)
    show(MISSING, HTTPStatus.NOT_FOUND)

    @routes.get("/ui/", doc_ui=False)
    @access("read", "nobody")
    def first() -> Any:
        return redirect("/ui/ask", 303)

    @routes.get("/ui/static/<version>/<path:path>", doc_ui=False)
    @access("public", "nobody")
    def asset(path: AssetPath) -> Response:
        packaged = assets.PACKAGED.get(path.path)
        try:
            response = send_from_directory(assets.FOLDER, path.path) if packaged is None else _packaged(packaged)
        except NotFound:
            raise NotFoundError(f"The pages have no file {path.path!r}.") from None
        if request.accept_encodings["gzip"] and (response.mimetype or "").startswith(COMPRESSED):
            response.direct_passthrough = False
            response.set_data(assets.compressed(response.get_data()))
            response.headers["Content-Encoding"] = "gzip"
            response.headers.pop("ETag", None)  # of the file as it is
        response.vary.add("Accept-Encoding")
        # A shared worker has the policy of its own file, and not that of the page.
        response.headers["Content-Security-Policy"] = WORKER_POLICY
        current = path.version == assets.version()
        response.headers["Cache-Control"] = f"public, max-age={FOREVER}, immutable" if current else "no-store"
        return response

    @routes.post("/ui/markdown", summary="Texts in Markdown as HTML that can't act", responses={200: Rendered})
    @access("read", "nobody")
    def render(body: Texts) -> dict[str, Any]:
        return {"html": [markdown.to_html(text) for text in body.texts]}

    return routes


def _packaged(file: assets.Packaged) -> Response:
    """Raises `NotFoundError`."""
    data = file.read()
    if data is None:
        raise NotFoundError(f"The package {file.package} is not installed. `make setup` installs it.")
    return Response(data, content_type=f"{guess_type(file.path)[0]}; charset=utf-8")
