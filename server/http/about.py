"""`GET /` and `GET /openapi.json`: what this server is, and how it is called."""

from typing import Any

from flask import current_app
from flask_openapi3 import APIBlueprint

from server import VERSION


def blueprint() -> APIBlueprint:
    """The routes."""
    routes = APIBlueprint("about", __name__, doc_ui=False)

    @routes.get("/")
    def index() -> dict[str, Any]:
        return {
            "name": "hearth",
            "version": VERSION,
            "links": {"health": "/health", "openapi": "/openapi.json"},
        }

    @routes.get("/openapi.json")
    def openapi() -> dict[str, Any]:
        document: dict[str, Any] = current_app.api_doc  # type: ignore[attr-defined]
        return document

    return routes
