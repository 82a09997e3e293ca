"""Requests made up from `/openapi.json` by schemathesis: each answer is one that the description allows.
https://schemathesis.readthedocs.io/"""

import itertools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, openapi
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.server_process import Server
from tests.support.used_lab import SESSION, WORKSPACE, use

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance]
LEFT_OUT = {
    "POST /load_model": "it looks for a model of a made-up name for minutes",
    "POST /unload_model": "all questions after it would be refused",
    "POST /sleep": "the same",
    "GET /events": "its stream does not end",
    "GET /sessions/{session_id}/events": "the same",
    "GET /collections/{name}/events": "the same",
}
NO_INVALID_REQUEST = ("GET /health",)
"""It takes nothing, and ignores what is sent."""
SECONDS = 60.0
SOME, MANY = 2, 100
"""Numbers of examples, of valid requests and of invalid ones each."""

PASSWORD = "a long password"
Known = dict[str, str]
"""Names of objects that are there, by the names of parameters."""


def with_accounts(start_server: Callable[..., Server]) -> Server:
    """A server with the admin ada, whose API key it has as its token, and bob. Logins are counted by address, which
    requests say themselves here."""
    server = start_server(TRUSTED_PROXIES="127.0.0.1")
    session = server.session
    assert session.post("/auth/register", json={"username": "ada", "password": PASSWORD}).status_code == 201
    body = {"username": "ada", "password": PASSWORD}
    session.headers["Authorization"] = f"Bearer {session.post('/auth/login', json=body).json()['access_token']}"
    invited = session.post("/auth/invitations", json={"role": "researcher"}).json()["invitation"]
    body = {"username": "bob", "password": PASSWORD, "invitation": invited}
    assert session.post("/auth/register", json=body).status_code == 201
    scopes = ["read", "ask", "code", "models", "admin"]
    server.token = session.post("/auth/keys", json={"name": "fuzz", "scopes": scopes}).json()["key"]
    return server


def operations(server: Server) -> list[APIOperation]:
    """All that are tried; what deletes something comes last."""
    schema = openapi.from_dict(server.session.get("/openapi.json").json())
    schema.config.update(base_url=server.url)
    found = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        if result.ok().label not in LEFT_OUT:
            found.append(result.ok())
    return sorted(found, key=lambda one: bool(one.method == "delete"))


def with_known(place: Any, known: Known, names: Collection[str]) -> Any:
    """A part of a request with what is there in the place of what was made up, in the workspace where it is. `names`:
    of the part's parameters."""
    if not isinstance(place, dict):
        if "workspace" not in names or place:
            return place
        place = {}
    is_there = {name: value for name, value in known.items() if name in place or name == "workspace" in names}
    return {**place, **is_there}


def problems(server: Server, operation: APIOperation, mode: GenerationMode, examples: int, known: Known) -> list[str]:
    """What is wrong with the answers of an operation to valid (`POSITIVE`) or invalid requests. Every other one names
    objects that are there."""
    found: dict[str, str] = {}
    addresses = itertools.count()
    in_query = [one.name for one in operation.iter_parameters() if one.location == "query"]
    in_body = [name for one in operation.body for name in one.resolved_schema.get("properties", ())]

    @seed(1)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), names_known=st.booleans())
    def ask(case: Case, names_known: bool) -> None:
        if names_known:
            case.path_parameters = with_known(case.path_parameters, known, ())
            case.query = with_known(case.query, known, in_query)
            case.body = with_known(case.body, known, in_body)
        number = next(addresses)
        headers = {
            "Authorization": f"Bearer {server.token}",
            "X-Forwarded-For": f"198.18.{number // 256 % 256}.{number % 256}",
        }
        response = case.call(headers=headers, timeout=SECONDS)
        # OpenAPI 3.1 can't say what the events of a stream are.
        is_stream = "text/event-stream" in response.headers.get("content-type", [""])[0]
        try:
            case.validate_response(response, checks=CHECKS + ([] if is_stream else [response_schema_conformance]))
        except FailureGroup as group:
            for failure in group.exceptions:
                how = f"{failure}\n{case.as_curl_command()[:1000]}\n{response.text[:500]}"
                found.setdefault(f"{response.status_code} {type(failure).__name__}", how)

    ask()
    return [f"{operation.label}, {mode.value} data: {what}: {how}" for what, how in found.items()]


def try_all(server: Server, examples: int, known: Known) -> Iterator[str]:
    """What is wrong with all operations."""
    for operation in operations(server):
        yield from problems(server, operation, GenerationMode.POSITIVE, examples, known)
        if operation.label not in NO_INVALID_REQUEST:
            yield from problems(server, operation, GenerationMode.NEGATIVE, examples, known)


def known_of(server: Server) -> Known:
    """Objects of a lab after a day of work."""
    used = use(server)
    generation = server.session.get("/generations", params={"workspace": WORKSPACE}).json()["generations"][0]
    documents = server.session.get("/collections/handbook/documents", params={"workspace": WORKSPACE}).json()
    return {
        "workspace": WORKSPACE,
        "session_id": SESSION,
        "run_id": used.run,
        "job_id": used.job,
        "comparison_id": used.comparison,
        "generation": generation["generation"],
        "document_id": documents["documents"][0]["document_id"],
        "tool": "freezer_temperature",
        "path": "tools/freezer_temperature.py",
        "model": "embedded",
        "step": "1",
        "index": "0",
        "username": "bob",
    }


def test_a_few_requests_to_each_route(start_server: Callable[..., Server]) -> None:
    server = with_accounts(start_server)
    known = {"workspace": "main", "model": "embedded", "tool": "calculator", "username": "bob"}
    assert list(try_all(server, SOME, known)) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["handbook", "growth.csv", "mean"])
def test_many_requests_to_each_route_of_a_used_lab(start_server: Callable[..., Server], name: str) -> None:
    """`name`: of a collection, a file and a variable."""
    server = with_accounts(start_server)
    known: dict[str, Any] = {**known_of(server), "name": name}
    assert list(try_all(server, MANY, known)) == []
