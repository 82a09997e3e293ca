"""A real HTTP server over the embedded model that speaks vendors' APIs (wire_formats.py): what is asked of it is
decoded, and it fails in the ways that theirs do."""

import json
import re
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.support.wire_formats import Request, WireFormat, spoken_at

if TYPE_CHECKING:
    from server.engine import GuidedEngine

OBSERVED = re.compile("Observation:")


@dataclass(frozen=True)
class Fault:
    """How a request goes wrong. `status` is answered at once. In the middle of the reply `broken` closes the
    connection, `cut` ends it as if all were well, `failing` sends an error, and `slow` goes no further until the
    client leaves or the server ends. `withheld` replies with a half and says that there is no more, `refused` says so
    at once. `empty` replies with nothing, and `garbled` with the reply's characters in their order in Unicode."""

    kind: str = "status"
    status: int = 500
    message: str = "something went wrong"
    headers: Mapping[str, str] = field(default_factory=dict)


class ModelApi:
    """The server. `accepts`: the keys that it takes; empty: any. `schemas`: `taken`, `refused`, or `ignored`.

    `faults` are met one a request, the first first. `asked` has the bodies of all requests that came.
    """

    def __init__(self, engine: "GuidedEngine", accepts: Collection[str] = (), schemas: str = "taken") -> None:
        self.engine = engine
        self.accepts = accepts
        self.schemas = schemas
        self.faults: deque[Fault] = deque()
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        """The keys that came with them."""
        self.counted: list[tuple[int, int]] = []
        """The tokens of what was read and written for each reply."""
        self.left = threading.Event()
        """Set when a client closed the connection during a slow reply."""
        self.waiting = threading.Event()
        """Set when a slow reply has begun."""
        self.ending = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": self}))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["ModelApi"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.ending.set()
            self._server.shutdown()
            self._server.server_close()

    def reply(self, request: Request) -> tuple[str, int, int]:
        """What the embedded model writes, and the tokens of the conversation and of the reply."""
        from server.sdk import usage

        schema = request.schema if self.schemas == "taken" else None
        turns = [{**turn, "content": _as_learned(turn["content"])} for turn in request.messages]
        # It learned to call tools within one turn of its own: what it read of them stands in it.
        *_, asked = (
            at for at, turn in enumerate(turns) if turn["role"] == "user" and not OBSERVED.match(turn["content"])
        )
        tokenizer = self.engine.tokenizer
        prompt = tokenizer.render_chat(turns[: asked + 1])
        prompt += "".join(tokenizer.protect(turn["content"]) + "\n" for turn in turns[asked + 1 :])
        with usage.measured() as used:
            if schema is not None and "step" in schema["properties"]:
                text = _step(self.engine, prompt, schema, request.limit)
            else:
                text = self.engine.write(prompt, request.limit, request.stop, schema)
        return tokenizer.reveal(text), used.prompt_tokens, used.completion_tokens + used.forced_tokens


def _as_learned(said: str) -> str:
    """A step that was written as JSON, in the words in which the embedded model learned to write it."""
    try:
        act = json.loads(said)
        step = act["step"]
    except (ValueError, KeyError, TypeError):
        return said
    if "answer" in step:
        return f"Thought: {act['thought']}\nAnswer: {step['answer']}"
    call = f"Thought: {act['thought']}\nAction: {step['action']}"
    return call + (f"\nAction Input: {json.dumps(step['action_input'])}" if "action_input" in step else "")


def _step(engine: "GuidedEngine", prompt: str, schema: Mapping[str, Any], limit: int) -> str:
    """A step of an agent that fits `schema`, decoded in the embedded model's words and sent as JSON."""
    import guidance
    from guidance import gen, select
    from guidance.library import capture

    choices = []
    for number, option in enumerate(schema["properties"]["step"]["anyOf"]):
        parts = option["properties"]
        if "answer" in parts:
            choices.append("\nAnswer: " + gen("answer", max_tokens=limit // 2))
            continue
        choice = "\nAction: " + capture(select(parts["action"]["enum"]), "tool")
        if "action_input" in parts:
            given = {**parts["action_input"], "$defs": schema.get("$defs", {})}
            choice += "\nAction Input: " + guidance.json(
                f"input_{number}", schema=given, max_tokens=limit // 2, lenient=True
            )
        choices.append(choice)
    lm = (
        engine.program()
        + guidance.string(prompt)
        + "Thought: "
        + gen("thought", regex=r"[^\n]+", max_tokens=limit // 4)
        + select(choices)
    )
    if "answer" in lm:
        step: dict[str, Any] = {"answer": lm["answer"]}
    else:
        step = {"action": lm["tool"]}
        for number in range(len(choices)):
            if f"input_{number}" in lm:
                step["action_input"] = json.loads(lm[f"input_{number}"])
    return json.dumps({"thought": lm["thought"], "step": step}, ensure_ascii=False)


class _Handler(BaseHTTPRequestHandler):
    api: ModelApi
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        api, spoken = self.api, spoken_at(self.path)
        if spoken is None:
            return self.send_error(404)
        api.asked.append(body)
        key = spoken.key(self.headers)
        api.keys.append(key)
        if api.accepts and key not in api.accepts:
            # As careless as a vendor may be.
            status, message = spoken.bad_key
            return self._refuse(spoken, status, message.format(key=key))
        fault = api.faults.popleft() if api.faults else None
        if fault is not None and fault.kind == "status":
            return self._refuse(spoken, fault.status, fault.message.format(key=key), fault.headers)
        request = spoken.request(self.path, body)
        if request.model == "missing":
            return self._refuse(spoken, *spoken.no_model)
        if request.schema is not None and api.schemas == "refused":
            return self._refuse(spoken, 400, "this model does not support structured output")
        used = sum(api.engine.tokenizer.count(message["content"]) for message in request.messages)
        if used + request.limit > api.engine.context_length:
            longest = f"This model's maximum context length is {api.engine.context_length} tokens"
            return self._refuse(spoken, 400, f"{longest}, and you asked for more.")
        text, read, written = api.reply(request)
        api.counted.append((read, written))
        end = spoken.limit if written >= request.limit else spoken.whole
        replies = {"empty": "", "refused": "", "garbled": "".join(sorted(text)), "withheld": text[: len(text) // 2]}
        if fault is not None and fault.kind in replies:
            text = replies[fault.kind]
            end, fault = spoken.refused if fault.kind in ("refused", "withheld") else end, None
        self._stream(spoken, list(spoken.events(text, read, written, end)), fault)

    def _refuse(self, spoken: WireFormat, status: int, message: str, headers: Mapping[str, str] = {}) -> None:
        data = json.dumps(spoken.error(status, message, headers.get("Retry-After"))).encode()
        self.send_response(status)
        sent = {name: value for name, value in headers.items() if spoken.has_retry_after or name != "Retry-After"}
        for name, value in {**sent, "Content-Type": "application/json", "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, spoken: WireFormat, events: list[str], fault: Fault | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", spoken.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, event in enumerate(events):
            if fault is not None and number == len(events) // 2:
                self.close_connection = True
                if fault.kind == "broken":
                    return
                if fault.kind == "failing":
                    self._send(spoken.event_of(spoken.error(fault.status, fault.message, None)).encode())
                if fault.kind in ("cut", "failing"):
                    break
                self.api.waiting.set()
                if self._client_leaves():
                    self.api.left.set()
                return
            self._send(event.encode())
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _client_leaves(self) -> bool:
        """Waits until the client closes the connection, or the server ends."""
        self.connection.settimeout(0.05)
        while not self.api.ending.is_set():
            try:
                return bool(self.connection.recv(1) == b"")
            except TimeoutError:
                continue
            except OSError:
                return True
        return False
