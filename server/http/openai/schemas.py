"""What the bodies of several routes share.

Of what OpenAI knows, some changes nothing here and is taken all the same; what would change an answer and can't be
done is refused.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, Tag
from pydantic.functional_validators import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from server.http.schemas import EVENTS, Name, SessionId, StrictRequest

MOST_BIASES = 1024


def only(*values: Any) -> AfterValidator:
    """For a part of a request that can't be done: None or one of `values`, which ask for nothing."""

    def check(value: Any) -> Any:
        if value is not None and value not in values:
            raise PydanticCustomError("not_supported", "Hearth does not support this. Leave it out")
        return value

    return AfterValidator(check)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def kind_of_choice(value: Any) -> Any:
    if isinstance(value, str):
        return "keyword"
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


def _arguments(text: str) -> str:
    return text if text.strip() else "{}"


Anything = Annotated[Any, Field(description="changes nothing")]
Arguments = Annotated[
    str,
    Field(description="JSON as text, perhaps cut off by a limit"),
    AfterValidator(_arguments),
]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
FunctionName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
Stops = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=1000)]],
    Field(max_length=4),
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
]
LogitBias = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MOST_BIASES),
]


class Lenient(BaseModel):
    """What clients send back as they got it, with parts that they may have added."""

    model_config = ConfigDict(extra="ignore", strict=True)


class FunctionDefinition(Lenient):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of an object")
    strict: bool | None = Field(None, description="refuse a schema that can't be enforced in full")


Keyword = Annotated[Literal["none", "auto", "required"], Tag("keyword")]


class JsonSchemaFormat(Lenient):
    name: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class RunRequest(StrictRequest):
    """What a request for a run has, in this API and in Anthropic's."""

    names: ClassVar[Mapping[str, str]] = {}
    """Fields that are called otherwise than in chat completions, by their names there; for errors."""

    model: ModelName = Field(
        description="a resident model by its name, the default one as `hearth`; or an agent, like `hearth/react`"
    )
    stream: bool | None = False
    temperature: float | None = Field(
        None, ge=0, le=2, description="as the model's makers have it, if it is left out"
    )
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, description="sample among so many of the likeliest tokens; 0 or -1: all")
    x_workspace: Name = Field("main", description="whose agents and tools, and whose turn it is")
    x_session_id: SessionId | None = Field(
        None, description="of an agent: the conversation that its question belongs to, as in /run_script"
    )


class Asked(RunRequest):
    """What every request has."""

    min_p: float | None = Field(
        None, ge=0, le=1, description="and among those at least so likely, relative to the best"
    )
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="taken off the logits of written tokens")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="the same, for each time")
    repetition_penalty: float | None = Field(
        None, gt=0, le=10, description="divides the logits of tokens of prompt and text; 1: nothing"
    )
    logit_bias: LogitBias | None = Field(None, description="added to the logits of tokens, by their ids")

    user: Anything = None
    metadata: Anything = None
    store: Anything = None
    service_tier: Anything = None
    safety_identifier: Anything = None
    prompt_cache_key: Anything = None
    prompt_cache_retention: Anything = None
    prompt_cache_options: Anything = None


class ModelsQuery(StrictRequest):
    x_workspace: Name = Field("main", description="whose agents are listed")


class ModelId(StrictRequest):
    model: str


class ModelAvailable(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int | None = Field(description="tokens that it reads at most; null until it is loaded")
    max_model_len: int | None = Field(description="the same, as other servers call it")
    takes_images: bool = Field(description="whether it sees pictures; for an agent: whether the default model does")


class ModelsAvailable(BaseModel):
    object: Literal["list"]
    data: list[ModelAvailable]


class TokenCounts(BaseModel):
    prompt_tokens: int
    completion_tokens: int = Field(description="those that were written by the grammar among them")
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int] = Field(description="`reasoning_tokens`: of thoughts before calls")


class OpenAIAnswer(BaseModel):
    """As a stream: chunks of this object as OpenAI has them, and `[DONE]`."""

    model_config = ConfigDict(openapi_extra={"content": EVENTS["content"]})  # type: ignore[typeddict-unknown-key]

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: TokenCounts
    x_hearth: dict[str, Any] = Field(description="the run: its run_id, generation, steps, details, usage, times")


class OpenAIErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    error: OpenAIErrorBody
