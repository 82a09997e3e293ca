"""WebSocket: the events of SSE, nobody's rights differ, and nobody harms the others."""

import json
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from server.http.listener import FEWEST_CONNECTIONS
from server.http.websocket_conversation import AUTH_BYTES, UNAUTHORIZED
from tests.support import event_stream
from tests.support.paced_agent import Paced
from tests.support.server_process import REPOSITORY, Server, Session, end, start
from tests.support.set_clock import SetClock
from tests.support.websocket_client import SECONDS, Client, address, open_client

PASSWORD = "a long password"


@pytest.fixture(scope="module")
def paced(lab: Server) -> Paced:
    """Questions that wait, in a workspace that ada and ann have."""
    made = Paced(lab)
    assert lab.session.put("/workspaces/paced/members/ann", json={"role": "reader"}).ok
    return made


@pytest.fixture(scope="module")
def people(lab: Server) -> dict[str, Session]:
    """Those who have logged in, once: logins are counted."""
    return {name: Session(lab.url, log_in(lab, name)) for name in ("ann", "bob")}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with WebSocket, and accounts: ada is an admin, ann and bob are researchers."""
    server = start(tmp_path_factory.mktemp("websocket") / "server", REPOSITORY, {"WS_PORT": 0})
    try:
        server.wait_until_ready()
        server.session = register(server, "ada", server.session)
        server.token = log_in(server, "ada")
        for name in ("ann", "bob"):
            register(server, name, server.session)
        yield server
    finally:
        end(server)


def register(server: Server, name: str, admin: Session) -> Session:
    """Make an account, of a researcher but for the first one, which is an admin's. Returns its login."""
    body = {"username": name, "password": PASSWORD}
    invited = admin.post("/auth/invitations", json={"role": "researcher"})
    if invited.ok:
        body["invitation"] = invited.json()["invitation"]
    assert admin.post("/auth/register", json=body).status_code == 201
    return Session(server.url, log_in(server, name))


def log_in(server: Server, name: str) -> str:
    body = {"username": name, "password": PASSWORD}
    token: str = requests.post(server.url + "/auth/login", json=body, timeout=SECONDS).json()["access_token"]
    return token


def make_key(person: Session, *scopes: str) -> dict[str, Any]:
    """An API key of that person."""
    made: dict[str, Any] = person.post("/auth/keys", json={"name": "a script", "scopes": scopes}).json()
    return made


@pytest.fixture
def ann(lab: Server, people: dict[str, Session]) -> Iterator[Client]:
    """A connection of ann's."""
    with open_client(lab, make_key(people["ann"], "read", "ask")["key"]) as client:
        yield client


def close_code(client: Client) -> int:
    """The code with which the server closes the connection, now or soon."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.hear()
    assert closed.value.rcvd is not None, closed.value
    return closed.value.rcvd.code


def refused(client: Client) -> dict[str, Any]:
    """The error of the next message."""
    message = client.hear()
    assert message["type"] == "error", message
    error: dict[str, Any] = message["error"]
    return error


# What it is for


def test_a_question_has_the_events_of_sse(lab: Server, ann: Client, people: dict[str, Session]) -> None:
    run = ann.ask("a", "What is 37 * 52?")
    events = ann.events_of("a")
    assert events[-1]["kind"] == "answer" and events[-1]["data"]["answer"] == "1924"
    url = f"/runs/{run}/events"
    # Text that the model writes is merged, here and there.
    sse = [(one.kind, one.data) for one in event_stream.read(people["ann"].get(url, stream=True))]
    same = [(kind, data) for kind, data in sse if kind not in ("ping", "token")]
    assert [(one["kind"], one["data"]) for one in events if one["kind"] != "token"] == same
    text = "".join(one["data"]["text"] for one in events if one["kind"] == "token")
    assert text == "".join(data["text"] for kind, data in sse if kind == "token")


def test_a_second_run_is_followed_beside_the_first(lab: Server, ann: Client, people: dict[str, Session]) -> None:
    other = people["ann"].post(
        "/run_script", json={"question": "What is 6 * 7?"}, headers={"Prefer": "respond-async"}
    )
    ann.say("follow", key="other", topic=f"run/{other.json()['run_id']}")
    ann.say("ask", key="own", body={"question": "What is 8 * 9?"})
    ended: set[str] = set()
    answers = {}
    while ended != {"other", "own"}:
        message = ann.hear()
        if message["type"] == "ended":
            ended.add(message["key"])
        elif message.get("kind") == "answer":
            answers[message["key"]] = message["data"]["answer"]
    assert answers == {"other": "42", "own": "72"}


def test_a_run_is_continued_after_an_event(ann: Client) -> None:
    run = ann.ask("first", "What is 37 * 52?")
    step = next(one for one in ann.events_of("first") if one["kind"] == "step")
    ann.say("follow", key="again", topic=f"run/{run}", after=step["id"])
    assert ann.hear() == {"type": "following", "key": "again", "topic": f"run/{run}"}
    assert all(one["id"] > step["id"] for one in ann.events_of("again"))


def test_a_run_is_cancelled(ann: Client, paced: Paced) -> None:
    run = ann.ask("a", paced.question("x", waits=True), agent="paced", workspace="paced")
    ann.say("cancel", key="stop", run_id=run)
    heard = ann.hear_until(lambda message: message["type"] == "ended")
    assert {"type": "cancelled", "key": "stop", "run_id": run} in heard
    assert next(one for one in heard if one.get("kind") == "error")["data"]["type"] == "run_cancelled"


def test_sessions_and_the_load_are_followed_until_one_leaves(ann: Client) -> None:
    ann.say("follow", key="load", topic="load")
    ann.hear_until(lambda message: message.get("kind") == "sample")
    ann.ask("q", "What is 2 + 3?", session_id="of-ann")
    ann.events_of("q")
    ann.say("follow", key="said", topic="session/main/of-ann")
    heard = ann.hear_until(lambda message: message.get("key") == "said" and message.get("kind") == "message")
    assert heard[-1]["data"]["content"] == "What is 2 + 3?"
    ann.say("unfollow", key="load")
    ann.hear_until(lambda message: message == {"type": "ended", "key": "load"})
    ann.say("unfollow", key="load")
    assert ann.hear_until(lambda message: message["type"] == "error")[-1]["error"]["status"] == 422


@pytest.mark.parametrize("detach", [False, True])
def test_a_run_ends_with_its_connection_unless_it_is_detached(lab: Server, paced: Paced, detach: bool) -> None:
    question = paced.question("done", waits=True)
    with open_client(lab) as client:
        run = client.ask("a", question, agent="paced", workspace="paced", detach=detach)
    if detach:
        paced.go_on(question)

    def state() -> Any:
        found = lab.session.get(f"/runs/{run}").json()["state"]
        return found if found in ("done", "cancelled", "failed") else None

    assert lab.wait_until(state, "the end of the run") == ("done" if detach else "cancelled")


# Rights


def test_rights_are_those_of_http(lab: Server, ann: Client, people: dict[str, Session]) -> None:
    run = ann.ask("mine", "What is 37 * 52?", session_id="private")
    ann.events_of("mine")
    with open_client(lab, make_key(people["bob"], "read")["key"]) as bob:
        bob.say("follow", key="x", topic=f"run/{run}")
        assert refused(bob)["type"] == "run_not_found"
        bob.say("follow", key="x", topic="session/main/private")
        assert refused(bob)["type"] == "session_not_found"
        bob.say("ask", key="x", body={"question": "What is 1 + 1?"})
        error = refused(bob)
        assert (error["status"], error["type"]) == (403, "forbidden") and "'ask'" in error["message"]
    with open_client(lab, make_key(people["bob"], "ask")["key"]) as bob:
        bob.say("follow", key="x", topic="load")
        assert refused(bob)["status"] == 403
        bob.say("ask", key="x", body={"question": "And now?", "session_id": "private"})
        assert refused(bob)["type"] == "session_not_found"
        bob.say("cancel", key="x", run_id=run)
        assert refused(bob)["type"] == "run_not_found"
        bob.say("cancel", key="x", run_id="../audit?")
        assert refused(bob)["status"] == 404


def test_a_body_is_checked_as_that_of_the_route(ann: Client) -> None:
    ann.say("ask", key="x", body={"question": "What?", "max_steps": 99})
    error = refused(ann)
    assert (error["status"], error["details"][0]["loc"]) == (422, ["max_steps"])


def test_a_revoked_key_closes_the_connection(lab: Server, paced: Paced, people: dict[str, Session]) -> None:
    made = make_key(people["ann"], "read", "ask")
    with open_client(lab, made["key"]) as client:
        run = client.ask("a", paced.question("x", waits=True), agent="paced", workspace="paced")
        assert people["ann"].delete(f"/auth/keys/{made['prefix']}").ok
        assert close_code(client) == UNAUTHORIZED
    session = people["ann"]
    lab.wait_until(lambda: session.get(f"/runs/{run}").json()["state"] == "cancelled", "the end of its run")


def test_who_is_no_member_any_more_follows_no_longer(lab: Server, ann: Client, people: dict[str, Session]) -> None:
    ann.ask("q", "What is 2 + 3?", session_id="shared")
    ann.events_of("q")
    owner = people["ann"]
    assert owner.put("/sessions/shared/members/bob").ok
    with open_client(lab, make_key(people["bob"], "read")["key"]) as bob:
        bob.say("follow", key="s", topic="session/main/shared")
        bob.hear_until(lambda message: message.get("kind") == "message")
        assert owner.delete("/sessions/shared/members/bob").ok
        heard = bob.hear_until(lambda message: message["type"] == "ended")
        assert heard[-2] == {"type": "event", "key": "s", "id": 0, "kind": "missing", "data": {}}


def test_a_new_token_of_the_same_person_only(lab: Server, ann: Client, people: dict[str, Session]) -> None:
    ann.say("auth", token=make_key(people["ann"], "read", "ask")["key"])
    assert ann.hear()["username"] == "ann"
    ann.say("auth", token=make_key(people["bob"], "read")["key"])
    assert refused(ann)["status"] == 403
    ann.say("auth", token="wrong")
    assert refused(ann)["status"] == 401
    ann.ask("still", "What is 1 + 1?")


def test_rights_are_those_of_the_newest_token(lab: Server) -> None:
    with open_client(lab, log_in(lab, "ada")) as ada:
        ada.say("follow", key="admin", topic="load")
        sample = ada.hear_until(lambda message: message.get("kind") == "sample")[-1]["data"]
        assert "workers" in sample
        ada.say("auth", token=make_key(lab.session, "read")["key"])
        ada.hear_until(lambda message: message["type"] == "ready")
        ada.say("follow", key="reader", topic="load")
        heard = ada.hear_until(lambda message: message.get("key") == "reader" and message.get("kind") == "sample")
        assert "workers" not in heard[-1]["data"]


def test_what_an_admin_has_opened_is_closed_after_an_hour(
    start_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        clock = SetClock(tmp_path)
    except FileNotFoundError as reason:
        pytest.skip(str(reason))
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    server = start_server(ready=False, WS_PORT=0, AUTOLOAD=0)
    ada = register(server, "ada", server.session)
    ann = register(server, "ann", ada)
    assert ann.post("/sessions/private/files", files={"files": ("a.txt", b"a")}).ok
    key = make_key(ada, "read")["key"]
    assert ada.post("/people/ann/open", json={"reason": "she asked me to"}).ok
    http, topic = Session(server.url, key), "session/main/private"
    with (
        open_client(server, key) as client,
        http.get(f"/events?follow=x:0:{topic}", stream=True) as several,
        http.get("/sessions/private/events", headers=event_stream.EVENT_STREAM, stream=True) as one,
    ):
        client.say("follow", key="x", topic=topic)
        assert client.hear()["type"] == "following"
        clock.set(3700)
        assert client.hear_until(lambda message: message["type"] == "ended")[-2]["kind"] == "missing"
        assert any(b'"missing"' in line for line in several.iter_lines(chunk_size=1))
        assert all(event.kind == "ping" for event in event_stream.read(one))


# Who is nobody


@pytest.mark.parametrize(
    "first",
    [
        '{"type": "auth", "token": "wrong"}',
        '{"type": "auth"}',
        '{"type": "auth", "token": 7}',
        '{"type": "auth", "token": "a\\nb"}',
        '{"type": "auth", "token": "a\\r\\nX-Api-Key: b"}',
        '{"type": "ask", "key": "a", "body": {"question": "What is 1 + 1?"}}',
        "hello",
        "[]",
        "[" * 5000,
        b'{"type": "auth"}',
    ],
)
def test_a_first_message_without_a_credential(lab: Server, first: str | bytes) -> None:
    with connect(address(lab)) as connection:
        connection.send(first)
        client = Client(connection)
        assert refused(client)["status"] in (400, 401, 422)
        assert close_code(client) == UNAUTHORIZED


def test_nobody_sends_much_before(lab: Server) -> None:
    with connect(address(lab)) as connection:
        connection.send("x" * (AUTH_BYTES + 1))
        assert close_code(Client(connection)) == 1009


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1.example:5001"])
def test_pages_of_others_may_not_connect(lab: Server, origin: Any) -> None:
    with pytest.raises(InvalidStatus) as refusal, connect(address(lab), origin=origin):
        pass
    assert refusal.value.response.status_code == 403


def test_pages_of_this_machine_may_connect(lab: Server) -> None:
    with connect(address(lab), origin=Origin("http://localhost:8888")):
        pass


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/ws", "Host: a\r\nHost: b\r\n", 400),
        ("/ws", "Host: a\r\nOrigin: http://a\r\nOrigin: http://b\r\n", 400),
        ("/ws", "", 400),
        ("//[", "Host: a\r\n", 404),
    ],
)
def test_a_strange_upgrade_is_refused(lab: Server, path: str, headers: str, status: int) -> None:
    url = urlsplit(address(lab))
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " + "A" * 22 + "==\r\n"
    with socket.create_connection((url.hostname, url.port), timeout=SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\n{headers}{upgrade}Sec-WebSocket-Version: 13\r\n\r\n".encode())
        assert connection.recv(1000).split()[1] == str(status).encode()


def test_another_path_is_none(lab: Server) -> None:
    with pytest.raises(InvalidStatus) as refusal, connect(address(lab) + "x"):
        pass
    assert refusal.value.response.status_code == 404


# Who does harm


@pytest.mark.parametrize(
    "hostile",
    [
        json.dumps({"type": "ask", "key": "x", "body": {"question": "x" * 1_000_000}}),
        json.dumps({"type": "ask", "key": "x", "body": {str(number): number for number in range(80_000)}}),
        '{"type": "ask", "key": "x", "body": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"type": "ask", "key": "x", "body": {"question": "\\ud800"}}',
        '{"type": "ask", "key": "x", "key": "y", "body": {}}',
        '{"type": "ask", "key": "x", "body": {"question": NaN}}',
        '{"type": "ask", "key": "", "body": {}}',
        '{"type": "follow", "key": "x", "topic": "nothing"}',
        '{"type": "follow", "key": "x", "topic": "run/\\u0000"}',
        '{"type": "follow", "key": "x", "topic": "session/main/../../etc"}',
        '{"type": "follow", "key": "x", "topic": "load", "after": -1}',
        '{"type": "run", "key": "x"}',
        "null",
        "",
        b"\x00\xff",
    ],
    ids=range(15),
)
def test_a_hostile_message_is_refused_and_the_next_one_answered(ann: Client, hostile: str | bytes) -> None:
    ann.connection.send(hostile)
    error = refused(ann)
    assert 400 <= error["status"] < 500 and len(error["message"]) < 2000, error
    ann.say("follow", key="next", topic="load")
    assert ann.hear()["type"] == "following"


def test_a_message_that_is_too_long_closes_the_connection(ann: Client) -> None:
    ann.connection.send("x" * (2 * 1024 * 1024 + 1))
    assert close_code(ann) == 1009


def test_keys_and_topics_are_bounded(ann: Client) -> None:
    ann.ask("q", "What is 2 + 3?", session_id="bounded")
    ann.events_of("q")
    later = {"topic": "session/main/bounded", "after": 10**17}
    for number in range(64):
        ann.say("follow", key=str(number), **later)
        assert ann.hear()["type"] == "following"
    ann.say("follow", key="0", **later)
    assert refused(ann)["status"] == 409
    ann.say("unfollow", key="0")
    ann.hear()
    for key in ("0", "one more"):
        ann.say("follow", key=key, **later)
    assert ann.hear()["type"] == "following"
    assert "64 topics" in refused(ann)["message"]


def test_idle_connections_cost_no_threads_and_leave_http_answering(lab: Server, people: dict[str, Session]) -> None:
    key = make_key(people["ann"], "read")["key"]
    process = psutil.Process(lab.process.pid)
    lab.health()
    before = process.num_threads()
    with ExitStack() as opened:
        for _ in range(200):
            client = opened.enter_context(open_client(lab, key))
            client.say("follow", key="x", topic="load")
        client.hear_until(lambda message: message.get("kind") == "sample")
        assert lab.session.get("/health", timeout=20).json()["status"] == "ok"
        assert process.num_threads() < before + 50


def test_who_does_not_read_holds_up_nobody(lab: Server, people: dict[str, Session]) -> None:
    made = make_key(people["ann"], "read", "ask")
    url = urlsplit(address(lab))
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect((url.hostname, url.port))
    with connect(address(lab), sock=deaf, max_queue=1, close_timeout=0.5) as connection:
        client = Client(connection)
        client.say("auth", token=made["key"])
        client.hear()

        def chatter() -> None:
            try:
                for number in range(20_000):
                    client.say("unfollow", key=f"{number} " + "x" * 90)
            except ConnectionClosed:
                pass  # as it should be

        memory = psutil.Process(lab.process.pid).memory_info().rss
        talking = threading.Thread(target=chatter)
        talking.start()
        with open_client(lab, make_key(people["bob"], "read", "ask")["key"]) as bob:
            bob.ask("q", "What is 6 * 7?")
            assert bob.events_of("q")[-1]["data"]["answer"] == "42"
        assert psutil.Process(lab.process.pid).memory_info().rss < memory + 50e6
        # Also who does not read is gone when the key is.
        assert people["ann"].delete(f"/auth/keys/{made['prefix']}").ok
        talking.join(SECONDS)
        assert not talking.is_alive()


def test_who_says_nothing_takes_nobodys_place(start_server: Callable[..., Server]) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        server = start_server(ready=False, WS_PORT=0, AUTOLOAD=0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    url = urlsplit(address(server))
    with ExitStack() as opened:
        known = opened.enter_context(open_client(server))
        for _ in range(2 * FEWEST_CONNECTIONS):
            opened.enter_context(socket.create_connection((url.hostname, url.port)))
        opened.enter_context(open_client(server))
        known.say("follow", key="x", topic="load")
        assert known.hear()["type"] == "following"


def test_what_speaks_no_websocket_or_says_nothing_is_closed_and_is_no_line_in_the_log(lab: Server) -> None:
    url = urlsplit(address(lab))
    with ExitStack() as opened:
        silent = Client(opened.enter_context(connect(address(lab))))
        connections = []
        for sent in (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x00", b""):
            found = socket.create_connection((url.hostname, url.port), timeout=SECONDS)
            connections.append(opened.enter_context(found))
            found.sendall(sent)
        for connection in connections:
            while connection.recv(1 << 16):
                pass
        assert "within" in refused(silent)["message"]
        assert close_code(silent) == UNAUTHORIZED
    assert "Traceback" not in lab.output, lab.output


# The end


def test_the_end_of_the_server_is_the_end_of_the_connections(start_server: Callable[..., Server]) -> None:
    server = start_server(WS_PORT=0, CORS_ORIGINS="https://lab.example.org")
    # A page of the server itself may connect, and one of another port not.
    with connect(address(server), origin=Origin(server.url)):
        pass
    with pytest.raises(InvalidStatus), connect(address(server), origin=Origin("http://127.0.0.1:1")):
        pass
    with open_client(server) as client, open_client(server) as idle:
        client.ask("q", "What is 6 * 7?")
        server.process.terminate()
        # A question has time to end.
        assert client.events_of("q")[-1]["kind"] == "answer"
        assert close_code(client) == close_code(idle) == 1001
    assert server.process.wait(SECONDS) == 0
    assert "Traceback" not in server.output, server.output


def test_both_ports_can_not_be_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from constants import SettingsError, read_settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEARTH_PORT", "6001")
    monkeypatch.setenv("HEARTH_WS_PORT", "6001")
    with pytest.raises(SettingsError, match="HEARTH_WS_PORT are both 6001"):
        read_settings()
