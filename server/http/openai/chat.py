"""`POST /v1/chat/completions`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.completions.logprobs import Logprobs, TokenLogprob
from server.completions.types import Call, Completion, Conversation, Message
from server.host import Host
from server.http.access import access
from server.http.openai.chat_schemas import ChatRequest, ChatToolNamed, ChatToolsAllowed
from server.http.openai.errors import invalid
from server.http.openai.message_schemas import ChatMessage
from server.http.openai.run_answers import answer_to, events_to
from server.http.openai.run_factory import conversation, most_tokens, start_run, text_of, tool_of
from server.http.openai.schemas import OpenAIAnswer
from server.http.openai.serializers import REFUSED, TextSerializer, logprob_of, sampling_of
from server.http.openai.structured_outputs import answer_of
from server.images.pictures import Intake


def blueprint(host: Host) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("openai_chat", __name__)

    @routes.post(
        "/v1/chat/completions",
        summary="OpenAI: the next message of a conversation, by the model or by an agent",
        responses={200: OpenAIAnswer, **REFUSED},
    )
    @access("ask", "session", takes_form=True)
    def chat_completions(body: ChatRequest) -> dict[str, Any] | Response:
        completion = completion_of(host, body)
        run = start_run(host, body, completion)
        serializer = ChatSerializer(run, body, completion.logprobs)
        if body.stream:
            return events_to(run, serializer.chunks)
        return serializer.answer(answer_to(run))

    return routes


def _logprobs(body: ChatRequest) -> Logprobs | None:
    if body.logprobs:
        return Logprobs(body.top_logprobs or 0)
    if body.top_logprobs:
        raise invalid("top_logprobs needs logprobs: true.", "top_logprobs")
    return None


def completion_of(host: Host, body: ChatRequest, session: str | None = None) -> Completion:
    """What the model has to write for a request. `session`: that its pictures are stored with; None: the one that it
    names, if any. Raises `InvalidRequestError`, and what `Intake.mark` raises."""
    count = body.n or 1
    intake = host.pictures.intake(body.x_workspace, session or body.x_session_id)
    conversation = _conversation(body, intake)
    return Completion(
        conversation,
        most_tokens(host, body.max_completion_tokens or body.max_tokens, count),
        count,
        tuple(body.stop or ()),
        sampling_of(body, body.seed),
        tuple(intake.parts),
        _logprobs(body),
    )


class ChatSerializer(TextSerializer):
    """The names of chat for the parts of a choice."""

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def shown(self, choice: dict[str, Any]) -> dict[str, Any]:
        calls = [_call(call) for call in choice["tool_calls"]]
        content = choice["content"] or (None if calls else "")
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if thought := choice.get("thought"):
            message["reasoning_content"] = thought
        if annotations := choice.get("annotations"):
            message["annotations"] = annotations
        return {"message": {**message, "tool_calls": calls} if calls else message}

    def logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        return {"content": [logprob_of(one) for one in tokens], "refusal": None}

    def begun(self) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": ""}}

    def delta(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}}

    def beside(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        calls = [{"index": number, **_call(call)} for number, call in enumerate(choice["tool_calls"])]
        parts: list[dict[str, Any]] = []
        if thought := choice.get("thought"):
            parts.append({"delta": {"reasoning_content": thought}})
        if calls:
            parts.append({"delta": {"tool_calls": calls}})
        if annotations := choice.get("annotations"):
            parts.append({"delta": {"annotations": annotations}})
        return parts

    def ended(self) -> dict[str, Any]:
        return {"delta": {}}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["id"], "type": "function", "function": function}


def _conversation(body: ChatRequest, intake: Intake) -> Conversation:
    tools = [
        tool_of(tool.function, "tools", number, "function", "parameters")
        for number, tool in enumerate(body.tools or ())
    ]
    keyword, named, allowed = _tool_choice(body)
    messages = [_message(message, intake) for message in body.messages]
    made = conversation(messages, tools, keyword, named, body.parallel_tool_calls, answer_of(body), allowed)
    return replace(made, template_arguments=body.chat_template_kwargs or {})


def _tool_choice(body: ChatRequest) -> tuple[str | None, str | None, list[str] | None]:
    """See `conversation`: the keyword, the function that must be called, and those that may be."""
    match body.tool_choice:
        case ChatToolNamed(function=function):
            return None, function.name, None
        case ChatToolsAllowed(allowed_tools=allowed):
            return allowed.mode, None, [tool.function.name for tool in allowed.tools]
        case keyword:
            return keyword, None, None


def _message(message: ChatMessage, intake: Intake) -> Message:
    calls = tuple(Call(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ())
    role = "system" if message.role == "developer" else message.role
    text = text_of(message.content, intake if role == "user" else None)
    if role != "assistant":
        return Message(role, text, (), message.tool_call_id)
    return Message(role, text or message.refusal or "", calls, thought=message.reasoning_content or "")
