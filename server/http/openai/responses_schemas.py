"""The bodies of `/v1/responses`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic.functional_validators import BeforeValidator

from server.completions.logprobs import MOST_ALTERNATIVES
from server.http.openai.message_schemas import Content
from server.http.openai.schemas import (
    Anything,
    Arguments,
    Asked,
    FunctionDefinition,
    FunctionName,
    JsonSchemaFormat,
    Keyword,
    Lenient,
    kind_of_choice,
    only,
)
from server.http.schemas import EVENTS, StrictRequest


class ResponsesItem(Lenient):
    """A message, a thought, the call of a function, the result of one, or the id of such an item of a saved
    response."""

    type: Literal["message", "reasoning", "function_call", "function_call_output", "item_reference"] = "message"
    id: str | None = Field(None, max_length=100)
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Content | None = None
    call_id: str | None = None
    name: FunctionName | None = None
    arguments: Arguments | None = None
    summary: Content | None = None
    output: Content | None = None


class ResponsesTool(FunctionDefinition):
    type: Literal["function"]


class ResponsesToolNamed(StrictRequest):
    type: Literal["function"]
    name: FunctionName


class ResponsesToolsAllowed(StrictRequest):
    """The model may call these of the tools only."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[ResponsesToolNamed]


class ResponsesFormat(JsonSchemaFormat):
    type: Literal["text", "json_object", "json_schema"]


class ResponsesText(StrictRequest):
    format: ResponsesFormat | None = None
    verbosity: Anything = None


class ResponsesRequest(Asked):
    input: Annotated[
        list[ResponsesItem],
        Field(min_length=1),
        BeforeValidator(
            lambda value: [{"role": "user", "content": value}] if isinstance(value, str) else value,
            json_schema_input_type=str | list[ResponsesItem],
        ),
    ]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    tools: list[ResponsesTool] | None = None
    tool_choice: (
        Annotated[
            Keyword
            | Annotated[ResponsesToolNamed, Tag("function")]
            | Annotated[ResponsesToolsAllowed, Tag("allowed_tools")],
            Discriminator(kind_of_choice),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = True
    text: ResponsesText | None = None

    store: bool | None = Field(True, description="save the response, so that its id can be used")
    include: list[str] | None = Field(None, description="`message.output_text.logprobs` changes something")
    max_tool_calls: int | None = Field(
        None, ge=1, description="calls of tools that the server runs itself; here are none, so it changes nothing"
    )
    reasoning: Anything = None
    stream_options: Anything = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="auto: the oldest exchanges are left out if they don't fit into the model's window"
    )
    background: Annotated[Any, only(False)] = None
    context_management: Annotated[Any, only([])] = None
    conversation: Annotated[Any, only()] = None
    moderation: Annotated[Any, only()] = None
    previous_response_id: str | None = Field(
        None, min_length=1, max_length=100, description="a saved response, whose items come before `input`"
    )
    prompt: Annotated[Any, only()] = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)


class ResponsesAnswer(BaseModel):
    """As a stream: the events `response.created` to `response.completed`, as OpenAI has them."""

    model_config = ConfigDict(
        extra="allow",
        openapi_extra={"content": EVENTS["content"]},  # type: ignore[typeddict-unknown-key]
    )

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None
    x_hearth: dict[str, Any] | None = Field(None, description="as chat completions have it")
