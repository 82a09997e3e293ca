"""The clients of a chaos run: what they ask, and whether what comes back is right, or an error that says why."""

import itertools
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.support.chaos_ledger import Ledger, error_of
from tests.support.event_stream import EVENT_STREAM, Event, read
from tests.support.isolation_cases import AGENT
from tests.support.server_process import Server, Session
from tests.support.waiting_lab import connection

ECHO = '''
import os
import re
import time

from langchain_core.tools import tool


@tool
def trouble(expression: str) -> str:
    """Do what is said."""
    what, _, rest = expression.partition(" ")
    if what == "crash":
        os._exit(9)
    if what == "raise":
        raise ValueError(1_000_000 * rest)
    if what == "sleep":
        time.sleep(1)
    if what == "block":
        re.match("(a+)+$", 40 * "a" + "b")
    return rest.upper()
'''
EDITED = '''
from langchain_core.tools import tool


@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression, like `2 * (3 + 4)` or `sqrt(2)`."""
    return "{answer}"
'''
BROKEN = ("broken(", "1 / 0", "import no_such", "import os; os._exit(3)")
HOSTILE_SCHEMA = {"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000_000}
LONG_PROMPT = 1_900_000 * "x"
LOOKS = ("/health", "/metrics", "/runs?limit=50", "/generations?limit=50", "/workspaces", "/tools", "/sessions")
SECONDS_BETWEEN = 0.0, 2.0
BEFORE_CANCEL = 0.0, 2.0
EVENTS_READ = 1, 12
"""Events that one who leaves or cancels reads before."""
HONEST = frozenset({"queue_full", "worker_crashed", "worker_unavailable", "storage_failed"})
"""Codes of errors that any question may end with while things go wrong."""
BROKEN_CODE = HONEST | {"reload_failed"}


class Client(threading.Thread):
    """Does one thing after the other until it is ended. Each has a `way` of its own."""

    def __init__(self, server: Server, ledger: Ledger, seed: str, over: threading.Event) -> None:
        super().__init__(name=seed, daemon=True)
        self.server = server
        self.ledger = ledger
        self.rng = random.Random(seed)
        self.over = over

    def run(self) -> None:
        while not self.over.wait(self.rng.uniform(*SECONDS_BETWEEN)):
            way = self.choose()
            name = way.__name__.removeprefix("_")
            try:
                with Session(self.server.url, self.server.token) as session:
                    self.ledger.count(name, way(session))
            except Exception as failure:  # boundary: whatever it is, it is reported
                self.ledger.fail(f"{self.name} {name}: {type(failure).__name__}: {str(failure)[:2000]}")

    def choose(self) -> Callable[[Session], str]:
        """The next thing to do: a method that returns how it ended."""
        raise NotImplementedError

    def ended(self, answer: requests.Response, allowed: frozenset[str]) -> str | None:
        """The code of an error that is allowed; None for an answer."""
        return None if answer.ok else error_of(answer, allowed)


class Asker(Client):
    """Asks in every way that there is: waits, streams, leaves, cancels, over `/v1`, or something else altogether."""

    def __init__(
        self,
        server: Server,
        ledger: Ledger,
        seed: str,
        over: threading.Event,
        right: Mapping[str, str],
        edited: list[str],
    ) -> None:
        """`right`: the answers to questions at `main`. `edited`: workspaces that others edit."""
        super().__init__(server, ledger, seed, over)
        self._right = right
        self._edited = edited
        self._sessions = itertools.count()
        self._ways = {
            self._ask: 25, self._ask_edited: 15, self._stream: 15, self._leave: 8, self._cancel: 8, self._detach: 3,
            self._chat: 8, self._chat_stream: 5, self._complete: 4, self._trouble: 4, self._talk: 6, self._replay: 2,
            self._hostile: 8, self._break_off: 3, self._look: 8,
        }  # fmt: skip

    def choose(self) -> Callable[[Session], str]:
        """See `Client`."""
        [way] = self.rng.choices(list(self._ways), list(self._ways.values()))
        return way

    def _question(self) -> tuple[str, str]:
        return self.rng.choice(list(self._right.items()))

    def _ask(self, session: Session) -> str:
        question, right = self._question()
        answer = session.post("/run_script", json={"question": question})
        if error := self.ended(answer, HONEST):
            return error
        self.ledger.answered(answer.json(), right)
        return "answered"

    def _ask_edited(self, session: Session) -> str:
        body = {"question": "What is 37 * 52?", "workspace": self.rng.choice(self._edited)}
        answer = session.post("/run_script", json=body)
        if error := self.ended(answer, BROKEN_CODE):
            return error
        self.ledger.answered_by_code(answer.json())
        return "answered"

    def _events(self, session: Session, body: dict[str, Any]) -> requests.Response:
        return session.post("/run_script", json=body, headers=EVENT_STREAM, stream=True)

    def _stream(self, session: Session) -> str:
        question, right = self._question()
        with closing(self._events(session, {"question": question})) as answer:
            if error := self.ended(answer, HONEST):
                return error
            return self._last(in_order(read(answer)), right, HONEST)

    def _last(self, events: Iterator[Event], right: str | None, allowed: frozenset[str]) -> str:
        """Read to the end, and note what the last event says."""
        run = None
        for event in events:
            if event.kind in ("queued", "started"):
                run = event.data["run_id"]
            if event.kind == "answer":
                self.ledger.answered(event.data, right)
                return "answered"
            if event.kind == "error":
                kind: str = event.data["type"]
                assert kind in allowed, event.data
                if run is not None:
                    self.ledger.failed(run, kind, "not_recorded" in event.data)
                return kind
        raise AssertionError("a stream without an end")

    def _leave(self, session: Session) -> str:
        return self._read_some(session, lambda run: None)

    def _cancel(self, session: Session) -> str:
        def cancel(run: str) -> None:
            self.over.wait(self.rng.uniform(*BEFORE_CANCEL))
            deleted = session.delete(f"/runs/{run}")
            if not deleted.ok:
                error_of(deleted, frozenset({"run_not_found"}))

        return self._read_some(session, cancel)

    def _detach(self, session: Session) -> str:
        return self._read_some(session, lambda run: None, detach=True)

    def _read_some(self, session: Session, then: Callable[[str], None], **body: Any) -> str:
        """Read a few events, do something with the run, close the connection, and follow the run to its end."""
        question, right = self._question()
        with closing(self._events(session, {"question": question, **body})) as answer:
            if error := self.ended(answer, HONEST):
                return error
            events = [event for event, _ in zip(read(answer), range(self.rng.randint(*EVENTS_READ)), strict=False)]
            run = next((one.data["run_id"] for one in events if one.kind in ("queued", "started")), None)
            if run is None:
                return "nothing read"
            then(run)
        followed = session.get(f"/runs/{run}/events", headers=EVENT_STREAM, stream=True)
        with closing(followed):
            if not followed.ok:
                self.ledger.unknown(run)
                return error_of(followed, frozenset({"run_not_found", "queue_full"}))
            allowed = HONEST if body else HONEST | {"run_cancelled"}
            return self._last(in_order(read(followed)), right, allowed)

    def _chat(self, session: Session) -> str:
        question, right = self._question()
        body: dict[str, Any] = {"model": "hearth/react", "messages": [{"role": "user", "content": question}]}
        answer = session.post("/v1/chat/completions", json=body)
        if error := self.ended(answer, HONEST):
            return error
        found = answer.json()
        text = found["choices"][0]["message"]["content"]
        self.ledger.answered({**found["x_hearth"], "answer": text}, right)
        return "answered"

    def _chat_stream(self, session: Session) -> str:
        question, right = self._question()
        messages = [{"role": "user", "content": question}]
        body: dict[str, Any] = {"model": "hearth/react", "messages": messages, "stream": True}
        text, ended = "", False
        with closing(session.post("/v1/chat/completions", json=body, stream=True)) as answer:
            if error := self.ended(answer, HONEST):
                return error
            for line in answer.iter_lines():
                if not line.startswith(b"data: "):
                    continue
                if line == b"data: [DONE]":
                    ended = True
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    assert chunk["error"]["code"] in HONEST, chunk
                    return str(chunk["error"]["code"])
                for choice in chunk["choices"]:
                    text += choice["delta"].get("content") or ""
        assert ended, "a stream without its end"
        assert text == right, f"{question}: {text!r} and not {right!r}"
        return "answered"

    def _complete(self, session: Session) -> str:
        """The model alone, held to a schema that has one text."""
        text = f"{self.rng.randint(0, 99)}"
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": text}}}
        messages = [{"role": "user", "content": "Write."}]
        body: dict[str, Any] = {"model": "hearth", "messages": messages, "response_format": schema, "max_tokens": 40}
        answer = session.post("/v1/chat/completions", json=body)
        if error := self.ended(answer, HONEST):
            return error
        found = answer.json()
        shown = found["choices"][0]["message"]["content"]
        assert json.loads(shown) == text, f"{shown} and not {text!r}"
        return "answered"

    def _trouble(self, session: Session) -> str:
        """Code that crashes, raises, sleeps, or blocks its worker; others of the workspace crash with it."""
        what = self.rng.choice(("crash", "raise", "sleep", "block", "echo"))
        body = {"question": f"{what} word", "workspace": "trouble", "agent": "direct"}
        answer = session.post("/run_script", json=body)
        if error := self.ended(answer, BROKEN_CODE):
            return error
        found = answer.json()
        if what in ("sleep", "echo"):
            self.ledger.answered(found, "WORD")
        elif what == "raise":
            assert found["answer"].startswith("ValueError"), found["answer"][:200]
        else:
            assert what == "block" and "did not answer within" in found["answer"], found["answer"][:200]
        return f"{what} answered"

    def _talk(self, session: Session) -> str:
        """Two questions of a session: its own messages are all that was answered, in order."""
        name = f"{self.name}-{next(self._sessions)}"
        said: list[tuple[str, str]] = []
        perhaps: list[tuple[str, str]] = []
        for number in range(2):
            question = f"echo {name} {number}"
            body = {"question": question, "workspace": "echo", "agent": "direct", "session_id": name}
            answer = session.post("/run_script", json=body)
            if self.ended(answer, BROKEN_CODE):
                continue
            found = answer.json()
            self.ledger.answered(found, f"{name} {number}".upper())
            (perhaps if "not_recorded" in found else said).append((question, found["answer"]))
        self.ledger.talked(name, said, perhaps)
        return f"{len(said)} said"

    def _replay(self, session: Session) -> str:
        run = self.ledger.some_run(self.rng)
        if run is None:
            return "nothing to replay"
        answer = session.post(f"/runs/{run}/replay")
        if error := self.ended(answer, BROKEN_CODE | {"run_not_found"}):
            return error
        assert answer.json()["same_answer"], answer.text[:1000]
        return "the same"

    def _hostile(self, session: Session) -> str:
        """What no client should send."""
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": HOSTILE_SCHEMA}}
        words = {"model": "hearth", "messages": [{"role": "user", "content": "Write."}], "max_tokens": 4}
        requested: list[tuple[str, dict[str, Any], set[str]]] = [
            ("/run_script", {"data": b"{"}, {"malformed_json"}),
            ("/run_script", {"data": b"\xff" * 1000}, {"malformed_json"}),
            ("/run_script", {"json": {"question": 5}}, {"invalid_request"}),
            ("/run_script", {"json": {"question": "x", "agent": "nobody"}}, {"agent_not_found"}),
            ("/run_script", {"json": {"question": "x", "workspace": "nobody"}}, {"workspace_not_found"}),
            ("/run_script", {"json": {"question": "word " * 20_000}}, {"prompt_too_long"}),
            ("/run_script", {"data": b"x" * 3_000_000}, {"too_large"}),
            ("/nowhere", {"json": {}}, {"not_found"}),
            ("/v1/chat/completions", {"json": {**words, "model": "nobody"}}, {"model_not_found"}),
            ("/v1/chat/completions", {"json": {**words, "response_format": schema}}, {"grammar_too_complex", ""}),
            (
                "/v1/completions",
                {"json": {"model": "hearth", "prompt": LONG_PROMPT}},
                {"context_length_exceeded"},
            ),
            ("/reload_modules", {"json": {"workspace": "../.."}}, {"workspace_not_found", "invalid_request"}),
        ]
        path, body, kinds = self.rng.choice(requested)
        answer = session.post(path, **body)
        # A grammar may also do without what it can't say.
        return "answered" if answer.ok and "" in kinds else error_of(answer, HONEST | kinds)

    def _break_off(self, session: Session) -> str:
        """A question, or half of one, and a closed connection."""
        if self.rng.random() < 0.5:
            connection(self.server, "application/json", question=self._question()[0]).close()
            return "left"
        url = urlsplit(self.server.url)
        with socket.create_connection((url.hostname, url.port or 0), timeout=60) as half:
            half.sendall(b"POST /run_script HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        return "half"

    def _look(self, session: Session) -> str:
        path = self.rng.choice(LOOKS)
        return self.ended(session.get(path), frozenset({"storage_failed"})) or "shown"


class Author(Client):
    """Edits the calculator of one workspace, in good and bad ways, and reloads it."""

    def __init__(self, server: Server, ledger: Ledger, seed: str, over: threading.Event, workspace: str) -> None:
        super().__init__(server, ledger, seed, over)
        self._workspace = workspace
        self._edits = 0

    def choose(self) -> Callable[[Session], str]:
        """See `Client`."""
        return self.rng.choices([self._edit, self._upload], [4, 1])[0]

    def _edit(self, session: Session) -> str:
        broken = self.rng.choice(BROKEN) if self.rng.random() < 0.3 else ""
        self._edits += 1
        text = f"{self._workspace} {self._edits}"
        path = f"/workspaces/{self._workspace}/files/tools/calculator.py"
        put = session.put(path, data=(EDITED.format(answer=text) + broken).encode())
        if error := self.ended(put, frozenset({"storage_failed"})):
            return f"not written: {error}"
        reloaded = session.post("/reload_modules", json={"workspace": self._workspace})
        if error := self.ended(reloaded, BROKEN_CODE):
            return f"{'broken' if broken else 'good'}: {error}"
        assert not broken, f"{broken} was loaded: {reloaded.text[:1000]}"
        self.ledger.loaded(reloaded.json()["generation"], text)
        return "loaded"

    def _upload(self, session: Session) -> str:
        path, data = f"/workspaces/{self._workspace}/files/tools/data.bin", self.rng.randbytes(50_000)
        if error := self.ended(session.put(path, data=data), frozenset({"storage_failed"})):
            return f"not written: {error}"
        assert session.get(path).content == data, "the file is not what was written"
        return "written"


def in_order(events: Iterator[Event]) -> Iterator[Event]:
    """The events, which must have rising numbers."""
    last = 0
    for event in events:
        if event.id is not None:
            assert int(event.id) > last, f"event {event.id} after {last}"
            last = int(event.id)
        yield event


def write_code(server: Server, ledger: Ledger, edited: list[str]) -> None:
    """The workspaces of the clients: `echo` and `trouble` with an agent that does what it is asked, and those that
    are edited."""
    session = server.session
    for name in ("echo", "trouble"):
        session.put(f"/workspaces/{name}/files/agent/direct.py", data=AGENT.encode()).raise_for_status()
        session.put(f"/workspaces/{name}/files/tools/trouble.py", data=ECHO.encode()).raise_for_status()
        session.post("/reload_modules", json={"workspace": name}).raise_for_status()
    for name in edited:
        text = EDITED.format(answer=f"{name} 0").encode()
        session.put(f"/workspaces/{name}/files/tools/calculator.py", data=text).raise_for_status()
        reloaded = session.post("/reload_modules", json={"workspace": name})
        reloaded.raise_for_status()
        ledger.loaded(reloaded.json()["generation"], f"{name} 0")
