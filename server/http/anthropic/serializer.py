"""Serializing the message that answers a request, whole or as events:
https://docs.anthropic.com/en/docs/build-with-claude/streaming"""

from typing import Any

from server.completions.template import as_object
from server.http.anthropic.errors import body
from server.http.anthropic.schemas import MessagesRequest
from server.http.openai.run_answers import choices_of, events_of, hearth_fields, reasoning_tokens, token_counts
from server.http.openai.run_factory import model_of
from server.http.sse import ServerSentEvent
from server.observability.logs import request_id
from server.runs import Run

STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}
"""By finish reason."""


class MessageSerializer:
    """The message of a run. Made while its request is there."""

    def __init__(self, run: Run, asked: MessagesRequest) -> None:
        self._run = run
        self._asked = asked
        self._request_id = request_id.get()
        self._begun = False
        self._index = 0
        """The index of the next block."""
        self._text_is_open = False
        """Whether the block before it is a text that is being streamed."""

    def message(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The whole message, from the answer of the run."""
        [choice] = choices_of(self._run, answer)
        blocks = self._blocks(choice)
        for block in blocks:
            if block["type"] == "tool_use":
                block["input"] = as_object(block["input"])
        return {
            **self._head(),
            "content": blocks,
            **_stop(choice),
            "usage": _usage(choice),
            "x_hearth": hearth_fields(self._run, answer),
        }

    def events(self, event: ServerSentEvent) -> list[ServerSentEvent]:
        """The events of the stream for one event of the run."""
        return [sent for _, kind, data in events_of(self._run, event) for sent in self._events(kind, data)]

    def _events(self, kind: str | None, data: Any) -> list[ServerSentEvent]:
        if kind == "token":
            return [*self._begin(), *self._text(data["text"])]
        if kind == "choice":
            return [*self._begin(), *(sent for block in self._blocks(data) for sent in self._block(block))]
        if kind in ("step", "plan"):
            # Clients ignore what a ping has.
            return [*self._begin(), _event("ping", x_hearth={kind: data})]
        if kind == "answer":
            [choice] = choices_of(self._run, data)
            extra = {"x_hearth": hearth_fields(self._run, data)}
            return [
                *self._begin(),
                _event("message_delta", delta=_stop(choice), usage=_usage(choice), **extra),
                _event("message_stop"),
            ]
        if kind == "error":
            error = self._run.error
            assert error is not None, "its error is known"
            return [(None, "error", body(error, self._request_id))]
        return []

    def _begin(self) -> list[ServerSentEvent]:
        if self._begun:
            return []
        self._begun = True
        usage = _usage({"usage": self._run.usage})
        empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        return [_event("message_start", message={**self._head(), **empty}), _event("ping")]

    def _text(self, text: str) -> list[ServerSentEvent]:
        """The events of a chunk of text."""
        if not text:
            return []
        opened = [] if self._text_is_open else [_started(self._index, {"type": "text", "text": ""})]
        self._text_is_open = True
        return [*opened, _delta(self._index, {"type": "text_delta", "text": text})]

    def _block(self, block: dict[str, Any]) -> list[ServerSentEvent]:
        """The events that end a block; of what was not streamed, all."""
        index, self._index = self._index, self._index + 1
        stop = _event("content_block_stop", index=index)
        match block["type"]:
            case "text":
                was_open, self._text_is_open = self._text_is_open, False
                return [stop] if was_open else [_started(index, block), stop]
            case "thinking":
                return [
                    _started(index, {**block, "thinking": "", "signature": ""}),
                    _delta(index, {"type": "thinking_delta", "thinking": block["thinking"]}),
                    _delta(index, {"type": "signature_delta", "signature": block["signature"]}),
                    stop,
                ]
        return [
            _started(index, {**block, "input": {}}),
            _delta(index, {"type": "input_json_delta", "partial_json": block["input"]}),
            stop,
        ]

    def _head(self) -> dict[str, Any]:
        head = {
            "id": f"msg_{self._run.id}",
            "type": "message",
            "role": "assistant",
            "model": model_of(self._run, self._asked),
        }
        return head if self._run.session_id is None else {**head, "x_session_id": self._run.session_id}

    def _blocks(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        """The blocks of a choice, at least one. The input of a call is still text."""
        blocks: list[dict[str, Any]] = []
        thinking = self._asked.thinking
        if (thought := choice.get("thought")) and (thinking is None or thinking.type != "disabled"):
            shown = "" if thinking is not None and thinking.display == "omitted" else thought
            # Clients send it back as it is. Some leave a thought without one out.
            blocks.append({"type": "thinking", "thinking": shown, "signature": self._run.id})
        calls = [
            {
                "type": "tool_use",
                "id": f"toolu_{call['id'].removeprefix('call_')}",
                "name": call["name"],
                "input": call["arguments"],
            }
            for call in choice["tool_calls"]
        ]
        if choice["content"] or not (blocks or calls):
            blocks.append({"type": "text", "text": choice["content"]})
        return blocks + calls


def _stop(choice: dict[str, Any]) -> dict[str, Any]:
    ended_by = choice.get("stop_sequence")
    default = "end_turn" if ended_by is None else "stop_sequence"
    return {"stop_reason": STOP_REASONS.get(choice["finish_reason"], default), "stop_sequence": ended_by}


def _usage(choice: dict[str, Any]) -> dict[str, Any]:
    prompt, cached, written = token_counts([choice], 1)
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": written,
        "output_tokens_details": {"thinking_tokens": reasoning_tokens([choice])},
    }


def _started(index: int, block: dict[str, Any]) -> ServerSentEvent:
    return _event("content_block_start", index=index, content_block=block)


def _delta(index: int, delta: dict[str, Any]) -> ServerSentEvent:
    return _event("content_block_delta", index=index, delta=delta)


def _event(kind: str, **data: Any) -> ServerSentEvent:
    return (None, kind, {"type": kind, **data})
