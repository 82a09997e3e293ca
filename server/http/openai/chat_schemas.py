"""The requests of `/v1/chat/completions` and `/v1/completions`."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator
from pydantic.functional_validators import BeforeValidator
from pydantic_core import PydanticCustomError, from_json

from server.completions.logprobs import MOST_ALTERNATIVES
from server.http.openai.message_schemas import ChatMessage
from server.http.openai.schemas import (
    Anything,
    Asked,
    FunctionDefinition,
    FunctionName,
    JsonSchemaFormat,
    Keyword,
    Lenient,
    Stops,
    kind_of_choice,
    only,
)
from server.http.schemas import StrictRequest

MOST_TEXTS = 128
"""That one request may ask for."""
LONGEST_PATTERN = 10_000
LONGEST_GRAMMAR = 100_000
MOST_CHOICES = 1000


def listed_prompts(value: Any) -> Any:
    """One text, or the tokens of one, as a list of it."""
    is_tokens = isinstance(value, list) and bool(value) and not any(isinstance(one, str | list) for one in value)
    return [value] if is_tokens or isinstance(value, str) else value


def _kind_of_text(value: Any) -> str:
    return "tokens" if isinstance(value, list) else "text"


Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
TextOrTokens = Annotated[Annotated[str, Tag("text")] | Annotated[Tokens, Tag("tokens")], Discriminator(_kind_of_text)]


class ChatTool(Lenient):
    type: Literal["function"]
    function: FunctionDefinition


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
            Discriminator(kind_of_choice),
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
