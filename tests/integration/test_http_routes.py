"""What the routes answer before a model and tools are there, and what every answer has in common."""

import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from constants import Settings
from server import create_app
from server.host import Host
from server.runs import Run
from tests.support.server_process import Server

TOKEN = "secret"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with nothing loaded."""
    made = Host(Settings(TOKEN=TOKEN, MAX_RUNS=1, SHUTDOWN_GRACE=0, DATA_DIR=tmp_path))
    yield made
    made.close()


@pytest.fixture
def app(host: Host) -> Flask:
    """The application over `host`."""
    return create_app(host)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Calls the application in this process, with the token."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


def error_of(answer: Any, status: int) -> dict[str, Any]:
    """The error of an answer of that status."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json["error"] if isinstance(answer.json, dict) else answer.json()["error"]
    return error


def test_health_with_nothing_loaded(empty_server: Server) -> None:
    health = empty_server.health()
    assert health["sandbox"].pop("memory_limit") in ("cgroup", "watchdog")
    assert health == {
        "status": "ok",
        "version": "0.1.0",
        "model": None,
        "models": [],
        "tools": None,
        "runs": {"running": 0, "queued": 0},
        "kv_bytes": 0,
        "workers": [],
        "worker_memory": None,
        "sandbox": {"isolation": None, "interpreters": 0, "running": 0},
    }


@pytest.mark.parametrize("token", ["", "wrong"])
def test_health_is_open_and_names_nobody(empty_server: Server, token: str) -> None:
    answer = requests.get(empty_server.url + "/health", headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert answer.status_code == 200
    named = empty_server.health()
    del named["workers"]
    assert answer.json() == named


def test_the_index_leads_on(empty_server: Server) -> None:
    index = empty_server.session.get("/").json()
    assert index["name"] == "hearth"
    for link in index["links"].values():
        assert empty_server.session.get(link).status_code == 200


def test_openapi_describes_the_routes(empty_server: Server) -> None:
    document = empty_server.session.get("/openapi.json").json()
    validate(document)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named <= document["components"]["schemas"].keys() and '"#/paths' not in json.dumps(document)
    routes = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert routes == {
        ("/collections", "get"),
        ("/collections/{name}", "delete"),
        ("/collections/{name}/documents", "get"),
        ("/collections/{name}/documents", "post"),
        ("/collections/{name}/documents/{document_id}", "delete"),
        ("/collections/{name}/documents/{document_id}", "get"),
        ("/collections/{name}/documents/{document_id}/pages/{index}", "get"),
        ("/collections/{name}/events", "get"),
        ("/collections/{name}/search", "get"),
        ("/comparisons", "get"),
        ("/comparisons", "post"),
        ("/comparisons/{comparison_id}", "delete"),
        ("/comparisons/{comparison_id}", "get"),
        ("/comparisons/{comparison_id}/cancel", "post"),
        ("/comparisons/{comparison_id}/events", "get"),
        ("/comparisons/{comparison_id}/export", "get"),
        ("/comparisons/{comparison_id}/resume", "post"),
        ("/comparisons/{comparison_id}/rows", "get"),
        ("/health", "get"),
        ("/metrics", "get"),
        ("/tools", "get"),
        ("/tools/statistics", "get"),
        ("/tools/{tool}/call", "post"),
        ("/mcp", "post"),
        ("/load_model", "post"),
        ("/unload_model", "post"),
        ("/sleep", "post"),
        ("/wake", "post"),
        ("/load_tools", "post"),
        ("/run_script", "post"),
        ("/reload_modules", "post"),
        ("/workspaces", "get"),
        ("/workspaces/{workspace}/files", "get"),
        ("/workspaces/{workspace}/files/{path}", "get"),
        ("/workspaces/{workspace}/files/{path}", "put"),
        ("/workspaces/{workspace}/files/{path}", "delete"),
        ("/workspaces/{workspace}/kept", "get"),
        ("/workspaces/{workspace}/kept/{name}", "delete"),
        ("/generations", "get"),
        ("/generations/{generation}", "delete"),
        ("/generations/{generation}/diff", "get"),
        ("/generations/{generation}/files", "get"),
        ("/generations/{generation}/files/{path}", "get"),
        ("/runs", "get"),
        ("/runs/{run_id}", "get"),
        ("/runs/{run_id}", "delete"),
        ("/runs/{run_id}/events", "get"),
        ("/runs/{run_id}/fork", "post"),
        ("/runs/{run_id}/steps", "get"),
        ("/runs/{run_id}/steps/{step}", "get"),
        ("/runs/{run_id}/tokens", "get"),
        ("/runs/{run_id}/replay", "post"),
        ("/sessions", "get"),
        ("/sessions/{session_id}", "get"),
        ("/sessions/{session_id}", "delete"),
        ("/sessions/{session_id}/export", "get"),
        ("/sessions/{session_id}/notepad", "get"),
        ("/sessions/{session_id}/notepad", "put"),
        ("/sessions/{session_id}/events", "get"),
        ("/sessions/{session_id}/files", "post"),
        ("/sessions/{session_id}/files", "get"),
        ("/sessions/{session_id}/files/{name}", "get"),
        ("/sessions/{session_id}/files/{name}", "delete"),
        ("/sessions/{session_id}/files/{name}/analysis", "get"),
        ("/sessions/{session_id}/code", "post"),
        ("/sessions/{session_id}/code", "delete"),
        ("/sessions/{session_id}/variables", "get"),
        ("/sessions/{session_id}/variables/{name}", "get"),
        ("/sessions/{session_id}/variables/{name}/download", "get"),
        ("/jobs", "post"),
        ("/jobs", "get"),
        ("/jobs/{job_id}", "get"),
        ("/jobs/{job_id}", "delete"),
        ("/jobs/{job_id}/log", "get"),
        ("/jobs/{job_id}/events", "get"),
        ("/jobs/{job_id}/retry", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{model}", "get"),
        ("/v1/chat/completions", "post"),
        ("/v1/completions", "post"),
        ("/v1/responses", "post"),
        ("/v1/responses/{response_id}", "get"),
        ("/v1/responses/{response_id}", "delete"),
        ("/v1/responses/{response_id}/input_items", "get"),
        ("/v1/embeddings", "post"),
        ("/v1/messages", "post"),
        ("/v1/messages/count_tokens", "post"),
        ("/api/chat", "post"),
        ("/api/chat/completions", "post"),
        ("/api/upload", "post"),
        ("/api/conversations", "get"),
        ("/audit", "get"),
        ("/events", "get"),
        ("/load", "get"),
        ("/ui/markdown", "post"),
        ("/documents/{document_id}/pages/{index}", "get"),
        ("/usage", "get"),
        ("/quotas", "get"),
        ("/quotas/{name}", "put"),
        ("/auth/register", "post"),
        ("/auth/login", "post"),
        ("/auth/refresh", "post"),
        ("/auth/logout", "post"),
        ("/auth/me", "get"),
        ("/api/auth/register", "post"),
        ("/api/auth/login", "post"),
        ("/api/auth/refresh", "post"),
        ("/api/auth/logout", "post"),
        ("/api/auth/me", "get"),
        ("/auth/login/token", "post"),
        ("/auth/tickets", "post"),
        ("/auth/password", "put"),
        ("/auth/keys", "get"),
        ("/auth/keys", "post"),
        ("/auth/keys/{prefix}", "delete"),
        ("/auth/logins", "get"),
        ("/auth/logins/{login_id}", "delete"),
        ("/auth/invitations", "post"),
        ("/people", "get"),
        ("/people/{username}/role", "put"),
        ("/people/{username}", "delete"),
        ("/people/{username}/objects", "get"),
        ("/people/{username}/open", "post"),
        ("/people/{username}/adopt", "post"),
        ("/workspaces/{workspace}/members", "get"),
        ("/workspaces/{workspace}/members/{username}", "put"),
        ("/workspaces/{workspace}/members/{username}", "delete"),
        ("/sessions/{session_id}/members", "get"),
        ("/sessions/{session_id}/members/{username}", "put"),
        ("/sessions/{session_id}/members/{username}", "delete"),
    }
    question = document["components"]["schemas"]["Question"]
    assert question["required"] == ["question"]
    assert question["properties"]["question"]["maxLength"] == 100_000
    assert question["additionalProperties"] is False
    refused = document["paths"]["/run_script"]["post"]["responses"]["422"]["content"]["application/json"]
    assert refused["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
    for path in ("/v1/chat/completions", "/api/chat/completions", "/sessions/{session_id}/files", "/api/upload"):
        form = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form["properties"]["files"]["items"] == {"type": "string", "format": "binary"}
    for path, method in (
        ("/run_script", "post"),
        ("/mcp", "post"),
        ("/load_model", "post"),
        ("/runs/{run_id}/events", "get"),
        ("/v1/chat/completions", "post"),
    ):
        assert "text/event-stream" in document["paths"][path][method]["responses"]["200"]["content"]


def test_every_answer_has_an_id_of_its_own(empty_server: Server) -> None:
    ids = [empty_server.session.get("/health").headers["X-Request-Id"] for _ in range(5)]
    assert len(set(ids)) == 5


def test_an_unknown_route(empty_server: Server) -> None:
    error = error_of(empty_server.session.get("/no/such/route"), 404)
    assert error["type"] == "not_found"
    assert "/no/such/route" in error["message"]


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/health"), ("GET", "/run_script"), ("PUT", "/load_tools"), ("PATCH", "/tools")]
)
def test_a_method_that_a_route_does_not_take(empty_server: Server, method: str, path: str) -> None:
    answer = empty_server.session.request(method, path)
    assert error_of(answer, 405)["type"] == "method_not_allowed"
    assert method not in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/load_tools", "/run_script", "/reload_modules"])
def test_an_unknown_workspace(empty_server: Server, path: str) -> None:
    body = {"workspace": "alice"} | ({"question": "x"} if path == "/run_script" else {})
    error = error_of(empty_server.session.post(path, json=body), 404)
    assert error["type"] == "workspace_not_found"
    assert "'alice'" in error["message"] and "main" in error["message"]


def test_an_unknown_workspace_in_a_query(empty_server: Server) -> None:
    answer = empty_server.session.get("/tools", params={"workspace": "alice"})
    assert error_of(answer, 404)["type"] == "workspace_not_found"
    answer = empty_server.session.get("/tools", params={"workspce": "main"})
    assert error_of(answer, 422)["type"] == "invalid_request"


def test_a_generation_that_is_not_live(empty_server: Server) -> None:
    answer = empty_server.session.post("/reload_modules", json={"generation": "0123456789ab"})
    assert error_of(answer, 404)["type"] == "generation_not_found"


def test_before_a_model_is_there(empty_server: Server) -> None:
    asked = empty_server.session.post("/run_script", json={"question": "What is 37 * 52?"})
    listed = empty_server.session.post("/load_tools", json={})
    for answer in (asked, listed):
        error = error_of(answer, 409)
        assert error["type"] == "model_not_loaded"
        assert "/load_model" in error["message"]
    of_mcp = empty_server.session.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert error_of(of_mcp, 409)["data"]["type"] == "model_not_loaded" and of_mcp.json()["id"] == 1


def test_before_the_tools_are_there(empty_server: Server) -> None:
    error = error_of(empty_server.session.get("/tools"), 409)
    assert error["type"] == "tools_not_loaded"


def test_nothing_to_unload(empty_server: Server) -> None:
    answer = empty_server.session.post("/unload_model")
    assert answer.status_code == 200
    assert answer.json()["model"] is None and answer.json()["models"] == []
    answer = empty_server.session.post("/unload_model", json={"model": "embedded"})
    assert error_of(answer, 404)["type"] == "model_not_resident"


def test_nothing_to_put_to_sleep(empty_server: Server) -> None:
    slept = empty_server.session.post("/sleep").json()
    assert (slept["model"], slept["given_back"]) == (None, [])
    assert empty_server.session.post("/wake").json()["models"] == []


def test_one_question_too_many(host: Host, client: FlaskClient) -> None:
    run, may_end = Run("x", "main", 6), threading.Event()
    host.runs.begin(run, lambda: may_end.wait(60), lambda _: None)  # type: ignore[arg-type, return-value]
    answer = client.post("/run_script", json={"question": "x"})
    assert error_of(answer, 429)["type"] == "queue_full"
    assert int(answer.headers["Retry-After"]) >= 1
    assert client.get("/health").status_code == 200
    may_end.set()
    assert run.ended.wait(60)
    assert error_of(client.post("/run_script", json={"question": "x"}), 409)["type"] == "model_not_loaded"


def test_nothing_new_during_shutdown(host: Host, client: FlaskClient) -> None:
    host.close()
    for path in ("/run_script", "/load_model"):
        body = {"question": "x"} if path == "/run_script" else {}
        assert error_of(client.post(path, json=body), 503)["type"] == "shutting_down"


def test_a_mistake_of_ours(app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str:
        raise KeyError("a secret of the server's")

    app.add_url_rule("/broken", view_func=broken)
    with caplog.at_level(logging.ERROR):
        answer = client.get("/broken")
    error = error_of(answer, 500)
    assert error["type"] == "internal"
    assert error["id"] == answer.headers["X-Request-Id"]
    assert "secret" not in answer.text and "Traceback" not in answer.text
    assert "a secret of the server's" in caplog.text


@pytest.mark.parametrize("path", ["/audit", "/runs/0123456789abcdef/steps"])
def test_a_number_that_no_database_has(client: FlaskClient, path: str) -> None:
    name = "before" if path == "/audit" else "after"
    assert error_of(client.get(path, query_string={name: 10**30}), 422)["type"] == "invalid_request"
