"""A real HTTP server over the embedded model that speaks OpenAI's chat completions and Anthropic's messages: what is
asked of it is decoded, and it fails in the ways that vendors do."""

import json
import re
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.engine import GuidedEngine

OBSERVED = re.compile("Observation:")
PIECE = 6
"""Characters of a reply that are sent at a time."""


@dataclass(frozen=True)
class Fault:
    """How a request goes wrong. `status` is answered at once. In the middle of the reply `broken` closes the
    connection, `cut` ends it as if all were well, and `slow` goes no further until the client leaves or the server
    ends. `empty` replies with nothing, `garbled` with the reply from its end to its beginning."""

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

    def reply(self, messages: list[dict[str, Any]], limit: int, stop: list[str], schema: Any) -> tuple[str, int, int]:
        """What the embedded model writes, and the tokens of the conversation and of the reply."""
        from server.engine import usage

        turns = [{"role": one["role"], "content": _as_learned(_text(one["content"]))} for one in messages]
        # It learned to call tools within one turn of its own: what it read of them stands in it.
        *_, asked = (
            at for at, turn in enumerate(turns) if turn["role"] == "user" and not OBSERVED.match(turn["content"])
        )
        tokenizer = self.engine.tokenizer
        prompt = tokenizer.render_chat(turns[: asked + 1])
        prompt += "".join(tokenizer.protect(turn["content"]) + "\n" for turn in turns[asked + 1 :])
        with usage.measured() as used:
            if schema is not None and "step" in schema["properties"]:
                text = _step(self.engine, prompt, schema, limit)
            else:
                text = self.engine.write(prompt, limit, stop, schema)
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
    """A step of an agent that fits `schema`, decoded in the embedded model's words and told as JSON."""
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


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class _Handler(BaseHTTPRequestHandler):
    api: ModelApi
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        api = self.api
        api.asked.append(body)
        speaks_anthropic = self.path.endswith("/v1/messages")
        key = self.headers.get("x-api-key") or self.headers.get("Authorization", "").removeprefix("Bearer ")
        api.keys.append(key)
        if api.accepts and key not in api.accepts:
            # As careless as a vendor may be.
            return self._refuse(401, f"Incorrect API key provided: {key}. You can find your key in the console.")
        fault = api.faults.popleft() if api.faults else None
        if fault is not None and fault.kind == "status":
            return self._refuse(fault.status, fault.message.format(key=key), fault.headers)
        if body["model"] == "missing":
            return self._refuse(404, "The model `missing` does not exist or you do not have access to it.")
        if speaks_anthropic:
            schema = body.get("output_config", {}).get("format", {}).get("schema")
            system = body.get("system", [])
            messages = ([{"role": "system", "content": system}] if system else []) + body["messages"]
            stop = body.get("stop_sequences", [])
        else:
            schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
            messages, stop = body["messages"], body.get("stop") or []
        if schema is not None and api.schemas == "refused":
            return self._refuse(400, "this model does not support structured output")
        limit = body.get("max_tokens") or body["max_completion_tokens"]
        used = sum(api.engine.tokenizer.count(_text(message["content"])) for message in messages)
        if used + limit > api.engine.context_length:
            return self._refuse(
                400,
                f"This model's maximum context length is {api.engine.context_length} tokens, and you asked for more.",
            )
        text, read, written = api.reply(messages, limit, stop, schema if api.schemas == "taken" else None)
        if fault is not None and fault.kind in ("empty", "garbled"):
            text, fault = "" if fault.kind == "empty" else text[::-1], None
        events = (_anthropic if speaks_anthropic else _openai)(text, read, written, limit)
        self._stream(list(events), fault)

    def _refuse(self, status: int, message: str, headers: Mapping[str, str] = {}) -> None:
        data = json.dumps({"type": "error", "error": {"type": "error", "message": message}}).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: list[str], fault: Fault | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, event in enumerate(events):
            if fault is not None and number == len(events) // 2:
                self.close_connection = True
                if fault.kind == "broken":
                    return
                if fault.kind == "cut":
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
                return self.connection.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                return True
        return False


def _pieces(text: str) -> Iterator[str]:
    for at in range(0, len(text), PIECE):
        yield text[at : at + PIECE]


def _openai(text: str, read: int, written: int, limit: int) -> Iterator[str]:
    def chunk(**more: Any) -> str:
        known = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "embedded"}
        return f"data: {json.dumps({**known, **more})}\n\n"

    def delta(end: str | None = None, **changed: Any) -> str:
        return chunk(choices=[{"index": 0, "delta": changed, "finish_reason": end}])

    yield delta(role="assistant", content="")
    for piece in _pieces(text):
        yield delta(content=piece)
    yield delta("length" if written >= limit else "stop")
    yield chunk(
        choices=[], usage={"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    )
    yield "data: [DONE]\n\n"


def _anthropic(text: str, read: int, written: int, limit: int) -> Iterator[str]:
    def event(kind: str, **more: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n"

    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "embedded", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": read, "output_tokens": 1},
    }  # fmt: skip
    yield event("message_start", message=message)
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for piece in _pieces(text):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
    yield event("content_block_stop", index=0)
    end = "max_tokens" if written >= limit else "end_turn"
    yield event(
        "message_delta",
        delta={"stop_reason": end, "stop_sequence": None},
        usage={"output_tokens": written},
    )
    yield event("message_stop")
