"""Every route of the server, for each person, with each name of another person's object."""

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import insert
from werkzeug.routing import Rule

from constants import Settings
from server import create_app
from server.comparisons.comparison import Comparison, Row, Side
from server.host import Host
from server.http import auth
from server.http.access import Access
from server.http.ownership import COMPARISON, GENERATION, JOB, RESPONSE, RUN, SESSION, WORKSPACE
from server.jobs.job import Job
from server.people.principal import SCOPES, Role, Scope
from server.runs import Run
from server.runs.record import record_of
from server.store import Exchange, RunStore
from server.store.comparisons import ComparisonStore
from server.store.responses import SavedResponse
from server.store.tables import COLLECTION

TOKEN = "the-start-token"
PASSWORD = "a long password"
ROLES: dict[str, Role] = {"ann": "researcher", "bob": "researcher", "gus": "guest", "ada": "admin"}
OWNER, OTHERS = "ann", ("bob", "gus", "ada")
SECRET = "pearls-of-ann"
"""Stands in everything that is the owner's alone."""
DENIED = (401, 403, 404)


@dataclass
class Person:
    """Somebody, with an object of each kind."""

    name: str
    headers: dict[str, str]
    ids: dict[str, str] = field(default_factory=dict)


@dataclass
class Lab:
    host: Host
    app: Flask
    client: FlaskClient
    people: dict[str, Person]


def log_in(client: FlaskClient, name: str) -> dict[str, str]:
    given = client.post("/auth/login", json={"username": name, "password": PASSWORD}).json
    assert given is not None
    return {"Authorization": f"Bearer {given['access_token']}"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Four people, who have a workspace, a session, a run, a job, a generation, a collection and a key each."""
    host = Host(Settings(TOKEN=TOKEN, DATA_DIR=tmp_path_factory.mktemp("lab"), SANDBOX_SPARES=0))
    app = create_app(host)
    client = app.test_client()
    start = {"Authorization": f"Bearer {TOKEN}"}
    assert (
        client.post("/auth/register", json={"username": "ada", "password": PASSWORD}, headers=start).status_code
        == 201
    )
    people = {"ada": Person("ada", log_in(client, "ada"))}
    for name, role in ROLES.items():
        if name != "ada":
            invited = client.post("/auth/invitations", json={"role": role}, headers=people["ada"].headers).json
            assert invited is not None
            body = {"username": name, "password": PASSWORD, "invitation": invited["invitation"]}
            assert client.post("/auth/register", json=body).status_code == 201
            people[name] = Person(name, log_in(client, name))
    for person in people.values():
        _equip(host, client, person)
    try:
        yield Lab(host, app, client, people)
    finally:
        host.close()


def _equip(host: Host, client: FlaskClient, person: Person) -> None:
    name = person.name
    secret = SECRET if name == OWNER else "nothing"
    workspace = f"space-of-{name}"
    code = {"workspace": workspace, "path": "tools/own.py"}
    if ROLES[name] != "guest":
        put = client.put(f"/workspaces/{workspace}/files/tools/own.py", data=f"# {secret}", headers=person.headers)
        assert put.status_code == 201, put.text
    else:
        host.workspaces.files(workspace).write("tools/own.py", b"")
        host.permissions.store.set_workspace_member(workspace, name, "editor")
    generation = f"{len(name)}{name}".encode().hex() * 6
    host.generations.record_live(workspace, generation, {"tools/own.py": f"# {secret}".encode()})
    session = f"session-of-{name}"
    # In main, where everybody may ask, so that the session alone separates them.
    assert (
        client.put(f"/sessions/{session}/members/{name}", headers=person.headers).status_code == 200
    )  # which makes the session theirs
    run = Run(f"What about {secret}?", "main", 1, session_id=session, owner=name)
    run.answer = {"answer": secret, "run_id": run.id, "steps": []}
    run.state = "done"
    record = {**record_of(run), "generation": generation}
    exchange = Exchange(0, run.question, secret, run.id, 1.0, {"title": None, "asked": secret, "found": secret})
    RunStore(host.database).add(record, name, [host.session_store.adding("main", session, name, exchange)])
    job = host.jobs.start(Job("", "main", name, generation, "own", {"text": secret}, timeout=1, session_id=session))
    with host.database.writing() as connection:
        for place, of in ((workspace, ""), ("main", session)):
            row = {"workspace": place, "session": of, "owner": name, "name": f"collection-of-{name}", "created": 0.0}
            connection.execute(insert(COLLECTION).values(row))
    comparison = compared(name, generation, secret)
    ComparisonStore(host.database, "here").add(comparison, [Row(1, secret)])
    response = f"resp_{name}"
    body = {"id": response, "output": [{"id": f"msg_{name}", "type": "message", "content": secret}]}
    host.responses.add(SavedResponse(response, "main", name, None, body, [], 1.0))
    made = client.post("/auth/keys", json={"name": secret}, headers=person.headers).json
    logins = client.get("/auth/logins", headers=person.headers).json
    assert made is not None and logins is not None
    person.ids = {
        **code,
        "session": session,
        "session_id": session,
        "run": run.id,
        "job": job.id,
        "generation": generation,
        "collection": f"collection-of-{name}",
        "comparison": comparison.id,
        "response": response,
        "prefix": made["prefix"],
        "login_id": logins["logins"][0]["login_id"],
    }


def compared(name: str, generation: str, secret: str) -> Comparison:
    """A comparison of a person's, in main."""
    side = Side("main", generation, "embedded", "react", 1, None)
    return Comparison(
        id=secrets.token_hex(8),
        name=secret,
        workspace="main",
        owner=name,
        a=side,
        b=side,
        check=None,
        at_once=1,
        questions=1,
        state="done",
        created=1.0,
        ended=2.0,
    )


def scopes_of(name: str) -> frozenset[Scope]:
    return SCOPES[ROLES[name]]


def routes(app: Flask) -> list[tuple[Rule, str, Access]]:
    """All routes and methods, with what they declare."""
    found = []
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            access: Access = vars(app.view_functions[rule.endpoint])["access"]
            found.append((rule, method, access))
    return found


def kind_of(name: str) -> str | None:
    """The kind of object that a field or a part of a path names; None: none that has an owner."""
    for kind, names in (
        ("workspace", WORKSPACE),
        ("session", SESSION),
        ("generation", GENERATION),
        ("run", RUN),
        ("job", JOB),
        ("comparison", COMPARISON),
        ("response", RESPONSE),
    ):
        if name in names:
            return kind
    return None


def path_of(rule: Rule, access: Access, person: Person, attacker: Person) -> str:
    """The path of a rule with a person's objects."""

    def value(match: re.Match[str]) -> str:
        name = match.group(2)
        if name == "name":
            return person.ids["collection"] if access.owner == "collection" else "x"
        if name == "username":
            return attacker.name
        kind = kind_of(name)
        return person.ids.get(kind or name, "1" if match.group(1) == "int:" else "x")

    return re.sub(r"<(\w+:)?(\w+)>", value, str(rule))


def attempts(rule: Rule, method: str, access: Access, owner: Person, other: Person) -> Iterator[dict[str, Any]]:
    """Requests of `other` that name something of `owner`: in the path, or in a field of query or body."""
    fields: list[tuple[str, str]] = []
    for part, model in (("query_string", access.query), ("json", access.body)):
        if model is not None:
            fields += [(part, name) for name in model.model_fields if kind_of(name)]

    def request(path: str, named: dict[str, str], whose: Person) -> dict[str, Any]:
        given: dict[str, Any] = {"path": path, "method": method, "query_string": {}, "json": {}}
        for part, name in fields:
            if name in named:
                given[part][name] = whose.ids[kind_of(name) or ""]
        if access.body is None:
            del given["json"]
        return given

    names_object = any(kind_of(name) or name in ("name", "prefix", "login_id") for name in rule.arguments)
    if names_object and access.owner not in ("nobody", "caller"):
        path = path_of(rule, access, owner, other)
        is_in_workspace = access.owner == "collection"
        names = {name: name for _, name in fields if kind_of(name) == "workspace"} if is_in_workspace else {}
        yield request(path, names, owner)
    if access.owner not in ("caller", "nobody"):
        for _, name in fields:
            yield request(path_of(rule, access, other, other), {name: name}, owner)


def test_each_route_is_declared_and_its_ids_have_owners(lab: Lab) -> None:
    for rule, _, access in routes(lab.app):
        kinds = {kind_of(name) for name in rule.arguments} - {None}
        if access.owner in ("nobody", "caller"):
            assert not kinds, f"{rule} names somebody's objects, and declares {access.owner}"
        for model in (access.query, access.body):
            named = {kind_of(name) for name in (model.model_fields if model is not None else ())} - {None}
            assert access.owner != "nobody" or not named, f"{rule} names objects, and declares nobody"


def test_each_json_body_is_declared(lab: Lab) -> None:
    """A view that reads its body itself has to say which model it has."""
    described = lab.app.api_doc["paths"]  # type: ignore[attr-defined]
    count = 0
    for rule, method, access in routes(lab.app):
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(rule))
        content = described.get(path, {}).get(method.lower(), {}).get("requestBody", {}).get("content", {})
        if "application/json" in content:
            count += 1
            assert access.body is not None, f"{method} {rule} takes JSON, of which nobody looks for names"
        if "application/json" in content and "multipart/form-data" in content:
            assert access.takes_form, f"{method} {rule} takes forms, and does not say so"
    assert count > 20


def test_no_comparison_reaches_the_code_and_runs_of_others(lab: Lab) -> None:
    ids, bob = lab.people[OWNER].ids, lab.people["bob"]
    questions = {"questions": [{"question": "Hm?"}]}
    for named in (
        {"workspace": ids["workspace"], "a": {}, "b": {}},
        {"a": {"workspace": ids["workspace"]}, "b": {}},
        {"a": {}, "b": {"workspace": ids["workspace"]}},
        {"a": {"generation": ids["generation"]}, "b": {}},
        {"a": {}, "b": {"generation": ids["generation"][:8]}},
        {"a": {}, "b": {}, "runs": [ids["run"]]},
    ):
        body = named if "runs" in named else {**named, **questions}
        answer = lab.client.post("/comparisons", json=body, headers=bob.headers)
        assert answer.status_code == 404, f"{body}: {answer.text[:200]}"
        form = {"request": json.dumps(named), "files": (BytesIO(b'{"question": "Hm?"}'), "q.jsonl")}
        answer = lab.client.post("/comparisons", data=form, headers=bob.headers)
        assert answer.status_code == 404, f"form {named}: {answer.text[:200]}"


def test_a_comparison_is_resumed_only_with_code_that_its_owner_may_still_use(lab: Lab) -> None:
    ids, bob = lab.people[OWNER].ids, lab.people["bob"]
    for workspace, generation in ((ids["workspace"], bob.ids["generation"]), ("main", ids["generation"])):
        side = Side(workspace, generation, "embedded", "react", 1, None)
        made = replace(compared("bob", generation, "nothing"), b=side, state="cancelled")
        ComparisonStore(lab.host.database, "here").add(made, [Row(1, "Hm?")])
        answer = lab.client.post(f"/comparisons/{made.id}/resume", headers=bob.headers)
        assert answer.status_code == 404, answer.text
        assert lab.client.delete(f"/comparisons/{made.id}", headers=bob.headers).status_code == 200


def test_a_route_without_a_declaration_prevents_the_start(tmp_path: Path) -> None:
    host = Host(Settings(TOKEN=TOKEN, DATA_DIR=tmp_path))
    app = create_app(host)
    app.add_url_rule("/forgotten", view_func=lambda: "")
    with pytest.raises(RuntimeError, match="/forgotten"):
        auth.require_declarations(app)
    host.close()


def test_nobody_gets_at_the_objects_of_others(lab: Lab) -> None:
    owner = lab.people[OWNER]
    count = 0
    for rule, method, access in routes(lab.app):
        for name in OTHERS:
            other = lab.people[name]
            for attempt in attempts(rule, method, access, owner, other):
                answer = lab.client.open(**attempt, headers=other.headers)
                count += 1
                where = f"{name}: {attempt}: {answer.status_code} {answer.text[:200]}"
                assert answer.status_code in DENIED, where
                assert SECRET not in answer.text, where
                if access.scope in scopes_of(name) and access.owner != "account" and ROLES[name] != "guest":
                    # It does not exist for them, and not: they may not.
                    assert answer.status_code == 404, where
    assert count > 200


def test_nobody_without_a_credential_gets_anything(lab: Lab) -> None:
    owner = lab.people[OWNER]
    for rule, method, access in routes(lab.app):
        path = path_of(rule, access, owner, owner)
        answer = lab.client.open(path, method=method, json={} if access.body else None)
        if access.scope == "public":
            assert answer.status_code in (200, 401, 404, 422), path
        else:
            assert answer.status_code == 401, f"{method} {path}: {answer.status_code}"
        assert SECRET not in answer.text


def test_lists_show_ones_own(lab: Lab) -> None:
    for rule, method, access in routes(lab.app):
        if access.owner in ("caller", "account", "nobody") and method == "GET" and not rule.arguments:
            # The audit log names what was changed, and shows nothing of it.
            for name in OTHERS if access.scope != "admin" else ():
                answer = lab.client.get(str(rule), headers=lab.people[name].headers)
                assert SECRET not in answer.text, f"{name}: {rule}"
                for kind in ("workspace", "session", "run", "job"):
                    assert lab.people[OWNER].ids[kind] not in answer.text, f"{name}: {rule}"
    listed = {
        path: json.dumps(lab.client.get(path, headers=lab.people[OWNER].headers).json)
        for path in ("/runs", "/sessions", "/jobs", "/workspaces", "/api/conversations")
    }
    ids = lab.people[OWNER].ids
    assert ids["run"] in listed["/runs"] and ids["session"] in listed["/sessions"] and ids["job"] in listed["/jobs"]
    assert ids["workspace"] in listed["/workspaces"] and ids["session"] in listed["/api/conversations"]


def test_the_owner_gets_at_them(lab: Lab) -> None:
    owner = lab.people[OWNER]
    left_out = ("events", "tokens", "variables", "analysis", "files/<file_path:name>", "search", "document_id")
    opened = 0
    for rule, method, access in routes(lab.app):
        kinds = ("run", "session", "workspace", "generation", "job", "collection", "comparison", "response")
        has_object = access.owner in kinds
        if method != "GET" or not has_object or not rule.arguments or any(one in str(rule) for one in left_out):
            continue
        query = {"to": owner.ids["generation"]} if "diff" in str(rule) else {}
        if access.owner == "collection":
            query["workspace"] = owner.ids["workspace"]
        answer = lab.client.get(path_of(rule, access, owner, owner), query_string=query, headers=owner.headers)
        if "/v1/models" not in str(rule):
            assert answer.status_code == 200, f"{rule}: {answer.text[:200]}"
            opened += 1
    assert opened >= 12


@pytest.mark.parametrize("name", ["bob", "gus"])
def test_only_admins_do_what_admins_do(lab: Lab, name: str) -> None:
    person = lab.people[name]
    for rule, method, access in routes(lab.app):
        if access.scope not in scopes_of(name) and access.scope != "public":
            path = path_of(rule, access, person, person)
            answer = lab.client.open(path, method=method, json={} if access.body else None, headers=person.headers)
            assert answer.status_code == 403, f"{method} {path}: {answer.status_code}"


def test_an_admin_opens_by_an_act(lab: Lab) -> None:
    ada, ids = lab.people["ada"], lab.people[OWNER].ids
    objects = lab.client.get(f"/people/{OWNER}/objects", headers=ada.headers)
    assert ids["run"] in objects.text and ids["job"] in objects.text and ids["comparison"] in objects.text
    assert SECRET not in objects.text
    assert lab.client.get(f"/runs/{ids['run']}", headers=ada.headers).status_code == 404
    opened = lab.client.post(f"/people/{OWNER}/open", json={"reason": "she asked me to"}, headers=ada.headers)
    assert opened.status_code == 200
    [event] = lab.host.audit.latest(1, act="person.opened")
    assert event["actor"] == "ada" and event["target"] == OWNER and event["details"]["reason"] == "she asked me to"
    for path in (f"/runs/{ids['run']}", f"/jobs/{ids['job']}", f"/sessions/{ids['session']}"):
        assert lab.client.get(path, headers=ada.headers).status_code == 200, path
    code = f"/workspaces/{ids['workspace']}/files/tools/own.py"
    assert lab.client.get(code, headers=ada.headers).status_code == 200
    # To read, and not to change.
    assert lab.client.put(code, data=b"", headers=ada.headers).status_code == 403
    assert lab.client.delete(f"/sessions/{ids['session']}", headers=ada.headers).status_code == 404
    assert lab.client.get(f"/runs/{ids['run']}", headers=lab.people["bob"].headers).status_code == 404


def test_the_items_of_others_are_not_there(lab: Lab) -> None:
    body = {"model": "hearth", "input": [{"type": "item_reference", "id": f"msg_{OWNER}"}]}
    for name in ("bob", "gus"):
        answer = lab.client.post("/v1/responses", json=body, headers=lab.people[name].headers)
        assert answer.status_code == 404 and SECRET not in answer.text, answer.text
        assert answer.json is not None and answer.json["error"]["code"] == "response_not_found"
