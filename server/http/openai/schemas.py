"""What the routes take and answer.

Of what OpenAI knows, some changes nothing here and is taken all the same; what would change an answer and can't be
done is refused.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator
from pydantic.functional_validators import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError, from_json

from server.completions.logprobs import MOST_ALTERNATIVES
from server.http.schemas import EVENTS, Name, SessionId, StrictRequest

MOST_TEXTS = 128
"""That one request may ask for."""
MOST_BIASES = 1024
LONGEST_PATTERN = 10_000
LONGEST_GRAMMAR = 100_000
MOST_CHOICES = 1000


def only(*values: Any) -> AfterValidator:
    """For a part of a request that can't be done: None or one of `values`, which ask for nothing."""

    def check(value: Any) -> Any:
        if value is not None and value not in values:
            raise PydanticCustomError("not_supported", "Hearth does not support this. Leave it out")
        return value

    return AfterValidator(check)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def listed_prompts(value: Any) -> Any:
    """One text, or the tokens of one, as a list of it."""
    is_tokens = isinstance(value, list) and bool(value) and not any(isinstance(one, str | list) for one in value)
    return [value] if is_tokens or isinstance(value, str) else value


def _kind_of_text(value: Any) -> str:
    return "tokens" if isinstance(value, list) else "text"


def _kind_of_choice(value: Any) -> Any:
    if isinstance(value, str):
        return "keyword"
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


def _parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def _arguments(text: str) -> str:
    return text if text.strip() else "{}"


Anything = Annotated[Any, Field(description="changes nothing")]
Arguments = Annotated[
    str,
    Field(description="JSON as text, perhaps cut off by a limit"),
    AfterValidator(_arguments),
]
Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
TextOrTokens = Annotated[Annotated[str, Tag("text")] | Annotated[Tokens, Tag("tokens")], Discriminator(_kind_of_text)]
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


class FunctionDefinition(Lenient):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of an object")
    strict: bool | None = Field(None, description="refuse a schema that can't be enforced in full")


class ChatTool(Lenient):
    type: Literal["function"]
    function: FunctionDefinition


Keyword = Annotated[Literal["none", "auto", "required"], Tag("keyword")]


class FunctionNamed(Lenient):
    name: FunctionName


class ChatToolNamed(StrictRequest):
    type: Literal["function"]
    function: FunctionNamed


class AllowedTools(StrictRequest):
    mode: Literal["auto", "required"]
    tools: list[ChatToolNamed]


class ChatToolsAllowed(StrictRequest):
    """The model may call these of the tools only."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class JsonSchemaFormat(Lenient):
    name: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(StrictRequest):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


def _parsed(value: Any) -> Any:
    return from_json(value, allow_inf_nan=False) if isinstance(value, str) else value


Schema = Annotated[
    dict[str, Any],
    BeforeValidator(_parsed, json_schema_input_type=dict[str, Any] | str),
    Field(description="a JSON schema, also as text"),
]
Pattern = Annotated[
    str,
    StringConstraints(max_length=LONGEST_PATTERN),
    Field(description="a regular expression of Rust's crate regex, for the whole answer"),
]
Choice = Annotated[
    list[Annotated[str, StringConstraints(max_length=LONGEST_PATTERN)]],
    Field(min_length=1, max_length=MOST_CHOICES, description="the answer is one of these texts"),
]
GrammarText = Annotated[
    str,
    StringConstraints(max_length=LONGEST_GRAMMAR),
    Field(description="in llguidance's dialect of Lark, from `start` on; or in GBNF, from `root` on"),
]


class StructuredOutputs(StrictRequest):
    """The form of an answer, as vLLM has it: one of `json`, `regex`, `choice`, `grammar` and `json_object`."""

    json_schema: Schema | None = Field(None, alias="json")
    regex: Pattern | None = None
    choice: Choice | None = None
    grammar: GrammarText | None = None
    json_object: bool | None = None

    disable_any_whitespace: Anything = None
    disable_additional_properties: Annotated[Any, only(False)] = None
    whitespace_pattern: Annotated[Any, only()] = None
    structural_tag: Annotated[Any, only()] = None

    @property
    def forms(self) -> dict[str, Any]:
        """Those that there are, by vLLM's names."""
        found = {
            "json": self.json_schema,
            "regex": self.regex,
            "choice": self.choice,
            "grammar": self.grammar,
            "json_object": self.json_object or None,
        }
        return {name: value for name, value in found.items() if value is not None}

    @model_validator(mode="after")
    def _once(self) -> "StructuredOutputs":
        if len(self.forms) != 1:
            raise PydanticCustomError("one_form", "It needs one of json, regex, choice, grammar and json_object")
        return self


class StreamOptions(Lenient):
    include_usage: bool | None = False


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


class AskedForTexts(Asked):
    """What chat and completions have in common."""

    max_tokens: int | None = Field(None, ge=1, description="of each text; default: the maximum")
    stop: Stops | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="with the same one a text is the same again")
    n: int | None = Field(1, ge=1, le=MOST_TEXTS)
    stream_options: StreamOptions | None = None

    structured_outputs: StructuredOutputs | None = Field(None, description="the form of the answer, as vLLM has it")
    guided_json: Schema | None = None
    guided_regex: Pattern | None = None
    guided_choice: Choice | None = None
    guided_grammar: GrammarText | None = None
    guided_decoding_backend: Anything = None
    guided_whitespace_pattern: Annotated[Any, only()] = None


FORMS = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
"""Fields that say which form the answer has."""


class ChatRequest(AskedForTexts):
    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="another name for max_tokens")
    tools: list[ChatTool] | None = None
    tool_choice: (
        Annotated[
            Keyword | Annotated[ChatToolNamed, Tag("function")] | Annotated[ChatToolsAllowed, Tag("allowed_tools")],
            Discriminator(_kind_of_choice),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = True
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="what the model's own chat template reads besides messages and tools, like enable_thinking"
    )

    reasoning_effort: Anything = None
    verbosity: Anything = None
    logprobs: bool | None = Field(False, description="return the log-probability of each token of the content")
    top_logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES, description="and of the likeliest ones there")
    modalities: Annotated[Any, only(["text"])] = None
    audio: Annotated[Any, only()] = None
    prediction: Annotated[Any, only()] = None
    web_search_options: Annotated[Any, only()] = None
    moderation: Annotated[Any, only()] = None
    functions: Annotated[Any, only([])] = None
    function_call: Annotated[Any, only("none")] = None


class CompletionRequest(AskedForTexts):
    prompt: Annotated[
        list[TextOrTokens],
        Field(min_length=1, max_length=MOST_TEXTS),
        BeforeValidator(listed_prompts, json_schema_input_type=str | list[str] | Tokens | list[Tokens]),
    ] = Field(description="texts, or the model's own tokens, which are read as they are")
    max_tokens: int | None = Field(
        None, ge=0, description="of each text; 0: none are written; default: 16, or what an agent needs"
    )
    logprobs: int | None = Field(
        None, ge=0, le=MOST_ALTERNATIVES, description="return the log-probability of each token, and of the likeliest"
    )
    echo: bool | None = Field(False, description="each text begins with its prompt, and so do its log-probabilities")

    chat_template_kwargs: Anything = None
    best_of: Annotated[Any, only(1)] = None
    suffix: Annotated[Any, only("")] = None


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
            Discriminator(_kind_of_choice),
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


class OpenAIErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    error: OpenAIErrorBody
