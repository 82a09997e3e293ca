"""Reading a stream of server-sent events, as a client does."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests

from tests.support.server_process import Server

EVENT_STREAM = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Event:
    """An event; `kind` is `ping` for a comment."""

    id: str | None
    kind: str
    data: Any


def read(answer: requests.Response) -> Iterator[Event]:
    """The events of an answer, each as soon as it is there."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    fields: dict[str, str] = {}
    for line in answer.iter_lines(chunk_size=1):
        name, _, value = line.decode("ascii").partition(":")
        if not name:
            if not line:
                if fields:
                    yield Event(fields.get("id"), fields["event"], json.loads(fields["data"]))
                fields = {}
            else:
                yield Event(None, "ping", value.strip())
        else:
            fields[name] = value.strip()


def ask(server: Server, question: str, **more: Any) -> requests.Response:
    """A question whose events are to be read."""
    return server.session.post("/run_script", json={"question": question, **more}, headers=EVENT_STREAM, stream=True)
