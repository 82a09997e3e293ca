"""Accounts: logins, keys, sharing, and what happens when they end."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from constants import Settings
from server import create_app
from server.host import Host
from server.people.credentials import CredentialCheck
from server.store import Database
from server.store.people import PeopleStore
from tests.integration.test_mcp import current
from tests.support.server_process import REPOSITORY, Server, Session, end, start

PASSWORD = "a long password"
SAYS = '''
from langchain_core.tools import tool


def build_tool(llm):
    @tool
    def says(text: str) -> str:
        """Let the model continue a text."""
        return str(llm.invoke(text).content)

    return says
'''
ELSEWHERE = {"X-Forwarded-For": "192.0.2.1"}
"""Logins are counted by address. With this header a request counts for another one."""


@dataclass
class Lab:
    """A server with accounts: ada is an admin, ann and bob are researchers, gus is a guest."""

    server: Server
    admin: Session
    sessions: dict[str, Session] = field(default_factory=dict)

    def person(self, name: str, role: str = "researcher") -> Session:
        """Somebody who has logged in, with a new account if there is none."""
        if name not in self.sessions:
            register(self.server, self.admin, name, role)
            self.sessions[name] = Session(self.server.url, log_in(self.server, name)["access_token"])
        return self.sessions[name]


def register(server: Server, admin: Session, name: str, role: str) -> None:
    invitation = admin.post("/auth/invitations", json={"role": role}).json()["invitation"]
    body = {"username": name, "password": PASSWORD, "invitation": invitation}
    answer = requests.post(server.url + "/auth/register", json=body, timeout=60)
    assert (answer.status_code, answer.json()) == (201, {"username": name, "role": role})


def log_in(server: Server, name: str, password: str = PASSWORD) -> dict[str, Any]:
    answer = requests.post(server.url + "/auth/login", json={"username": name, "password": password}, timeout=60)
    assert answer.status_code == 200, answer.text
    given: dict[str, Any] = answer.json()
    return given


def error_of(answer: requests.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    kind: str = answer.json()["error"]["type"]
    return kind


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Shared: tests make sessions and people of their own."""
    server = start(tmp_path_factory.mktemp("people") / "server", REPOSITORY, {"TRUSTED_PROXIES": "127.0.0.1"})
    try:
        server.wait_until_ready()
        # Before there are accounts, a conversation in main is of who has the token.
        assert server.session.post("/run_script", json={"question": "What is 2 + 2?", "session_id": "old"}).ok
        body = {"username": "ada", "password": PASSWORD}
        assert server.session.post("/auth/register", json=body).json() == {"username": "ada", "role": "admin"}
        yield Lab(server, Session(server.url, log_in(server, "ada")["access_token"]))
    finally:
        end(server)


# Accounts


def test_the_start_token_is_the_admin_and_keeps_its_objects(lab: Lab) -> None:
    me = lab.server.session.get("/auth/me").json()
    assert (me["username"], me["role"], me["credential"], me["accounts"]) == (None, "admin", "start token", True)
    assert [one["session_id"] for one in lab.server.session.get("/sessions").json()["sessions"]] == ["old"]
    assert lab.person("ann").get("/sessions").json() == {"sessions": []}
    assert error_of(lab.person("ann").get("/sessions/old"), 404) == "session_not_found"


def test_an_invitation_is_for_one_account(lab: Lab) -> None:
    invitation = lab.admin.post("/auth/invitations", json={"role": "guest"}).json()["invitation"]
    url = lab.server.url + "/auth/register"

    def register_as(name: str) -> int:
        body = {"username": name, "password": PASSWORD, "invitation": invitation}
        return requests.post(url, json=body, headers=ELSEWHERE, timeout=60).status_code

    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(register_as, ["one-a", "one-b", "one-c", "one-d"]))
    assert sorted(statuses) == [201, 403, 403, 403]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"username": "eve", "password": PASSWORD}, 401, "unauthorized"),
        ({"username": "eve", "password": PASSWORD, "invitation": "wrong"}, 403, "invitation_refused"),
        ({"username": "eve", "password": "short", "invitation": "x"}, 422, "invalid_request"),
        ({"username": "main", "password": PASSWORD, "invitation": "x"}, 422, "invalid_request"),
        ({"username": "server", "password": PASSWORD, "invitation": "x"}, 422, "invalid_request"),
        ({"username": "nobody", "password": PASSWORD, "invitation": "x"}, 422, "invalid_request"),
        ({"username": "guest", "password": PASSWORD, "invitation": "x"}, 422, "invalid_request"),
        ({"username": "Eve", "password": PASSWORD, "invitation": "x"}, 422, "invalid_request"),
        ({"username": "e\n", "password": PASSWORD, "invitation": "x"}, 422, "invalid_request"),
        ({"username": "-e", "password": PASSWORD, "invitation": "x"}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
    ],
)
def test_a_wrong_registration_is_refused(lab: Lab, body: dict[str, str], status: int, kind: str) -> None:
    answer = requests.post(lab.server.url + "/auth/register", json=body, headers=ELSEWHERE, timeout=60)
    assert error_of(answer, status) == kind
    assert PASSWORD not in answer.text


def test_a_wrong_password_and_an_unknown_name_look_alike(lab: Lab) -> None:
    lab.person("ann")
    answers = [
        requests.post(lab.server.url + "/auth/login", json={"username": name, "password": "no"}, timeout=60)
        for name in ("ann", "nobody-of-that-name", "", "é" * 60)
        if name
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1


def test_the_paths_of_the_older_api(lab: Lab) -> None:
    lab.person("ann")
    url = lab.server.url + "/api/auth"
    given = requests.post(f"{url}/login", json={"username": "ann", "password": PASSWORD}, timeout=60).json()
    assert set(given) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (given["token_type"], given["expires_in"]) == ("bearer", 900)
    me = requests.get(f"{url}/me", headers={"Authorization": f"Bearer {given['access_token']}"}, timeout=60).json()
    assert me["username"] == "ann"


# The traps of sessions


def ways_into(session: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Requests that use a session of main."""
    message = [{"role": "user", "content": "What did I say?"}]
    form = {"messages": (None, json.dumps(message)), "session_id": (None, session)}
    chat = {"model": "hearth/chat", "messages": message, "x_session_id": session}
    return [
        ("POST", "/run_script", {"json": {"question": "What did I say?", "session_id": session}}),
        (
            "POST",
            "/v1/chat/completions",
            {"json": chat},
        ),
        ("POST", "/v1/responses", {"json": {"model": "hearth/chat", "input": "Hm?", "x_session_id": session}}),
        ("POST", "/v1/messages", {"json": {**chat, "max_tokens": 9}}),
        ("POST", "/v1/messages/count_tokens", {"json": chat}),
        ("POST", "/api/chat", {"json": {"message": "Hm?", "session_id": session}}),
        ("POST", "/api/chat/completions", {"json": {"messages": message, "session_id": session}}),
        (
            "POST",
            "/api/chat/completions",
            {"files": form},
        ),
        (
            "POST",
            "/v1/chat/completions",
            {"files": form},
        ),
        ("POST", "/api/upload", {"files": {"session_id": (None, session), "files": ("a.txt", b"x")}}),
        ("POST", f"/sessions/{session}/files", {"files": {"files": ("a.txt", b"x")}}),
        ("POST", f"/sessions/{session}/code", {"json": {"code": "1"}}),
        ("POST", "/jobs", {"json": {"tool": "calculator", "input": {"expression": "1"}, "session_id": session}}),
        ("POST", f"/collections/mine/documents?session={session}", {"json": {"text": "x", "name": "y"}}),
        ("POST", "/collections/mine/documents", {"json": {"file": "a.txt", "session_id": session}}),
        ("GET", f"/collections?session={session}", {}),
        ("GET", f"/sessions/{session}", {}),
        ("GET", f"/sessions/{session}/events", {}),
        ("GET", f"/sessions/{session}/files", {}),
        ("GET", f"/sessions/{session}/files/a.txt", {}),
        ("PUT", f"/sessions/{session}/notepad", {"json": {"entries": []}}),
        ("PUT", f"/sessions/{session}/members/bob", {}),
        ("DELETE", f"/sessions/{session}", {}),
    ]


@pytest.mark.parametrize("way", range(len(ways_into("x"))))
def test_no_way_leads_into_the_session_of_another(lab: Lab, way: int) -> None:
    """Not even one by which its owner has made it, without a question in it yet (CVE-2026-45349)."""
    ann, bob = lab.person("ann"), lab.person("bob")
    assert ann.post("/sessions/anns/files", files={"files": ("a.txt", b"pearls")}).status_code == 201
    method, path, options = ways_into("anns")[way]
    answer = bob.request(method, path, **options)
    assert answer.status_code == 404, answer.text
    assert "anns" in answer.text and "pearls" not in answer.text
    assert "There is no session 'anns' of yours in the workspace 'main'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "multipart/form-data", "text/plain"])
def test_no_content_type_hides_what_json_names(lab: Lab, kind: str) -> None:
    ann, bob = lab.person("ann"), lab.person("bob")
    assert ann.post("/sessions/anns/files", files={"files": ("a.txt", b"pearls")}).status_code == 201
    assert ann.put("/workspaces/hidden/files/tools/own.py", data=b"# of ann").ok
    for path, body in (
        ("/run_script", {"question": "What did I say?", "session_id": "anns"}),
        ("/v1/responses", {"model": "hearth/chat", "input": "Hm?", "x_session_id": "anns"}),
        ("/api/chat", {"message": "Hm?", "session_id": "anns"}),
        ("/jobs", {"tool": "calculator", "input": {"expression": "1"}, "session_id": "anns"}),
        ("/reload_modules", {"workspace": "hidden"}),
        ("/load_tools", {"workspace": "hidden"}),
        ("/sessions/bobs/code", {"code": "1", "workspace": "hidden"}),
        ("/tools/calculator/call", {"input": {"expression": "1"}, "workspace": "hidden"}),
    ):
        answer = bob.post(path, data=json.dumps(body), headers={"Content-Type": kind})
        assert answer.status_code == 404, f"{path}: {answer.status_code} {answer.text[:200]}"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/run_script", {"question": 5, "session_id": "refused"}),
        ("PUT", "/sessions/refused/notepad", {"entries": 5}),
    ],
)
def test_a_refused_request_makes_no_session(lab: Lab, method: str, path: str, body: dict[str, Any]) -> None:
    ann, bob = lab.person("ann"), lab.person("bob")
    assert error_of(bob.request(method, path, json=body), 422) == "invalid_request"
    assert error_of(ann.put("/sessions/refused/notepad", json={"entries": 5}), 422) == "invalid_request"


def first_event(person: Session, topic: str) -> dict[str, Any]:
    """The first event of a topic of /events."""
    with person.get("/events", params={"follow": f"k:0:{topic}"}, stream=True, timeout=30) as stream:
        line = next(line for line in stream.iter_lines() if line.startswith(b"data: "))
    event: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
    return event


def test_nobody_follows_what_is_of_another(lab: Lab) -> None:
    ann, bob = lab.person("ann"), lab.person("bob")
    assert ann.put("/workspaces/books/files/tools/own.py", data=b"").ok
    run = ann.post("/run_script", json={"question": "What is 2 + 3?", "session_id": "lends"}).json()["run_id"]
    document = {"text": "pearls", "name": "y"}
    assert ann.post("/collections/shelf/documents?session=lends", json=document).status_code == 201
    assert ann.post("/collections/shelf/documents?workspace=books", json=document).status_code == 201
    comparison: dict[str, Any] = {"questions": [{"question": "What is 2 + 3?"}], "a": {}, "b": {}}
    compared = ann.post("/comparisons", json=comparison).json()["comparison_id"]
    job = ann.post("/jobs", json={"tool": "calculator", "input": {"expression": "1"}}).json()["job_id"]
    for topic in (
        f"run/{run}",
        f"job/{job}",
        f"comparison/{compared}",
        "session/main/lends",
        "session/books/lends",
        "collection/main/shelf/lends",
        "collection/books/shelf",
    ):
        missing = first_event(bob, topic)
        assert missing["kind"] == "missing" and missing["data"]["type"].endswith("_not_found"), topic
    for topic in (f"run/{run}", "collection/main/shelf/lends", "collection/books/shelf"):
        assert first_event(ann, topic)["kind"] != "missing", topic


def test_a_followed_session_goes_when_it_is_not_shared_any_more(lab: Lab) -> None:
    ann, bob = lab.person("ann"), lab.person("bob")
    assert ann.put("/sessions/briefly/members/bob").ok
    with bob.get("/events", params={"follow": "k:0:session/main/briefly"}, stream=True, timeout=30) as stream:
        lines = stream.iter_lines(1)
        assert next(lines) == b": ping"
        assert ann.delete("/sessions/briefly/members/bob").ok
        event = next(line for line in lines if line)  # and no second ping
        assert json.loads(event.removeprefix(b"data: "))["kind"] == "missing"


def test_a_session_of_the_older_api_is_its_makers(lab: Lab) -> None:
    ann, bob = lab.person("ann"), lab.person("bob")
    session = ann.post("/api/upload", files={"files": ("a.txt", b"pearls")}).json()["session_id"]
    assert ann.get(f"/sessions/{session}/files/a.txt").content == b"pearls"
    assert error_of(bob.get(f"/sessions/{session}/files/a.txt"), 404) == "session_not_found"


def test_the_name_of_a_deleted_session_stays_its_owners(lab: Lab) -> None:
    ann, bob = lab.person("ann"), lab.person("bob")
    assert ann.post("/run_script", json={"question": "What is 2 + 3?", "session_id": "brief"}).ok
    assert ann.delete("/sessions/brief").status_code == 200
    assert (
        error_of(bob.post("/run_script", json={"question": "Hm?", "session_id": "brief"}), 404) == "session_not_found"
    )


def test_a_colleague_writes_under_their_own_name(lab: Lab) -> None:
    ann, bob = lab.person("ann"), lab.person("bob")
    first = ann.post("/run_script", json={"question": "What is 2 + 3?", "session_id": "ours"}).json()
    assert error_of(bob.get("/sessions/ours"), 404) == "session_not_found"
    shared = ann.put("/sessions/ours/members/bob")
    assert shared.json() == {"session_id": "ours", "workspace": "main", "owner": "ann", "members": ["bob"]}
    second = bob.post("/run_script", json={"question": "What is 2 + 4?", "session_id": "ours"}).json()
    assert {one["run_id"] for one in bob.get("/runs").json()["runs"]} >= {second["run_id"]}
    assert first["run_id"] not in bob.get("/runs").text
    assert bob.get(f"/runs/{first['run_id']}").json()["answer"] == "5"
    assert error_of(bob.delete(f"/runs/{first['run_id']}"), 404) == "run_not_found"
    messages = ann.get("/sessions/ours").json()["messages"]
    assert [one.get("username") for one in messages] == ["ann", None, "bob", None]
    assert "ours" in {one["session_id"] for one in bob.get("/sessions").json()["sessions"]}
    assert error_of(bob.delete("/sessions/ours"), 403) == "forbidden"
    assert ann.delete("/sessions/ours/members/bob").json()["members"] == []
    assert error_of(bob.get("/sessions/ours"), 404) == "session_not_found"


# Workspaces


def test_a_workspace_is_its_first_writers(lab: Lab) -> None:
    ann, bob, gus = lab.person("ann"), lab.person("bob"), lab.person("gus", "guest")
    file = "/workspaces/pearl/files/tools/pearl.py"
    assert error_of(gus.put(file, data=b""), 403) == "forbidden"
    assert ann.put(file, data=b"# of ann").status_code == 201
    for answer in (
        bob.get(file),
        bob.put(file, data=b""),
        bob.get("/workspaces/pearl/kept"),
        bob.get("/tools?workspace=pearl"),
    ):
        assert error_of(answer, 404) == "workspace_not_found"
        assert "pearl" not in bob.get("/workspaces").text
    assert ann.put("/workspaces/pearl/members/bob", json={"role": "reader"}).json()["members"][-1] == {
        "username": "bob",
        "role": "reader",
    }
    assert bob.get(file).content == b"# of ann"
    assert error_of(bob.put(file, data=b""), 403) == "forbidden"
    assert error_of(bob.put("/workspaces/pearl/members/bob", json={"role": "owner"}), 403) == "forbidden"
    assert error_of(bob.post("/reload_modules", json={"workspace": "pearl"}), 403) == "forbidden"
    assert ann.put("/workspaces/pearl/members/bob", json={"role": "editor"}).ok
    assert bob.put(file, data=b"# of bob").status_code == 200
    assert error_of(ann.delete("/workspaces/pearl/members/ann"), 409) == "conflict"
    assert ann.delete("/workspaces/pearl/members/bob").ok
    assert error_of(bob.get(file), 404) == "workspace_not_found"


def test_who_loses_a_workspace_loses_the_runs_that_were_shared_in_it(lab: Lab) -> None:
    ann, bob = lab.person("ann"), lab.person("bob")
    assert ann.put("/workspaces/lab-two/files/tools/own.py", data=b"").ok
    body = {"question": "What is 2 + 3?", "session_id": "ours", "workspace": "lab-two"}
    run = ann.post("/run_script", json=body).json()["run_id"]
    assert ann.put("/workspaces/lab-two/members/bob", json={"role": "reader"}).ok
    assert ann.put("/sessions/ours/members/bob?workspace=lab-two").ok
    assert bob.get(f"/runs/{run}").json()["answer"] == "5"
    assert ann.delete("/workspaces/lab-two/members/bob").ok
    assert error_of(bob.get(f"/runs/{run}"), 404) == "run_not_found"


def test_documents_of_a_form_count_for_who_sends_them(lab: Lab) -> None:
    uma = lab.person("uma")
    assert lab.admin.put("/quotas/uma", json={"disk_bytes": 4}).ok
    answer = uma.post("/collections/mine/documents?session=umas", files={"files": ("a.txt", b"pearls")})
    assert error_of(answer, 429) == "quota_reached"


def test_a_guest_asks_and_changes_no_code(lab: Lab) -> None:
    gus = lab.person("gus", "guest")
    assert gus.post("/run_script", json={"question": "What is 2 + 3?"}).json()["answer"] == "5"
    for answer in (
        gus.post("/reload_modules", json={}),
        gus.post("/jobs", json={"tool": "calculator", "input": {"expression": "1"}}),
        gus.post("/sessions/of-gus/code", json={"code": "1"}),
        gus.post("/unload_model", json={}),
        gus.get("/people"),
        gus.post("/collections/lab/documents", json={"text": "x", "name": "y"}),
    ):
        assert error_of(answer, 403) == "forbidden"


# Ends


def assert_end(chunks: Iterator[bytes]) -> None:
    """The stream ends now, and not when it is closed here: no ping comes after the first one."""
    read = b""
    for chunk in chunks:
        read += chunk
        assert b":" not in read, read


def test_an_open_stream_ends_when_its_login_is_revoked(lab: Lab) -> None:
    lab.person("ann")
    given = log_in(lab.server, "ann")
    ann = Session(lab.server.url, given["access_token"])
    assert ann.post("/sessions/watched/files", files={"files": ("a.txt", b"x")}).ok
    with ann.get("/sessions/watched/events", stream=True, timeout=30) as stream:
        chunks = stream.iter_content(1)
        assert next(chunks) == b":"
        assert ann.post("/auth/logout").json() == {"logged_out": True}
        assert_end(chunks)
    assert error_of(ann.get("/runs"), 401) == "unauthorized"
    answer = requests.post(
        lab.server.url + "/auth/refresh", json={"refresh_token": given["refresh_token"]}, timeout=60
    )
    assert error_of(answer, 401) == "unauthorized"


def test_an_open_stream_ends_when_it_is_not_shared_any_more(lab: Lab) -> None:
    ann, bob = lab.person("ann"), lab.person("bob")
    assert ann.put("/sessions/followed/members/bob").ok
    with bob.get("/sessions/followed/events", stream=True, timeout=30) as stream:
        chunks = stream.iter_content(1)
        assert next(chunks) == b":"
        assert ann.delete("/sessions/followed/members/bob").ok
        assert_end(chunks)


def test_a_deleted_account_is_gone_at_once_and_nobody_gets_its_name(lab: Lab) -> None:
    tom = lab.person("tom")
    assert tom.post("/run_script", json={"question": "What is 2 + 3?", "session_id": "toms"}).ok
    assert lab.admin.delete("/people/tom").json()["deleted_at"] is not None
    assert error_of(tom.get("/runs"), 401) == "unauthorized"
    invitation = lab.admin.post("/auth/invitations", json={}).json()["invitation"]
    body = {"username": "tom", "password": PASSWORD, "invitation": invitation}
    answer = requests.post(lab.server.url + "/auth/register", json=body, timeout=60)
    assert error_of(answer, 409) == "account_exists"
    assert error_of(lab.admin.delete("/people/tom"), 404) == "account_not_found"


def test_a_role_counts_at_once(lab: Lab) -> None:
    kim = lab.person("kim")
    assert kim.post("/reload_modules", json={"dry_run": True}).ok
    assert lab.admin.put("/people/kim/role", json={"role": "guest"}).json()["role"] == "guest"
    assert error_of(kim.post("/reload_modules", json={"dry_run": True}), 403) == "forbidden"


def test_another_password_ends_all_other_logins(lab: Lab) -> None:
    lab.person("pat")
    first, second = (Session(lab.server.url, log_in(lab.server, "pat")["access_token"]) for _ in range(2))
    assert error_of(first.put("/auth/password", json={"old": "wrong", "new": "another password"}), 403) == "forbidden"
    assert first.put("/auth/password", json={"old": PASSWORD, "new": "another password"}).status_code == 204
    assert first.get("/auth/me").ok
    assert error_of(second.get("/auth/me"), 401) == "unauthorized"
    log_in(lab.server, "pat", "another password")


# Keys


def test_a_key_does_what_its_scopes_say_until_it_is_revoked(lab: Lab) -> None:
    ann = lab.person("ann")
    made = ann.post("/auth/keys", json={"name": "a script", "scopes": ["read", "ask"], "expires_in_days": 1}).json()
    assert made["key"].startswith(f"hearth_{made['prefix']}_") and made["scopes"] == ["ask", "read"]
    key = Session(lab.server.url, made["key"])
    assert key.get("/auth/me").json()["credential"] == "key"
    assert key.post("/run_script", json={"question": "What is 2 + 3?"}).json()["answer"] == "5"
    for answer in (
        key.post("/reload_modules", json={}),
        key.post("/auth/keys", json={"name": "another"}),
        key.delete(f"/auth/keys/{made['prefix']}"),
        key.post("/auth/tickets"),
        key.put("/auth/password", json={"old": PASSWORD, "new": "another password"}),
        key.post("/auth/logout"),
    ):
        assert error_of(answer, 403) == "forbidden"
    listed = ann.get("/auth/keys")
    assert made["key"] not in listed.text and made["prefix"] in listed.text
    assert error_of(lab.person("bob").delete(f"/auth/keys/{made['prefix']}"), 404) == "key_not_found"
    assert ann.delete(f"/auth/keys/{made['prefix']}").ok
    assert error_of(key.get("/auth/me"), 401) == "unauthorized"


def test_calls_of_a_tool_count_for_the_key(lab: Lab) -> None:
    ann = lab.person("ann")
    assert ann.put("/workspaces/amber/files/tools/says.py", data=SAYS.encode()).status_code == 201
    assert ann.post("/reload_modules", json={"workspace": "amber"}).ok
    made = ann.post("/auth/keys", json={"name": "calls"}).json()
    key = Session(lab.server.url, made["key"])
    body, headers = current("tools/call", {"name": "says", "arguments": {"text": "Hello"}})

    def used() -> int:
        found = ann.get("/usage?by=key").json()["usage"]
        return sum(one["tokens_processed"] for one in found if one["key"] == made["prefix"])

    assert key.post("/mcp", params={"workspace": "amber"}, json=body, headers=headers).ok
    first = lab.server.wait_until(used, "the tokens of the call by MCP")
    assert key.post("/tools/says/call", json={"workspace": "amber", "input": {"text": "Hello"}}).ok
    assert used() > first


def test_a_key_can_not_have_more_than_its_owner(lab: Lab) -> None:
    answer = lab.person("ann").post("/auth/keys", json={"name": "x", "scopes": ["admin"]})
    assert error_of(answer, 403) == "forbidden"


def test_a_key_of_an_admin_without_the_scope_sees_what_others_see(lab: Lab) -> None:
    assert lab.person("ann").post("/run_script", json={"question": "What is 2 + 3?"}).ok
    key = lab.admin.post("/auth/keys", json={"name": "reads", "scopes": ["read"]}).json()["key"]
    reads = Session(lab.server.url, key)
    assert "ann" in lab.admin.get("/usage").text and "ann" not in reads.get("/usage").text
    assert "workers" in lab.admin.get("/load").json()["sample"]
    assert "workers" not in reads.get("/load").json()["sample"]


def test_a_failed_login_is_nobodys_act(lab: Lab) -> None:
    requests.post(lab.server.url + "/auth/login", json={"username": "server", "password": "no"}, timeout=60)
    [event] = lab.admin.get("/audit?act=login.failed&limit=1").json()["events"]
    assert (event["actor"], event["target"]) == ("nobody", "server")


# Browsers


def test_a_script_logs_in_whatever_its_content_type(lab: Lab) -> None:
    lab.person("ann")
    form = {"Content-Type": "application/x-www-form-urlencoded"}  # curl's, if nobody says another one
    body = json.dumps({"username": "ann", "password": PASSWORD})
    assert requests.post(lab.server.url + "/auth/login", data=body, headers=form, timeout=60).ok


def test_a_ticket_logs_a_browser_in_once(lab: Lab) -> None:
    ticket = lab.person("ann").post("/auth/tickets").json()["ticket"]
    with requests.Session() as browser:
        answer = browser.get(f"{lab.server.url}/?token={ticket}&page=2", allow_redirects=False, timeout=60)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/?page=2")
        assert browser.get(lab.server.url + "/auth/me", timeout=60).json()["username"] == "ann"
    assert error_of(requests.get(f"{lab.server.url}/?token={ticket}", timeout=60), 401) == "unauthorized"


def test_the_old_password_is_not_guessed(start_server: Callable[..., Server]) -> None:
    server = start_server(ready=False, AUTOLOAD=0)
    assert server.session.post("/auth/register", json={"username": "ann", "password": PASSWORD}).status_code == 201
    ann = Session(server.url, log_in(server, "ann")["access_token"])
    guesses = [
        ann.put("/auth/password", json={"old": f"guess {number}", "new": PASSWORD}).status_code
        for number in range(61)
    ]
    assert 204 not in guesses and guesses[-1] == 429


def test_a_browser_logs_in_and_out_by_a_cookie(lab: Lab) -> None:
    lab.person("ann")
    with requests.Session() as browser:
        browser.headers["Origin"] = lab.server.url
        body = json.dumps({"username": "ann", "password": PASSWORD, "cookie": True})
        headers = {"Content-Type": "application/json"}
        answer = browser.post(lab.server.url + "/auth/login", data=body, headers=headers, timeout=60)
        assert answer.json() == {"username": "ann"}
        assert browser.get(lab.server.url + "/auth/me", timeout=60).json()["credential"] == "login"
        left = {"Cookie": f"hearth_session={browser.cookies['hearth_session']}"}
        assert browser.post(lab.server.url + "/auth/logout", timeout=60).ok and not browser.cookies
    assert requests.get(lab.server.url + "/auth/me", headers=left, timeout=60).status_code == 401


def test_a_browser_logs_in_by_the_start_token(lab: Lab) -> None:
    with requests.Session() as browser:
        wrong = browser.post(lab.server.url + "/auth/login/token", json={"token": "wrong"}, timeout=60)
        assert error_of(wrong, 401) == "unauthorized" and not browser.cookies
        assert browser.post(lab.server.url + "/auth/login/token", json={"token": lab.server.token}, timeout=60).ok
        assert browser.get(lab.server.url + "/auth/me", timeout=60).json()["username"] is None


def refresh(server: Server, token: str) -> dict[str, Any]:
    answer = requests.post(server.url + "/auth/refresh", json={"refresh_token": token}, timeout=60)
    assert answer.status_code == 200, answer.text
    given: dict[str, Any] = answer.json()
    return given


@pytest.mark.parametrize("rounds", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_twenty_tabs_refresh_at_once(lab: Lab, rounds: int) -> None:
    lab.person("tabs")
    token = log_in(lab.server, "tabs")["refresh_token"]
    together = threading.Barrier(20)

    def tab(number: int) -> dict[str, Any]:
        together.wait(60)
        return refresh(lab.server, token)

    with ThreadPoolExecutor(20) as tabs:
        for _ in range(rounds):
            given = list(tabs.map(tab, range(20)))
            assert len({one["refresh_token"] for one in given}) == 1
            token = given[0]["refresh_token"]
    for one in (given[0], given[-1]):
        assert Session(lab.server.url, one["access_token"]).get("/auth/me").json()["username"] == "tabs"


# What stays secret


def test_no_secret_is_logged(lab: Lab) -> None:
    given = log_in(lab.server, "ada")
    made = Session(lab.server.url, given["access_token"]).post("/auth/keys", json={"name": "x"}).json()
    refresh(lab.server, given["refresh_token"])
    audit = lab.admin.get("/audit?limit=1000").text
    assert "login.succeeded" in audit and "key.created" in audit and "POST /auth/keys" in lab.server.output
    secrets = (PASSWORD, given["access_token"], given["refresh_token"], made["key"])
    for place in (lab.server.output, audit):
        assert not [secret for secret in secrets if secret in place]
    assert lab.server.token not in audit


# Settings and several servers


def test_without_accounts_there_are_none(tmp_path: Path) -> None:
    host = Host(Settings(TOKEN="secret", DATA_DIR=tmp_path, ACCOUNTS="off"))
    client, headers = create_app(host).test_client(), {"Authorization": "Bearer secret"}
    for path, body in (
        ("/auth/register", {"username": "ann", "password": PASSWORD}),
        ("/auth/login", {"username": "ann", "password": PASSWORD}),
        ("/auth/invitations", {}),
    ):
        answer = client.post(path, json=body, headers=headers)
        assert answer.status_code == 409 and answer.json is not None, answer.text
        assert answer.json["error"]["type"] == "accounts_off"
    assert client.put("/sessions/s/members/ann", headers=headers).status_code == 404
    host.close()


def test_the_cookie_is_secure_where_the_connection_is(tmp_path: Path) -> None:
    host = Host(Settings(TOKEN="secret", DATA_DIR=tmp_path, HOSTS=("gpubox",)))
    for scheme, is_secure in (("http", False), ("https", True)):
        client = create_app(host).test_client()
        answer = client.post("/auth/login/token", json={"token": "secret"}, base_url=f"{scheme}://gpubox")
        assert ("Secure" in answer.headers["Set-Cookie"]) is is_secure
    host.close()


def test_a_cookie_ends_with_the_start_token_that_made_it(tmp_path: Path) -> None:
    cookies: list[str] = []
    for token in ("secret", "another"):
        host = Host(Settings(TOKEN=token, DATA_DIR=tmp_path))
        client = create_app(host).test_client()
        for old in cookies:
            client.set_cookie("hearth_session", old)
            assert client.get("/runs").status_code == 401
        headers = {"Origin": "http://localhost"}
        assert client.post("/auth/login/token", json={"token": token}, headers=headers).status_code == 200
        cookie = client.get_cookie("hearth_session")
        assert cookie is not None and client.get("/runs").status_code == 200
        cookies.append(cookie.value)
        host.close()


def test_what_one_server_changes_another_notices(tmp_path: Path, database_url: str | None) -> None:
    settings = Settings(TOKEN="secret", DATA_DIR=tmp_path, DATABASE_URL=database_url)
    host = Host(settings)
    database = Database(tmp_path, database_url)
    other = CredentialCheck(settings, PeopleStore(database))
    holder = other.of_bearer("secret")
    assert holder is not None and holder.everything
    host.accounts.register("ann", PASSWORD, None, holder)
    given = host.accounts.log_in("ann", PASSWORD)
    principal = other.of_bearer(given.access_token)
    assert principal is not None and (principal.name, principal.role) == ("ann", "admin")
    assert other.of_cookie(given.cookie) == principal
    host.accounts.end_login(principal, given.login)
    other.look(at_once=True)
    assert other.again(principal) is None and other.of_bearer(given.access_token) is None
    host.close()
    database.close()


def test_two_first_accounts_at_once_make_one_admin(tmp_path: Path, database_url: str | None) -> None:
    settings = Settings(TOKEN="secret", DATA_DIR=tmp_path, DATABASE_URL=database_url)
    hosts = [Host(settings), Host(settings)]
    together = threading.Barrier(4)

    def register_as(number: int) -> int:
        client = create_app(hosts[number % 2]).test_client()
        body = {"username": f"first-{number}", "password": PASSWORD}
        together.wait(60)
        return client.post("/auth/register", json=body, headers={"Authorization": "Bearer secret"}).status_code

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(register_as, range(4))) == [201, 403, 403, 403]
    for host in hosts:
        host.close()


def test_old_objects_are_adopted(tmp_path: Path) -> None:
    host = Host(Settings(TOKEN="secret", DATA_DIR=tmp_path))
    client, token = create_app(host).test_client(), {"Authorization": "Bearer secret"}
    assert client.put("/workspaces/project/files/tools/x.py", data=b"", headers=token).status_code == 201
    body = {"question": "Hm?", "workspace": "project", "session_id": "s"}
    asked = client.post("/run_script", json=body, headers=token)  # without a model, its record is an error's
    assert asked.status_code == 409
    [run] = client.get("/runs", headers=token).get_json()["runs"]
    assert (
        client.post("/auth/register", json={"username": "ann", "password": PASSWORD}, headers=token).status_code
        == 201
    )
    given = client.post("/auth/login", json={"username": "ann", "password": PASSWORD}).get_json()
    ann = {"Authorization": f"Bearer {given['access_token']}"}
    for headers in (token, ann):
        assert client.get(f"/runs/{run['run_id']}", headers=headers).status_code == 404
    adopted = client.post("/people/ann/adopt", json={"old_workspace": "project"}, headers=token)
    assert adopted.get_json() == {"username": "ann", "objects": 1}
    assert client.get(f"/runs/{run['run_id']}", headers=ann).status_code == 200
    assert client.put("/workspaces/project/members/ann", json={"role": "owner"}, headers=token).status_code == 200
    assert client.get("/workspaces/project/files", headers=ann).status_code == 200
    host.close()


def test_the_first_account_needs_the_start_token(start_server: Callable[..., Server]) -> None:
    server = start_server(ready=False, AUTOLOAD=0, ACCOUNTS="on")
    body = {"username": "ann", "password": PASSWORD}
    answer = requests.post(server.url + "/auth/register", json=body, timeout=60)
    assert error_of(answer, 401) == "unauthorized"
    # A person's objects are theirs from the beginning.
    assert server.session.get("/auth/me").json()["accounts"] is True
    assert error_of(server.session.get("/sessions/x"), 404) == "session_not_found"
    assert server.session.post("/auth/register", json=body).status_code == 201
    assert (
        error_of(server.session.post("/auth/register", json={**body, "username": "bob"}), 403) == "invitation_refused"
    )
