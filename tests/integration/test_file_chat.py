"""Questions that bring files, and the paths of the older LLM API."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.server_process import REPOSITORY, Server, end, start
from tests.support.uploads import FORM, data_folder, folder_of, part, unfinished, upload

QUESTION = "What is 37 * 52?"
PATHS = ["/v1/chat/completions", "/api/chat/completions"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the embedded model; each test uses sessions of its own."""
    server = start(tmp_path_factory.mktemp("chat") / "server", REPOSITORY, {})
    try:
        server.wait_until_ready()
        yield server
        assert unfinished(server) == []
    finally:
        end(server)


def messages(*texts: str) -> str:
    return json.dumps([{"role": "user", "content": text} for text in texts])


def ask(server: Server, path: str, fields: dict[str, str], *files: tuple[str, bytes]) -> requests.Response:
    """Ask with a form."""
    parts: list[Any] = [(name, (None, text)) for name, text in fields.items()]
    return server.session.post(path, files=parts + [("files", file) for file in files])


def session_folders(server: Server) -> set[str]:
    return set(os.listdir(data_folder(server) / "sessions"))


@pytest.mark.parametrize("path", PATHS)
def test_a_question_with_files(lab: Server, path: str) -> None:
    files = (("sales.csv", b"a,b\n" * 300), ("sales.csv", b"other"), ("x\u202e/\u200bplot", b"\x89PNG\r\n\x1a\n"))
    answer = ask(lab, path, {"messages": messages(QUESTION), "agent_type": "react"}, *files)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["object"] == "chat.completion" and body["model"] == "hearth/react"
    assert body["choices"][0]["message"]["content"]
    session = body["x_session_id"]
    assert sorted(os.listdir(folder_of(lab, session))) == ["plot", "sales-2.csv", "sales.csv"]
    record = lab.session.get(f"/runs/{body['x_hearth']['run_id']}").json()
    assert record["question"] == (
        f"{QUESTION}\n\nFiles in this session: sales.csv (CSV, 1.2 kB), sales-2.csv (CSV, 5 B; uploaded as "
        "sales.csv), plot (PNG, 8 B; uploaded as x?/?plot)"
    )
    assert record["session_id"] == session
    # The next one continues it.
    again = ask(lab, path, {"messages": messages("What is 9 * 9?"), "session_id": session, "agent_type": "react"})
    assert again.json()["x_session_id"] == session
    assert lab.session.get(f"/sessions/{session}").json()["turns"] == 2
    assert lab.session.delete(f"/sessions/{session}").status_code == 200
    assert not folder_of(lab, session).exists()


def test_a_stream_names_the_session(lab: Server) -> None:
    fields = {"messages": messages(QUESTION), "stream": "true", "agent_type": "react", "model": "embedded"}
    answer = ask(lab, PATHS[0], fields, ("a.txt", b"1"))
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    *chunks, last = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert last == "[DONE]"
    [session] = {json.loads(chunk)["x_session_id"] for chunk in chunks}
    assert os.listdir(folder_of(lab, session)) == ["a.txt"]


def test_a_new_session_may_begin_with_a_history(lab: Server) -> None:
    said = json.dumps(
        [
            {"role": "user", "content": "My name is Ada."},
            {"role": "assistant", "content": "Hello Ada."},
            {"role": "user", "content": QUESTION},
        ]
    )
    first = ask(lab, PATHS[1], {"messages": said, "agent_type": "react"}, ("a.txt", b"1"))
    assert first.status_code == 200, first.text
    known = ask(lab, PATHS[1], {"messages": said, "agent_type": "react", "session_id": first.json()["x_session_id"]})
    assert known.status_code == 400 and known.json()["error"]["param"] == "x_session_id"


@pytest.mark.parametrize("size", [499_000, 1_000_000])
def test_a_field_of_a_megabyte(lab: Server, size: int) -> None:
    answer = ask(lab, PATHS[0], {"messages": messages("x" * size), "agent_type": "react"}, ("a.txt", b"1"))
    # It is read in full; it does not fit into the embedded model's window.
    assert answer.json()["error"]["code"] == "context_length_exceeded", answer.text


def test_a_field_over_the_limit(lab: Server) -> None:
    answer = ask(lab, PATHS[0], {"messages": messages("x" * (2 * 2**20))}, ("a.txt", b"1"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "HEARTH_MAX_BODY_BYTES" in answer.text


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 400, None),
        ({"messages": "Hi"}, 400, None),
        ({"messages": "[]"}, 400, "messages"),
        ({"messages": '{"role": "user"}'}, 400, "messages"),
        ({"messages": messages(" ")}, 400, "messages"),
        ({"messages": messages(QUESTION), "agent_type": "nobody"}, 400, "agent_type"),
        ({"messages": messages(QUESTION), "model": "hearth/nobody"}, 404, "model"),
        ({"messages": messages(QUESTION), "model": "nobody"}, 404, None),
        ({"messages": messages(QUESTION), "session_id": "../x"}, 400, "session_id"),
        ({"messages": messages(QUESTION), "stream": "perhaps"}, 400, "stream"),
        ({"messages": messages(QUESTION), "x_workspace": "nobody"}, 404, None),
        ({"messages": messages(QUESTION), "surprise": "1"}, 400, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", PATHS)
def test_a_refused_question_leaves_no_files(
    lab: Server, path: str, fields: dict[str, str], status: int, param: str | None
) -> None:
    before = session_folders(lab)
    answer = ask(lab, path, fields, ("a.txt", b"1"))
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert session_folders(lab) == before and unfinished(lab) == []


def test_a_broken_form_has_openais_shape(lab: Server) -> None:
    for path in PATHS:
        answer = lab.session.post(path, data=part("files", b"1", "a"), headers={"Content-Type": FORM})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_form")
        assert requests.post(lab.url + path, data=b"x", headers={"Content-Type": FORM}, timeout=20).status_code == 401


# The older LLM API


def test_a_message_and_the_next_one(lab: Server) -> None:
    first = lab.session.post("/api/chat", json={"message": QUESTION, "user_id": "ada", "agent_type": "react"}).json()
    assert first["choices"][0]["message"]["content"] == "1924"
    session = first["x_session_id"]
    second = lab.session.post("/api/chat", json={"message": "What is 9 * 9?", "session_id": session}).json()
    assert second["x_session_id"] == session
    said = lab.session.get(f"/sessions/{session}").json()["messages"]
    assert [one["content"] for one in said][:3] == [QUESTION, "1924", "What is 9 * 9?"]
    assert session in [one["session_id"] for one in lab.session.get("/api/conversations").json()["sessions"]]
    assert lab.session.get("/api/conversations").json() == lab.session.get("/sessions").json()


@pytest.mark.parametrize("agent", ["auto", "react", "plan_execute", "chat"])
def test_each_agent(lab: Server, agent: str) -> None:
    body: Any = {"messages": [{"role": "user", "content": QUESTION}], "agent_type": agent}
    answer = lab.session.post("/api/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == f"hearth/{agent}" and answer.json()["x_session_id"]


@pytest.mark.parametrize("body", [{}, {"message": ""}, {"message": 3}, {"message": "x", "session_id": "/"}])
def test_errors_have_openais_shape(lab: Server, body: dict[str, Any]) -> None:
    answer = lab.session.post("/api/chat", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_an_upload_may_make_a_session(lab: Server) -> None:
    new = lab.session.post("/api/upload", files=[("files", ("a.txt", b"1"))])
    assert new.status_code == 201, new.text
    session = new.json()["session_id"]
    assert lab.session.get(f"/sessions/{session}/files/a.txt").content == b"1"
    fields: list[Any] = [("session_id", (None, session)), ("files", ("a.txt", b"2"))]
    again = lab.session.post("/api/upload", files=fields).json()
    assert (again["session_id"], again["files"][0]["name"]) == (session, "a-2.txt")
    bad: list[Any] = [[("session_id", (None, "../x")), ("files", ("a", b"2"))], [("session_id", (None, session))]]
    for fields in bad:
        answer = lab.session.post("/api/upload", files=fields)
        assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid_request")
    assert upload(lab, session, ("b.txt", b"3")).status_code == 201
