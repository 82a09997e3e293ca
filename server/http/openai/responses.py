"""`POST /v1/responses`, as far as agents need it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.completions.logprobs import Logprobs
from server.completions.types import Call, Completion, Conversation, Json, Message
from server.host import Host
from server.http.access import access
from server.http.openai.errors import invalid, shape
from server.http.openai.responses_schemas import (
    ResponsesAnswer,
    ResponsesItem,
    ResponsesRequest,
    ResponsesText,
    ResponsesToolNamed,
    ResponsesToolsAllowed,
)
from server.http.openai.run_answers import (
    answer_to,
    choices_of,
    events_of,
    events_to,
    hearth_fields,
    image_tokens,
    reasoning_tokens,
    token_counts,
)
from server.http.openai.run_factory import conversation, json_of, model_of, most_tokens, start_run, text_of, tool_of
from server.http.openai.serializers import REFUSED, logprob_of, sampling_of
from server.http.openai.stored import Keeper, earlier_items, resolved
from server.http.sse import ServerSentEvent
from server.images.pictures import Intake
from server.runs import Run

LOGPROBS = "message.output_text.logprobs"
"""What `include` says to get them."""


def blueprint(host: Host) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("openai_responses", __name__)

    @routes.post(
        "/v1/responses",
        summary="OpenAI: an answer by the model or by an agent, as items",
        responses={200: ResponsesAnswer, **REFUSED},
    )
    @access("ask", "session")
    def responses(body: ResponsesRequest) -> dict[str, Any] | Response:
        intake = host.pictures.intake(body.x_workspace, body.x_session_id)
        items = resolved(host, body.input)
        conversation = _conversation(body, [*earlier_items(host, body.previous_response_id), *items], intake)
        most = most_tokens(host, body.max_output_tokens, 1)
        wants = bool(body.top_logprobs) or LOGPROBS in (body.include or ())
        logprobs = Logprobs(body.top_logprobs or 0) if wants else None
        images = tuple(intake.parts)
        completion = Completion(conversation, most, sampling=sampling_of(body), images=images, logprobs=logprobs)
        run = start_run(host, body, completion)
        keeper = None if body.store is False else Keeper(host, body, items)
        serializer = ResponseSerializer(run, body, logprobs, keeper)
        if body.stream:
            return events_to(run, serializer.events)
        return serializer.complete(answer_to(run))

    return routes


class ResponseSerializer:
    """The response of a run, whole or as events."""

    def __init__(
        self, run: Run, asked: ResponsesRequest, logprobs: Logprobs | None = None, keeper: Keeper | None = None
    ) -> None:
        """`logprobs`: has those of the text when it is complete; None: nobody wants them. `keeper`: saves the
        response; None: it is not saved."""
        self._keeper = keeper
        self._run = run
        self._logprobs = logprobs
        self._asked = asked
        self._number = 0
        """The sequence number of the next event."""
        self._opened = False
        """Whether the events that open the message were sent."""

    def complete(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The response with the run's answer, saved if that is wanted."""
        response = self.response(answer)
        return response if self._keeper is None else self._keeper.save(response)

    def response(self, answer: dict[str, Any] | None) -> dict[str, Any]:
        """The response with the run's answer; None: there is no answer yet."""
        asked = self._asked
        shown: dict[str, Any] = {
            "id": f"resp_{self._run.id}",
            "object": "response",
            "created_at": int(self._run.asked),
            "status": "in_progress",
            "model": model_of(self._run, asked),
            "output": [],
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "max_tool_calls": asked.max_tool_calls,
            "metadata": asked.metadata or {},
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": asked.previous_response_id,
            "store": self._keeper is not None,
            "temperature": asked.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [tool.model_dump() for tool in asked.tools or ()],
            "top_p": asked.top_p,
            "truncation": asked.truncation or "disabled",
            "usage": None,
        }
        if asked.text is not None:
            shown["text"] |= asked.text.model_dump(by_alias=True, exclude_none=True)
        if isinstance(asked.tool_choice, str):
            shown["tool_choice"] = asked.tool_choice
        elif asked.tool_choice is not None:
            shown["tool_choice"] = asked.tool_choice.model_dump()
        if answer is None:
            return shown
        [choice] = choices_of(self._run, answer)
        cut = choice["finish_reason"] == "length"
        prompt, cached, written = token_counts([choice], 1)
        return {
            **shown,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._items(choice),
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": cached, **image_tokens(self._run)},
                "output_tokens": written,
                "output_tokens_details": {"reasoning_tokens": reasoning_tokens([choice])},
                "total_tokens": prompt + written,
            },
            "x_hearth": hearth_fields(self._run, answer),
        }

    def events(self, event: ServerSentEvent) -> list[ServerSentEvent]:
        """The events of the stream for one event of the run."""
        return [sent for _, kind, data in events_of(self._run, event) for sent in self._events(kind, data)]

    def _events(self, kind: str | None, data: Any) -> list[ServerSentEvent]:
        if kind == "token":
            return [
                *self._begin(),
                *self._open_message(),
                self._event("output_text.delta", **self._place, delta=data["text"], logprobs=[]),
            ]
        if kind == "choice":
            return [*self._begin(), *self._close(self._items(data))]
        if kind in ("step", "plan"):
            # A field of a standard event: clients refuse kinds of events that they don't know.
            begun = self._begin()
            return [*begun, self._event("in_progress", response=self.response(None), x_hearth={kind: data})]
        if kind == "answer":
            response = self.complete(data)
            return [self._event(response["status"], response=response)]
        if kind == "error":
            assert self._run.error is not None, "its error is known"
            shown = shape(self._run.error)[0]["error"]
            failed = {"code": shown["code"] or "server_error", "message": shown["message"]}
            response = {**self.response(None), "status": "failed", "error": failed}
            return [*self._begin(), self._event("failed", response=response)]
        return []

    def _begin(self) -> list[ServerSentEvent]:
        if self._number:
            return []
        response = self.response(None)
        return [self._event("created", response=response), self._event("in_progress", response=response)]

    def _open_message(self) -> list[ServerSentEvent]:
        """The events that open the message, unless they were sent."""
        if self._opened:
            return []
        self._opened = True
        item = self._message("", "in_progress")
        return [
            self._event("output_item.added", output_index=0, item={**item, "content": []}),
            self._event("content_part.added", **self._place, part=item["content"][0]),
        ]

    def _close(self, items: list[dict[str, Any]]) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        for index, item in enumerate(items):
            if item["type"] == "message":
                [part] = item["content"]
                events += self._open_message()
                for number, one in enumerate(part["annotations"]):
                    added = {"annotation_index": number, "annotation": one}
                    events.append(self._event("output_text.annotation.added", **self._place, **added))
                events.append(
                    self._event("output_text.done", **self._place, text=part["text"], logprobs=part["logprobs"])
                )
                events.append(self._event("content_part.done", **self._place, part=part))
            elif item["type"] == "reasoning":
                events += self._reasoning(index, item)
            else:
                place = {"output_index": index, "item_id": item["id"]}
                begun = {**item, "arguments": "", "status": "in_progress"}
                events.append(self._event("output_item.added", output_index=index, item=begun))
                given = item["arguments"]
                events.append(self._event("function_call_arguments.delta", **place, delta=given))
                done = {**place, "name": item["name"], "arguments": given}
                events.append(self._event("function_call_arguments.done", **done))
            events.append(self._event("output_item.done", output_index=index, item=item))
        return events

    def _reasoning(self, index: int, item: dict[str, Any]) -> list[ServerSentEvent]:
        """The events of a thought, without the last one."""
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        [part] = item["content"]
        begun = {**item, "content": [], "status": "in_progress"}
        return [
            self._event("output_item.added", output_index=index, item=begun),
            self._event("content_part.added", **place, part={**part, "text": ""}),
            self._event("reasoning_text.delta", **place, delta=part["text"]),
            self._event("reasoning_text.done", **place, text=part["text"]),
            self._event("content_part.done", **place, part=part),
        ]

    def _event(self, kind: str, **data: Any) -> ServerSentEvent:
        kind, number = f"response.{kind}", self._number
        self._number += 1
        return (None, kind, {"type": kind, "sequence_number": number, **data})

    @property
    def _place(self) -> dict[str, Any]:
        """The position of the text: in the first item."""
        return {"item_id": f"msg_{self._run.id}", "output_index": 0, "content_index": 0}

    def _items(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        status = "incomplete" if choice["finish_reason"] == "length" else "completed"
        calls = [
            {
                "id": f"fc_{call['id'].removeprefix('call_')}",
                "type": "function_call",
                "status": status,
                "call_id": call["id"],
                "name": call["name"],
                "arguments": call["arguments"],
            }
            for call in choice["tool_calls"]
        ]
        if thought := choice.get("thought"):
            content = [{"type": "reasoning_text", "text": thought}]
            item = {"id": f"rs_{self._run.id}", "type": "reasoning", "status": status, "summary": []}
            return [{**item, "content": content}, *calls]
        if calls and not choice["content"]:
            return calls
        return [self._message(choice["content"], status, choice.get("annotations", ())), *calls]

    def _message(self, text: str, status: str, annotations: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        scored = () if self._logprobs is None or status == "in_progress" else self._logprobs.texts[0]
        logprobs = [logprob_of(one) for one in scored]
        part = {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": logprobs}
        return {
            "id": f"msg_{self._run.id}",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [part],
        }


def _conversation(body: ResponsesRequest, items: Sequence[ResponsesItem], intake: Intake) -> Conversation:
    tools = [tool_of(tool, "tools", number, "parameters") for number, tool in enumerate(body.tools or ())]
    keyword, named, allowed = _tool_choice(body)
    messages = [Message("system", body.instructions)] if body.instructions else []
    for number, item in enumerate(items, len(body.input) - len(items)):
        messages.append(_message(item, number, intake))
    parallel, answer = body.parallel_tool_calls, _format(body.text)
    made = conversation(_joined(messages), tools, keyword, named, parallel, answer, allowed)
    return replace(made, truncates=body.truncation == "auto")


def _tool_choice(body: ResponsesRequest) -> tuple[str | None, str | None, list[str] | None]:
    """See `conversation`: the keyword, the function that must be called, and those that may be."""
    match body.tool_choice:
        case ResponsesToolNamed(name=name):
            return None, name, None
        case ResponsesToolsAllowed(mode=mode, tools=tools):
            return mode, None, [tool.name for tool in tools]
        case keyword:
            return keyword, None, None


def _message(item: ResponsesItem, number: int, intake: Intake) -> Message:
    if item.type == "function_call":
        if item.name is None or item.arguments is None or item.call_id is None:
            raise invalid("A function_call needs a call_id, a name and arguments.", "input", number)
        return Message("assistant", "", (Call(item.call_id, item.name, item.arguments),))
    if item.type == "reasoning":
        return Message("assistant", "", thought=text_of(item.content) or text_of(item.summary))
    if item.type == "function_call_output":
        return Message("tool", text_of(item.output), call_id=item.call_id)
    if item.role is None:
        raise invalid("A message needs a role.", "input", number, "role")
    text = text_of(item.content, intake if item.role == "user" else None)
    return Message("system" if item.role == "developer" else item.role, text)


def _joined(messages: list[Message]) -> list[Message]:
    """With thoughts and calls in the message that they were made in: here each is an item of its own."""
    joined: list[Message] = []
    for message in messages:
        before = joined[-1] if joined else None
        if (
            message.role == "assistant"
            and before is not None
            and before.role == "assistant"
            and (message.calls or (before.thought and not before.content and not before.calls))
        ):
            joined[-1] = Message(
                "assistant",
                before.content or message.content,
                before.calls + message.calls,
                thought=before.thought or message.thought,
            )
        else:
            joined.append(message)
    return joined


def _format(text: ResponsesText | None) -> Json | None:
    wanted = None if text is None else text.format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return json_of(None, None, "text", "format")
    if wanted.json_schema is None:
        raise invalid("A format of type json_schema needs a schema.", "text", "format", "schema")
    return json_of(wanted.json_schema, wanted.strict, "text", "format", "schema")
