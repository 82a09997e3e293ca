"""What the routes take and answer.

Of what Anthropic knows, some changes nothing here and is taken all the same; what would change an answer and can't be
done is refused.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from server.http.openai.schemas import Anything, FunctionName, Lenient, RunRequest, only
from server.http.schemas import EVENTS, StrictRequest

MOST_STOPS = 32


def _blocks(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class TextBlock(Lenient):
    type: Literal["text"]
    text: str


class Base64Source(Lenient):
    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str = Field(min_length=1)

    @property
    def url(self) -> str:
        return f"data:{self.media_type};base64,{self.data}"


class UrlSource(Lenient):
    type: Literal["url"]
    url: str = Field(min_length=1, description="as in OpenAI's chat; also `hearth-file:NAME` of the session")


class ImageBlock(Lenient):
    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]


class ThinkingBlock(Lenient):
    """A thought, as an earlier answer had it. Its signature changes nothing."""

    type: Literal["thinking"]
    thinking: str


class RedactedThinkingBlock(Lenient):
    """A thought that nobody can read. It changes nothing."""

    type: Literal["redacted_thinking"]


class ToolUseBlock(Lenient):
    type: Literal["tool_use"]
    id: str
    name: FunctionName
    input: dict[str, Any]


ResultBlock = Annotated[TextBlock | ImageBlock, Field(discriminator="type")]


class ToolResultBlock(Lenient):
    type: Literal["tool_result"]
    tool_use_id: str
    content: Annotated[
        list[ResultBlock], BeforeValidator(_blocks, json_schema_input_type=str | list[ResultBlock])
    ] = Field(default_factory=list)
    is_error: bool | None = False


Block = Annotated[
    TextBlock | ImageBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock,
    Field(discriminator="type"),
]


class MessageParam(Lenient):
    role: Literal["user", "assistant", "system"]
    content: Annotated[list[Block], BeforeValidator(_blocks, json_schema_input_type=str | list[Block])]


class ClientTool(StrictRequest):
    """A tool that the client executes. Those of Anthropic's own servers are refused by their `type`."""

    type: Literal["custom"] | None = None
    name: FunctionName
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = Field(None, description="refuse a schema that can't be enforced in full")

    cache_control: Anything = None
    eager_input_streaming: Anything = None
    input_examples: Anything = None
    allowed_callers: Annotated[Any, only([], ["direct"])] = None
    defer_loading: Annotated[Any, only(False)] = None


class ToolChoice(StrictRequest):
    type: Literal["auto", "any", "tool", "none"]
    name: FunctionName | None = Field(None, description="of the tool that must be called, with the type `tool`")
    disable_parallel_tool_use: bool | None = False

    @model_validator(mode="after")
    def _named(self) -> "ToolChoice":
        if (self.type == "tool") != (self.name is not None):
            raise PydanticCustomError("tool_name", "A name belongs to the type tool, and to no other")
        return self


class Thinking(StrictRequest):
    """A model whose template has no place for tools writes a thought before a call, whatever the type."""

    type: Literal["enabled", "adaptive", "between_tools", "disabled"] = Field(
        description="disabled: thoughts are not returned"
    )
    display: Literal["summarized", "omitted"] | None = Field(None, description="omitted: without their text")

    budget_tokens: Anything = None


class OutputFormat(StrictRequest):
    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class OutputConfig(StrictRequest):
    format: OutputFormat | None = Field(None, description="the answer is JSON that fits this schema")

    effort: Anything = None


class CountRequest(RunRequest):
    """A conversation, and what the next message may be."""

    names: ClassVar[Mapping[str, str]] = {"response_format": "output_config", "stop": "stop_sequences"}

    messages: list[MessageParam] = Field(min_length=1)
    system: (
        Annotated[list[TextBlock], BeforeValidator(_blocks, json_schema_input_type=str | list[TextBlock])] | None
    ) = None
    tools: list[ClientTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None

    cache_control: Anything = None
    speed: Anything = None
    user_profile_id: Anything = None
    context_management: Annotated[Any, only()] = None
    mcp_servers: Annotated[Any, only([])] = None


class MessagesRequest(CountRequest):
    max_tokens: int = Field(ge=1)
    stop_sequences: (
        Annotated[
            list[Annotated[str, StringConstraints(min_length=1, max_length=1000)]], Field(max_length=MOST_STOPS)
        ]
        | None
    ) = None

    metadata: Anything = None
    service_tier: Anything = None
    inference_geo: Anything = None
    diagnostics: Anything = None
    container: Annotated[Any, only()] = None


class MessagesUsage(BaseModel):
    input_tokens: int = Field(description="without those of the cache")
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int = Field(description="those that were written by the grammar among them")
    output_tokens_details: dict[str, int] = Field(description="`thinking_tokens`: of thoughts before calls")


class MessagesAnswer(BaseModel):
    """As a stream: the events `message_start` to `message_stop`, as Anthropic has them."""

    model_config = ConfigDict(openapi_extra={"content": EVENTS["content"]})  # type: ignore[typeddict-unknown-key]

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"] | None
    stop_sequence: str | None
    usage: MessagesUsage
    x_hearth: dict[str, Any] | None = Field(None, description="as OpenAI's chat completions have it")


class TokensCounted(BaseModel):
    input_tokens: int


class AnthropicErrorBody(BaseModel):
    type: str
    message: str


class AnthropicError(BaseModel):
    type: Literal["error"]
    error: AnthropicErrorBody
    request_id: str
