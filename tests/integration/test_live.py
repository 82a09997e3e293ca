"""`GET /events`: several topics over one connection; and `Prefer: respond-async`."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.server_process import Server


def events(server: Server, *follow: str) -> Iterator[dict[str, Any]]:
    """The events of a stream, one after the other."""
    with server.session.get("/events", params=[("follow", one) for one in follow], stream=True) as response:
        assert response.status_code == 200, response.text
        for line in response.iter_lines():
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))


def ask(server: Server, question: str) -> str:
    answer = server.session.post("/run_script", json={"question": question}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    run: str = answer.json()["run_id"]
    return run


def test_two_runs_over_one_connection(server: Server) -> None:
    runs = {"a": ask(server, "What is 37 * 52?"), "b": ask(server, "What is 6 * 7?")}
    answers: dict[str, str] = {}
    for event in events(server, *(f"{key}:0:run/{run}" for key, run in runs.items())):
        if event["kind"] == "answer":
            answers[event["key"]] = event["data"]["answer"]
        if len(answers) == len(runs):
            break
    assert answers == {"a": "1924", "b": "42"}


def test_a_reader_continues_after_the_last_event(server: Server) -> None:
    run = ask(server, "What is 37 * 52?")
    seen = []
    for event in events(server, f"x:0:run/{run}"):
        seen.append(event)
        if event["kind"] == "answer":
            break
    step = next(event for event in seen if event["kind"] == "step")
    again = next(events(server, f"y:{step['id']}:run/{run}"))
    assert again["id"] > step["id"]
    assert again["key"] == "y"


def test_what_is_missing_does_not_end_the_others(server: Server) -> None:
    found = events(server, "gone:0:run/0123456789abcdef", "load:0:load")
    kinds = [(event["key"], event["kind"]) for event, _ in zip(found, range(2), strict=False)]
    assert kinds == [("gone", "missing"), ("load", "sample")]


@pytest.mark.parametrize("follow", ["", "1", "1:x:load", "1:0:", "1:-1:load"])
def test_a_wish_that_can_not_be_read_is_refused(server: Server, follow: str) -> None:
    answer = server.session.get("/events", params={"follow": follow})
    assert answer.status_code == 422, answer.text
    assert "KEY:AFTER:TOPIC" in answer.json()["error"]["message"]


def test_the_load_names_the_model(server: Server) -> None:
    shown = server.session.get("/load").json()
    assert shown["sample"]["model"]["name"] == "embedded"
    assert isinstance(shown["history"], list)
