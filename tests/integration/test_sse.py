"""Streams of a real server: events leave when they are made, can be resumed, and end with their client."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.integration.test_app import SLOW_RECIPE
from tests.support.event_stream import EVENT_STREAM, Event, ask, read
from tests.support.server_process import Server, copy_code, end, start
from tests.support.waiting_lab import WAITING, Lab, connection

QUESTION = "What is 37 * 52?"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    code = copy_code(tmp_path_factory.mktemp("waiting"))
    (code / "server" / "tools" / "calculator.py").write_text(WAITING)
    file = code / "server" / "http" / "sse.py"
    file.write_text(file.read_text().replace("PING_SECONDS = 15.0", "PING_SECONDS = 0.1"))
    made = start(tmp_path_factory.mktemp("streams") / "server", code, {})
    try:
        made.wait_until_ready()
        yield Lab(made)
    finally:
        end(made)


def texts(events: list[Event]) -> str:
    return "".join(event.data["text"] for event in events if event.kind == "token")


def kinds(events: list[Event]) -> list[str]:
    """In order, each once where it comes several times in a row."""
    found: list[str] = []
    for event in events:
        if event.kind != "ping" and found[-1:] != [event.kind]:
            found.append(event.kind)
    return found


def test_an_answer_as_it_comes(server: Server) -> None:
    events = list(read(ask(server, QUESTION)))
    assert kinds(events) == ["queued", "started", "token", "step", "token", "answer"]
    assert [event.data["position"] for event in events if event.kind == "queued"] == [1]
    answer = events[-1].data
    assert answer["answer"] == "1924" and answer["queued_seconds"] <= answer["seconds"]
    assert {event.data["run_id"] for event in events if event.kind in ("queued", "started", "answer")} == {
        answer["run_id"]
    }
    assert [event.data for event in events if event.kind == "step"] == answer["steps"]
    written = texts(events)
    assert written.startswith("Thought: ") and written.endswith("Answer: 1924")
    numbers = [int(event.id or 0) for event in events]
    assert numbers == sorted(set(numbers))
    plain = server.session.post("/run_script", json={"question": QUESTION}).json()
    assert set(plain) == set(answer) and plain["steps"] == answer["steps"]


def test_text_that_a_tool_has_asked_for_is_named(server: Server) -> None:
    events = list(read(ask(server, "What is the mood of 'I love this wonderful place'?")))
    assert {event.data["tool"] for event in events if event.kind == "token"} == {None, "sentiment"}


@pytest.mark.parametrize(
    ("accept", "streamed"),
    [
        ("text/event-stream", True),
        ("text/event-stream, */*", True),
        ("text/event-stream;q=0.5, application/json", False),
        ("*/*", False),
        ("text/html", False),
    ],
)
def test_who_gets_a_stream(server: Server, accept: str, streamed: bool) -> None:
    answer = server.session.post("/run_script", json={"question": "hello"}, headers={"Accept": accept})
    assert answer.headers["Content-Type"].startswith("text/event-stream" if streamed else "application/json")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"question": " "}, 422, "invalid_request"),
        ({"question": "x", "workspace": "nobody"}, 404, "workspace_not_found"),
        ({"question": "x", "generation": "ffffffffffff"}, 404, "generation_not_found"),
        ({"question": "why? " * 20_000}, 200, "prompt_too_long"),
    ],
)
def test_what_goes_wrong(server: Server, body: dict[str, Any], status: int, code: str) -> None:
    answer = server.session.post("/run_script", json=body, headers=EVENT_STREAM)
    assert answer.status_code == status
    # Once it has started it is too late for a status code, and an event reports the error.
    error = [*read(answer)][-1].data if status == 200 else answer.json()["error"]
    assert error["type"] == code and error["message"]


def test_no_model_is_reported_before_a_stream_begins(empty_server: Server) -> None:
    answer = empty_server.session.post("/run_script", json={"question": "x"}, headers=EVENT_STREAM)
    assert answer.status_code == 409 and answer.json()["error"]["type"] == "model_not_loaded"


def test_an_event_leaves_when_it_is_made(lab: Lab) -> None:
    answer = ask(lab.server, lab.question())
    events = read(answer)
    so_far: list[Event] = []
    while '"}' not in texts(so_far):
        so_far.append(next(events))
    # The tool is at work, and will be until the test lets it end.
    lab.begun()
    while so_far[-1].kind != "ping":
        so_far.append(next(events))
    assert "step" not in kinds(so_far)
    lab.go_on()
    rest = list(events)
    assert kinds(rest) == ["step", "token", "answer"]


def test_a_stream_for_openais_clients_is_kept_alive(lab: Lab) -> None:
    for end_of_it in ("answered", "cancelled"):
        asked: dict[str, Any] = {"model": "hearth/react", "messages": [{"role": "user", "content": lab.question()}]}
        answer = lab.server.session.post("/v1/chat/completions", json={**asked, "stream": True}, stream=True)
        lines = (line for line in answer.iter_lines(chunk_size=1) if line)
        # No event shows what an agent thinks before its first step.
        lab.begun()
        assert [next(lines) for _ in range(2)] == [b": ping"] * 2
        if end_of_it == "answered":
            lab.go_on()
            chunks = [line.removeprefix(b"data: ") for line in lines if line != b": ping"]
            assert chunks[-1] == b"[DONE]"
            assert "1924" in [
                one["delta"].get("content") for chunk in chunks[:-1] for one in json.loads(chunk)["choices"]
            ]
        else:
            lab.server.session.delete(f"/runs/{lab.running()['run_id']}")
            [error] = [line for line in lines if line != b": ping"]
            assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "run_cancelled"
            lab.go_on()


def test_a_stream_is_resumed(lab: Lab) -> None:
    answer = ask(lab.server, lab.question(), detach=True)
    read_so_far: list[Event] = []
    for event in read(answer):
        read_so_far.append(event)
        if event.kind == "token":
            break
    run_id = read_so_far[0].data["run_id"]
    answer.close()
    lab.begun()

    def events(last: str | None) -> requests.Response:
        headers = {} if last is None else {"Last-Event-ID": last}
        return lab.server.session.get(f"/runs/{run_id}/events", headers=headers, stream=True)

    following = read(events(read_so_far[-1].id))
    assert next(following).kind == "ping"
    while (event := next(following)).kind != "ping":
        read_so_far.append(event)
    # There is no event until the tool ends, and the stream begins all the same.
    following = read(events(read_so_far[-1].id))
    assert next(following).kind == "ping"
    lab.go_on()
    rest = [event for event in following if event.kind != "ping"]
    assert kinds(rest) == ["step", "token", "answer"] and rest[-1].data["answer"] == "1924"
    again = list(read(events(None)))
    assert texts(read_so_far) + texts(rest) == texts(again)
    assert again[-1] == rest[-1]
    # It has ended, and its events can still be read.
    assert list(read(events(rest[-2].id)))[1:] == [rest[-1]]
    assert events(rest[-1].id).status_code == events("999").status_code == 204
    refused = events("x")
    assert refused.status_code == 422 and "Last-Event-ID" in refused.json()["error"]["message"]


def test_events_of_a_run_that_is_not_known(lab: Lab) -> None:
    answer = lab.server.session.get("/runs/0123456789abcdef/events")
    assert answer.status_code == 404 and answer.json()["error"]["type"] == "run_not_found"


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_client_that_goes_away_cancels_its_run(lab: Lab, accept: str) -> None:
    asked = connection(lab.server, accept, question=lab.question())
    lab.begun()
    run = lab.running()
    asked.close()
    ended = lab.ends(run["run_id"])
    assert ended["state"] == "cancelled"
    assert ended["error"]["type"] == "run_cancelled" and "detach" in ended["error"]["message"]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_client_that_goes_away_and_lets_its_run_go_on(lab: Lab, accept: str) -> None:
    asked = connection(lab.server, accept, question=lab.question(), detach=True)
    lab.begun()
    run = lab.running()
    asked.close()
    follower = read(lab.server.session.get(f"/runs/{run['run_id']}/events", stream=True))
    pings = (event for event in follower if event.kind == "ping")
    # The first comes at once; by the third the server has looked.
    for _ in range(3):
        next(pings)
    lab.go_on()
    assert lab.ends(run["run_id"])["answer"] == "1924"


def test_a_follower_that_goes_away_cancels_nothing(lab: Lab) -> None:
    asked = ask(lab.server, lab.question())
    lab.begun()
    following = lab.server.session.get(f"/runs/{lab.running()['run_id']}/events", stream=True)
    next(read(following))
    following.close()
    events = read(asked)
    next(event for event in events if event.kind == "ping")
    lab.go_on()
    assert [*events][-1].kind == "answer"


def test_a_reader_who_does_not_read_holds_nobody_up(lab: Lab) -> None:
    url = urlsplit(lab.server.url)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    slow.connect((url.hostname, url.port))
    body = json.dumps({"question": lab.question(), "detach": True}).encode()
    head = f"POST /run_script HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {lab.server.token}\r\n"
    slow.sendall(f"{head}Accept: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    lab.begun()
    run = lab.running()
    lab.go_on()
    assert lab.ends(run["run_id"])["state"] == "done"
    slow.close()


def test_the_loading_of_a_model_as_it_goes_on(start_server: Callable[..., Server], code_copy: Path) -> None:
    recipe = code_copy / "server" / "model.py"
    sound = recipe.read_text()
    recipe.write_text(SLOW_RECIPE)
    server = start_server(code=code_copy, ready=False, AUTOLOAD=0)

    def load() -> requests.Response:
        return server.session.post("/load_model", headers=EVENT_STREAM, stream=True)

    first, second = read(load()), read(load())
    for events in (first, second):
        assert any(event.data == {"stage": "waiting for the test", "done": 1, "total": 3} for event in events)
    (server.output_file.parent / "go_on").touch()
    for events in (first, second):
        [*_, last] = events
        assert (last.kind, last.data["type"]) == ("error", "model_load_failed")
    recipe.write_text(sound)
    assert server.session.post("/reload_modules").status_code == 200
    *progress, loaded = read(load())
    assert {event.kind for event in progress} == {"progress"}
    assert set(progress[0].data) == {"stage", "done", "total"}
    assert loaded.kind == "model" and loaded.data["model"]["state"] == "ready" and loaded.data["seconds"] > 0
    assert [event.kind for event in read(load())] == ["model"], "it is there"
