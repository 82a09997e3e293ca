"""Vendors' APIs as they are on the wire: what a request asks, and how a reply, its end and an error are written."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any

PIECE = 6
"""Characters of a reply that are sent at a time."""


@dataclass(frozen=True)
class Request:
    """What is asked. `messages` have a role as OpenAI calls it, and a text. `limit`: tokens of the reply."""

    model: str
    messages: list[dict[str, str]]
    limit: int
    stop: list[str]
    schema: dict[str, Any] | None


class WireFormat(ABC):
    """One vendor's. `path`: what is posted to. `whole`, `limit` and `refused`: how it says that a reply is at its
    end, at its limit, or withheld. `bad_key` and `no_model`: the status and the message for what it doesn't know."""

    path: str
    content_type = "text/event-stream"
    has_retry_after = True
    """Whether that header comes at all."""
    whole: str
    limit: str
    refused: str
    bad_key = (401, "Incorrect API key provided: {key}. You can find your key in the console.")
    no_model = (404, "The model `missing` does not exist or you do not have access to it.")

    def key(self, headers: Message) -> str:
        """The key that came with a request."""
        return headers.get("Authorization", "").removeprefix("Bearer ")

    @abstractmethod
    def request(self, path: str, body: dict[str, Any]) -> Request:
        """What is asked by `body`, which was posted to `path`."""

    @abstractmethod
    def error(self, status: int, message: str, after: str | None) -> dict[str, Any]:
        """The body of an answer that is none. `after`: the header `Retry-After` that comes with it."""

    def event_of(self, error: dict[str, Any]) -> str:
        """An error after the reply has begun."""
        return _data(error)

    @abstractmethod
    def events(self, text: str, read: int, written: int, end: str) -> Iterator[str]:
        """A reply, with the tokens of what was `read` and what was `written`; `end` says how it ends."""


class OpenAI(WireFormat):
    """Chat completions, as many others speak them, too."""

    path = r"/v1/chat/completions"
    whole, limit, refused = "stop", "length", "content_filter"

    def request(self, path: str, body: dict[str, Any]) -> Request:
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        limit = body.get("max_tokens") or body["max_completion_tokens"]
        return Request(body["model"], _texts(body["messages"]), limit, body.get("stop") or [], schema)

    def error(self, status: int, message: str, after: str | None) -> dict[str, Any]:
        return {"error": {"message": message, "type": "error", "param": None, "code": None}}

    def events(self, text: str, read: int, written: int, end: str) -> Iterator[str]:
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        yield self._delta(role="assistant", content="")
        for piece in _pieces(text):
            yield self._delta(content=piece)
        yield self._delta(end)
        yield self._chunk(choices=[], usage=usage)
        yield "data: [DONE]\n\n"

    def _delta(self, end: str | None = None, **changed: Any) -> str:
        return self._chunk(choices=[{"index": 0, "delta": changed, "finish_reason": end}])

    def _chunk(self, **more: Any) -> str:
        return _data({"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "embedded", **more})


class Mistral(OpenAI):
    """Chat completions in which the tokens come with the last piece, and errors are the whole body."""

    path = r"/mistral/v1/chat/completions"
    whole, limit, refused = "stop", "length", "error"
    no_model = (400, "Invalid model: missing")

    def error(self, status: int, message: str, after: str | None) -> dict[str, Any]:
        if status in (401, 422):
            return {"detail": message if status == 401 else [{"type": "extra_forbidden", "msg": message}]}
        return {"object": "error", "message": message, "type": "error", "param": None, "code": "1000"}

    def events(self, text: str, read: int, written: int, end: str) -> Iterator[str]:
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        yield self._delta(role="assistant", content="")
        for piece in _pieces(text):
            yield self._delta(content=piece)
        last = {"index": 0, "delta": {"content": ""}, "finish_reason": end}
        yield self._chunk(choices=[last], usage=usage)
        yield "data: [DONE]\n\n"


class Anthropic(WireFormat):
    """Messages."""

    path = r"/v1/messages"
    whole, limit, refused = "end_turn", "max_tokens", "refusal"

    def request(self, path: str, body: dict[str, Any]) -> Request:
        schema = body.get("output_config", {}).get("format", {}).get("schema")
        system = body.get("system", [])
        messages = ([{"role": "system", "content": system}] if system else []) + body["messages"]
        return Request(body["model"], _texts(messages), body["max_tokens"], body.get("stop_sequences", []), schema)

    def error(self, status: int, message: str, after: str | None) -> dict[str, Any]:
        return {"type": "error", "error": {"type": "error", "message": message}}

    def event_of(self, error: dict[str, Any]) -> str:
        return "event: error\n" + _data(error)

    def events(self, text: str, read: int, written: int, end: str) -> Iterator[str]:
        def event(kind: str, **more: Any) -> str:
            return f"event: {kind}\n" + _data({"type": kind, **more})

        message: dict[str, Any] = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "embedded", "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": read, "output_tokens": 1},
        }  # fmt: skip
        yield event("message_start", message=message)
        yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for piece in _pieces(text):
            yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        yield event("content_block_stop", index=0)
        delta = {"stop_reason": end, "stop_sequence": None}
        yield event("message_delta", delta=delta, usage={"input_tokens": read, "output_tokens": written})
        yield event("message_stop")


class Google(WireFormat):
    """Gemini's `streamGenerateContent`, whose tokens are counted anew in every piece."""

    has_retry_after = False
    path = r"/v1beta/models/(?P<model>[^/:]+):streamGenerateContent\?alt=sse"
    whole, limit, refused = "STOP", "MAX_TOKENS", "SAFETY"
    bad_key = (400, "API key not valid. Please pass a valid API key. It was {key}.")
    no_model = (404, "models/missing is not found for API version v1beta.")

    def key(self, headers: Message) -> str:
        return headers.get("x-goog-api-key", "")

    def request(self, path: str, body: dict[str, Any]) -> Request:
        found = re.fullmatch(self.path, path)
        assert found is not None
        roles = {"model": "assistant", "user": "user"}
        messages = [{"role": roles[one["role"]], "content": one["parts"]} for one in body["contents"]]
        if "systemInstruction" in body:
            messages.insert(0, {"role": "system", "content": body["systemInstruction"]["parts"]})
        config = body["generationConfig"]
        schema = config.get("responseJsonSchema")
        assert (schema is not None) == (config.get("responseMimeType") == "application/json")
        return Request(
            found["model"], _texts(messages), config["maxOutputTokens"], config.get("stopSequences", []), schema
        )

    def error(self, status: int, message: str, after: str | None) -> dict[str, Any]:
        said = {"code": status, "message": message, "status": "UNAVAILABLE"}
        if after is None:
            return {"error": said}
        delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{after}s"}
        return {"error": {**said, "details": [delay]}}

    def events(self, text: str, read: int, written: int, end: str) -> Iterator[str]:
        if end == self.refused and not text:
            yield _data({"promptFeedback": {"blockReason": end}, "usageMetadata": {"promptTokenCount": read}})
            return
        pieces = list(_pieces(text)) or [""]
        for number, piece in enumerate(pieces, 1):
            is_last = number == len(pieces)
            candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": piece}]}, "index": 0}
            if is_last:
                candidate["finishReason"] = end
            so_far = written * number // len(pieces)
            counted = {"promptTokenCount": read, "candidatesTokenCount": so_far, "totalTokenCount": read + so_far}
            yield _data({"candidates": [candidate], "usageMetadata": counted, "modelVersion": "embedded"})


class Ollama(WireFormat):
    """Ollama's `/api/chat`: a line a piece."""

    path = r"/api/chat"
    content_type = "application/x-ndjson"
    whole, limit, refused = "stop", "length", "stop"
    no_model = (404, "model 'missing' not found")

    def request(self, path: str, body: dict[str, Any]) -> Request:
        options = body["options"]
        return Request(
            body["model"], _texts(body["messages"]), options["num_predict"], options.get("stop") or [],
            body.get("format") or None,
        )  # fmt: skip

    def error(self, status: int, message: str, after: str | None) -> dict[str, Any]:
        return {"error": message}

    def event_of(self, error: dict[str, Any]) -> str:
        return json.dumps(error) + "\n"

    def events(self, text: str, read: int, written: int, end: str) -> Iterator[str]:
        def line(content: str, done: bool, **more: Any) -> str:
            known = {"model": "embedded", "created_at": "2026-01-01T00:00:00Z"}
            return (
                json.dumps({**known, "message": {"role": "assistant", "content": content}, "done": done, **more})
                + "\n"
            )

        for piece in _pieces(text):
            yield line(piece, False)
        yield line("", True, done_reason=end, prompt_eval_count=read, eval_count=written)


FORMATS: tuple[WireFormat, ...] = (OpenAI(), Mistral(), Anthropic(), Google(), Ollama())


def spoken_at(path: str) -> WireFormat | None:
    """The format of what is posted to `path`; None where nothing is."""
    return next((spoken for spoken in FORMATS if re.fullmatch(spoken.path, path)), None)


def _data(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _pieces(text: str) -> Iterator[str]:
    for at in range(0, len(text), PIECE):
        yield text[at : at + PIECE]


def _texts(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    """`messages` whose contents are texts, and not lists of parts."""
    return [{"role": one["role"], "content": _text(one["content"])} for one in messages]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
