"""The next message of a conversation for people's code: the `llm` of a tool, which may bind tools or ask for JSON."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.completions.types import Call, Completion, Conversation, Json, Message, Tool
from server.errors import InvalidRequestError
from server.sdk import context
from server.sdk.usage import Usage

if TYPE_CHECKING:
    from server.engine import GuidedEngine
    from server.providers import RemoteModel

PART_SECONDS = 0.05
"""Text goes to the worker so often while it is written."""


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ChatCall(_Given):
    """See `types.Call`."""

    id: str
    name: str
    arguments: str


class ChatMessage(_Given):
    """See `types.Message`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: list[ChatCall] = []
    call_id: str | None = None


class ChatTool(_Given):
    """See `types.Tool`."""

    name: Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$")]
    description: str
    parameters: dict[str, Any]
    strict: bool = False


class ChatRequest(_Given):
    """What a chat model of LangChain asks. `tool_choice`: auto, none, required, or the name of the tool that must be
    called. `schema`: the answer is JSON that fits it."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    tools: list[ChatTool] = []
    tool_choice: str = "auto"
    several_calls: bool = True
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool = False
    max_tokens: Annotated[int, Field(ge=1, le=100_000_000)]
    stop: list[str] = []
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None


def chat(request: ChatRequest, engine: "GuidedEngine | RemoteModel", send: Callable[[str], object]) -> dict[str, Any]:
    """The message: `content`, `tool_calls` (each an `id`, a `name` and `arguments` as JSON), and `finish_reason`.

    `send` gets chunks of the content while it is written; the rest of it is in `content` alone. Raises
    `InvalidRequestError` for what the model can't do, and what the engine raises.
    """
    if engine.guided:
        return _by_grammar(request, engine, send)
    if request.tools or any(message.calls or message.role == "tool" for message in request.messages):
        raise InvalidRequestError(
            f"{engine.name} is behind an API, and calls no tools here. Bind tools to a resident model, or use the "
            "provider's own LangChain package."
        )
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    cuts: list[None] = []
    text = engine.complete(
        messages,
        max_tokens=request.max_tokens,
        stop=request.stop,
        schema=request.schema_,
        when_cut=lambda: cuts.append(None),
    )
    return {"content": text, "tool_calls": [], "finish_reason": "length" if cuts else "stop"}


def _by_grammar(request: ChatRequest, engine: "GuidedEngine", send: Callable[[str], object]) -> dict[str, Any]:
    from server.completions.generate import choice, prompt_formats

    sampling = {"temperature": request.temperature, "top_p": request.top_p, "seed": request.seed}
    completion = Completion(
        _conversation(request),
        request.max_tokens,
        stop=tuple(request.stop),
        sampling={name: value for name, value in sampling.items() if value is not None},
    )
    [prompt_format] = prompt_formats(completion.source, engine.tokenizer, completion.max_tokens)
    made = choice(_Sink(send), completion, engine, prompt_format, 0)
    # LangChain's messages have one place for both, and give it back with the call.
    content = made["content"] or made["thought"]
    return {"content": content, "tool_calls": made["tool_calls"], "finish_reason": made["finish_reason"]}


def _conversation(request: ChatRequest) -> Conversation:
    tools = tuple(Tool(one.name, one.description, _object(one.parameters), one.strict) for one in request.tools)
    named = request.tool_choice if request.tool_choice not in ("auto", "none", "required") else None
    callable_ = tuple(tool for tool in tools if named in (None, tool.name))
    must_call = request.tool_choice == "required" or named is not None
    if must_call and not callable_:
        raise InvalidRequestError("tool_choice wants a tool to be called that is not among the tools.")
    if request.tool_choice == "none":
        tools = callable_ = ()
    answer = None if request.schema_ is None else Json(request.schema_, request.strict)
    return Conversation(
        tuple(
            Message(
                one.role,
                one.content,
                tuple(Call(call.id, call.name, call.arguments) for call in one.calls),
                one.call_id,
            )
            for one in request.messages
        ),
        tools,
        callable_,
        must_call,
        request.several_calls,
        answer,
    )


def _object(schema: dict[str, Any]) -> dict[str, Any]:
    made = {"type": "object", **schema}
    if made["type"] != "object":
        raise InvalidRequestError("The schema of a tool's arguments has to be that of an object.")
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


class _Sink:
    """Gets the content while it is written, for the run of this context, and more rarely for `send`."""

    def __init__(self, send: Callable[[str], object]) -> None:
        self._send = send
        self._listener = context.current().on_text
        self._unsent = ""
        self._sent_at = time.monotonic()

    def on_text(self, text: str, counted: Usage) -> None:
        """See `Context.on_text`."""
        if self._listener is not None:
            self._listener(text, counted)
        self._unsent += text
        if self._unsent and time.monotonic() - self._sent_at > PART_SECONDS:
            self._send(self._unsent)
            self._unsent, self._sent_at = "", time.monotonic()
