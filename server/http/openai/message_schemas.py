"""The messages of requests, and the parts of their contents: text and pictures."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.functional_validators import BeforeValidator

from server.http.openai.schemas import Anything, Arguments, FunctionName, Lenient


def _parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class TextPart(Lenient):
    type: Literal["text", "input_text", "output_text", "reasoning_text", "summary_text"]
    text: str


class RefusalPart(Lenient):
    """The assistant's refusal, as an earlier message has it."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


class ImageUrl(Lenient):
    url: str = Field(min_length=1, description="`data:image/png;base64,...`, or `hearth-file:NAME` of the session")
    detail: Anything = None


class ImageUrlPart(Lenient):
    """A picture, in chat completions."""

    type: Literal["image_url"]
    image_url: Annotated[
        ImageUrl,
        BeforeValidator(lambda value: {"url": value} if isinstance(value, str) else value),
    ]

    @property
    def url(self) -> str:
        return self.image_url.url


class InputImagePart(Lenient):
    """A picture, in responses."""

    type: Literal["input_image"]
    image_url: str = Field(min_length=1, description="as in chat completions")
    detail: Anything = None

    @property
    def url(self) -> str:
        return self.image_url


Part = Annotated[TextPart | RefusalPart | ImageUrlPart | InputImagePart, Field(discriminator="type")]
Content = Annotated[list[Part], BeforeValidator(_parts, json_schema_input_type=str | list[Part])]


class CalledFunction(Lenient):
    name: FunctionName
    arguments: Arguments = "{}"


class ChatToolCall(Lenient):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Lenient):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    refusal: str | None = None
    reasoning_content: str | None = Field(None, description="the thought before a call, as the answer had it")
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None
