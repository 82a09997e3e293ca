"""`GET /`, `GET /openapi.json` and `GET /hearth.py`: the server's name, its API and its client."""

from pathlib import Path
from typing import Any, cast

from flask import Response, current_app, redirect, request
from flask_openapi3 import APIBlueprint, OpenAPI
from werkzeug.wrappers import Response as AnyResponse

from server import VERSION
from server.errors import NotFoundError
from server.http.access import access
from server.http.auth import accepts_page
from server.http.description import describe

CLIENT = Path(__file__).parents[2] / "notebooks" / "hearth.py"


def blueprint() -> APIBlueprint:
    """The routes."""
    routes = APIBlueprint("about", __name__, doc_ui=False)
    described: dict[str, Any] = {}

    @routes.get("/")
    @access("read", "nobody")
    def index() -> dict[str, Any] | AnyResponse:
        if accepts_page(request):
            return redirect("/ui/ask", 303)
        return {
            "name": "hearth",
            "version": VERSION,
            "links": {"health": "/health", "openapi": "/openapi.json", "client": "/hearth.py"},
        }

    @routes.get("/openapi.json")
    @access("read", "nobody")
    def openapi() -> dict[str, Any]:
        if not described:
            described.update(describe(cast(OpenAPI, current_app)))
        return described

    @routes.get("/hearth.py")
    @access("read", "nobody")
    def client() -> Response:
        try:
            data = CLIENT.read_bytes()
        except OSError as error:
            raise NotFoundError(f"The client, {CLIENT}, is not where the server is: {error.strerror}.") from error
        return Response(data, content_type="text/x-python; charset=utf-8")

    return routes
