"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

import json
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.completions.types import Call, Completion, Conversation, Message, with_texts
from server.host import Host
from server.http.access import access
from server.http.anthropic.errors import REQUEST_ID
from server.http.anthropic.schemas import (
    AnthropicError,
    Block,
    CountRequest,
    ImageBlock,
    MessageParam,
    MessagesAnswer,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    TokensCounted,
    ToolResultBlock,
    ToolUseBlock,
)
from server.http.anthropic.serializer import MessageSerializer
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.openai.errors import invalid
from server.http.openai.run_answers import answer_to, events_to
from server.http.openai.run_factory import (
    conversation,
    json_of,
    model_run,
    most_tokens,
    names_agent,
    start_run,
    tool_of,
)
from server.http.openai.schemas import FunctionDefinition
from server.http.openai.serializers import sampling_of
from server.images.pictures import Intake
from server.observability.logs import request_id

if TYPE_CHECKING:
    from server.engine import GuidedEngine

REFUSED: dict[int | str | HTTPStatus, Any] = dict.fromkeys(
    (400, 401, 404, 408, 409, 413, 429, 499, 503), AnthropicError
)
CREDENTIALS: list[dict[str, list[Any]]] = [{"token": []}, {"key": []}]
KEYWORDS = {"auto": "auto", "any": "required", "none": "none"}
"""OpenAI's words for a choice of tools."""
BLOCKS = {
    "user": ("text", "image", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}
"""The types of blocks that a message may have, by its role."""


def blueprint(host: Host, slow_requests: ConcurrencyLimit) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("anthropic_messages", __name__)

    @routes.post(
        "/v1/messages",
        summary="Anthropic: the next message of a conversation, by the model or by an agent",
        responses={200: MessagesAnswer, **REFUSED},
        security=CREDENTIALS,
    )
    @access("ask", "session")
    def messages(body: MessagesRequest) -> dict[str, Any] | Response:
        completion = _completion(host, body, most_tokens(host, body.max_tokens, 1), tuple(body.stop_sequences or ()))
        run = start_run(host, body, completion)
        serializer = MessageSerializer(run, body)
        if body.stream:
            return events_to(run, serializer.events)
        return serializer.message(answer_to(run))

    @routes.post(
        "/v1/messages/count_tokens",
        summary="Anthropic: the number of tokens that the model would read",
        responses={200: TokensCounted, **REFUSED},
        security=CREDENTIALS,
    )
    @access("ask", "session")
    def count_tokens(body: CountRequest) -> dict[str, Any]:
        if names_agent(body):
            raise invalid("An agent makes its own prompts. Count the tokens for the model itself, hearth.", "model")
        completion = _completion(host, body, host.settings.MAX_TOKENS)
        run, model = model_run(host, body, completion)

        def count(engine: "GuidedEngine") -> int:
            from server.completions.generate import count_prompt

            return count_prompt(with_texts(completion, run.with_images), engine)

        with slow_requests.acquire():
            return {"input_tokens": host.questions.read(run, count, model)}

    @routes.after_request
    def name_request(response: Response) -> Response:
        response.headers[REQUEST_ID] = request_id.get()
        return response

    return routes


def _completion(host: Host, body: CountRequest, max_tokens: int, stop: tuple[str, ...] = ()) -> Completion:
    """What the model has to write, or to read. Raises `InvalidRequestError`, and what `Intake.mark` raises."""
    intake = host.pictures.intake(body.x_workspace, body.x_session_id)
    source = _conversation(body, intake)
    return Completion(source, max_tokens, 1, stop, sampling_of(body), tuple(intake.parts))


def _conversation(body: CountRequest, intake: Intake) -> Conversation:
    tools = [
        tool_of(
            FunctionDefinition(
                name=tool.name, description=tool.description, parameters=tool.input_schema, strict=tool.strict
            ),
            "tools",
            number,
            "input_schema",
        )
        for number, tool in enumerate(body.tools or ())
    ]
    choice = body.tool_choice
    keyword = None if choice is None else KEYWORDS.get(choice.type)
    named = None if choice is None else choice.name
    parallel = choice is None or not choice.disable_parallel_tool_use
    wanted = None if body.output_config is None else body.output_config.format
    answer = None if wanted is None else json_of(wanted.json_schema, None, "output_config", "format", "schema")
    messages = [Message("system", _text(body.system))] if body.system else []
    for number, one in enumerate(body.messages):
        messages += _messages(one, number, intake)
    if messages[-1].role == "assistant":
        raise invalid(
            "The last message is the assistant's, and the model here does not continue it. End with the user's.",
            "messages",
        )
    return conversation(_joined(messages), tools, keyword, named, parallel, answer)


def _messages(given: MessageParam, number: int, intake: Intake) -> Iterator[Message]:
    """A message. The results of tools in it are messages of their own here."""
    for place, block in enumerate(given.content):
        if block.type not in BLOCKS[given.role]:
            raise invalid(
                f"A message of the role {given.role} can't have a block of the type {block.type}.",
                *("messages", number, "content", place),
            )
    if given.role == "system":
        yield Message("system", _text(given.content))
    elif given.role == "assistant":
        calls = [
            Call(block.id, block.name, json.dumps(block.input, ensure_ascii=False))
            for block in given.content
            if isinstance(block, ToolUseBlock)
        ]
        thoughts = [block.thinking for block in given.content if isinstance(block, ThinkingBlock)]
        yield Message("assistant", _text(given.content), tuple(calls), thought="\n".join(thoughts))
    else:
        yield from _from_user(given.content, number, intake)


def _from_user(blocks: Sequence[Block], number: int, intake: Intake) -> Iterator[Message]:
    parts: list[str] = []
    for place, block in enumerate(blocks):
        if isinstance(block, ToolResultBlock):
            if parts:
                yield Message("user", "\n".join(parts))
                parts = []
            if any(isinstance(one, ImageBlock) for one in block.content):
                raise invalid(
                    "The result of a tool can't have a picture. Put it beside the result, into the user's message.",
                    *("messages", number, "content", place, "content"),
                )
            # The model knows a failure by its text alone.
            lead = "Error: " if block.is_error else ""
            yield Message("tool", lead + _text(block.content), (), block.tool_use_id)
        elif isinstance(block, ImageBlock):
            parts.append(intake.mark(block.source.url))
        elif isinstance(block, TextBlock):
            parts.append(block.text)
    if parts or not blocks:
        yield Message("user", "\n".join(parts))


def _text(blocks: Sequence[Block]) -> str:
    return "\n".join(block.text for block in blocks if isinstance(block, TextBlock))


def _joined(messages: Sequence[Message]) -> list[Message]:
    """With one message for several of a person in a row, as Anthropic's API reads them. Chat templates may want the
    roles to alternate."""
    joined: list[Message] = []
    for message in messages:
        before = joined[-1] if joined else None
        if before is None or message.role != before.role or message.role not in ("user", "assistant"):
            joined.append(message)
            continue
        joined[-1] = Message(
            message.role,
            "\n".join(filter(None, (before.content, message.content))),
            before.calls + message.calls,
            thought="\n".join(filter(None, (before.thought, message.thought))),
        )
    return joined
