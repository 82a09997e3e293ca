"""Hearth's server: a model that stays, and code that moves.

Rule: `server/model.py`, `server/tools/` and `server/agent/` are reloadable. Tools and agents run in workers, and
import `server.sdk` alone of the rest. The rest never imports them; it reaches them through a generation.
"""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from server.host import Host

VERSION = "0.1.0"
PREFLIGHT_SECONDS = 600
"""For so long a browser need not ask again whether a page may call a route."""


def create_app(host: "Host") -> "Flask":
    """The web application over `host`. Only wires; works inside a running event loop, as in a notebook."""
    # Imported here, so that importing other parts of this package does not import Flask.
    from flask_cors import CORS
    from flask_openapi3 import Info, OpenAPI

    from server.http import (
        about,
        audit,
        auth,
        body,
        browser,
        code,
        comparisons,
        documents,
        error_handler,
        files,
        forks,
        generations,
        health,
        host_names,
        jobs,
        live,
        login_limits,
        members,
        metrics,
        models,
        older_api,
        people,
        questions,
        quotas,
        reload,
        request_log,
        request_span,
        runs,
        sessions,
        tools,
        traces,
        workspaces,
    )
    from server.http.anthropic import errors as anthropic_errors
    from server.http.anthropic import messages
    from server.http.concurrency_limit import ConcurrencyLimit, max_waiting
    from server.http.credential import KEY_HEADER
    from server.http.mcp import errors as mcp_errors
    from server.http.mcp import routes as mcp
    from server.http.openai import agent_chat, chat, completions, embeddings, responses, stored
    from server.http.openai import errors as openai_errors
    from server.http.openai import models as openai_models
    from server.http.schemas import ErrorAnswer
    from server.web import api_pages, pages

    _allow_nested_loops()
    settings = host.settings
    app = OpenAPI(
        "hearth",
        info=Info(title="Hearth", version=VERSION),
        doc_ui=False,
        static_folder=None,
        security_schemes={
            "token": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": KEY_HEADER},
        },
        validation_error_model=ErrorAnswer,
        validation_error_callback=body.refuse,
        openapi_extensions={"security": [{"token": []}]},
    )
    app.request_class = body.JsonRequest
    app.config["MAX_CONTENT_LENGTH"] = settings.MAX_BODY_BYTES
    shapes = {
        "/v1/messages": anthropic_errors.shape,
        "/v1/": openai_errors.shape,
        "/api/chat": openai_errors.shape,
        mcp.PATH: mcp_errors.shape,
    }
    error_handler.register(app, shapes)
    browser.register_headers(app)
    CORS(
        app,
        origins=[auth.origin_pattern(origin) for origin in settings.CORS_ORIGINS],
        expose_headers=["ETag", "Mcp-Session-Id", "Retry-After", "X-Request-Id"],
        max_age=PREFLIGHT_SECONDS,
    )
    request_log.register(app)
    request_span.register(app)
    host_names.register(app, host)
    browser.register_checks(app)
    login_limits.register(app)
    auth.register(app, host)
    audit.register(app)
    body.register(app)

    slow_requests = ConcurrencyLimit(max_waiting(settings), "wait for a model, tools, a reload or the end of a job")
    event_streams = ConcurrencyLimit(max_waiting(settings), "follow events")
    transfers = ConcurrencyLimit(max_waiting(settings), "send or get files")
    chat_routes = chat.blueprint(host)
    agent_chat.accept_forms(chat_routes, host, transfers)
    for routes in (
        about.blueprint(),
        health.blueprint(host),
        metrics.blueprint(host),
        models.blueprint(host, slow_requests),
        tools.blueprint(host, slow_requests),
        questions.blueprint(host),
        reload.blueprint(host, slow_requests),
        workspaces.blueprint(host),
        generations.blueprint(host),
        runs.blueprint(host, event_streams),
        traces.blueprint(host, slow_requests),
        forks.blueprint(host),
        sessions.blueprint(host),
        files.blueprint(host, transfers),
        documents.blueprint(host, transfers, event_streams, slow_requests),
        jobs.blueprint(host, event_streams, slow_requests),
        code.blueprint(host, slow_requests),
        live.blueprint(host, event_streams),
        pages.blueprint(host),
        api_pages.blueprint(),
        comparisons.blueprint(host, transfers, event_streams, slow_requests),
        openai_models.blueprint(host),
        chat_routes,
        completions.blueprint(host),
        responses.blueprint(host),
        stored.blueprint(host),
        embeddings.blueprint(host, slow_requests),
        messages.blueprint(host, slow_requests),
        mcp.blueprint(host, slow_requests),
        people.auth_blueprint(host, ""),
        people.auth_blueprint(host, "/api"),
        people.own_blueprint(host),
        people.admin_blueprint(host),
        members.blueprint(host),
        older_api.blueprint(host, transfers),
        older_api.chat_blueprint(host, transfers),
        audit.blueprint(host),
        quotas.blueprint(host),
    ):
        app.register_api(routes)
    auth.require_declarations(app)
    return app


def _allow_nested_loops() -> None:
    """In a notebook an event loop runs already in the thread that calls the app: let tools and agents run theirs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    import nest_asyncio

    nest_asyncio.apply()
