"""The bodies of questions, answers and runs."""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.functional_validators import AfterValidator
from pydantic_core import PydanticCustomError

from server.http.schemas import EVENTS, Failure, LongName, Name, SessionId, StrictRequest, WorkspaceChoice
from server.http.session_schemas import SessionsQuery

LONGEST_QUESTION = 100_000


def not_blank(text: str) -> str:
    """`text`. Raises pydantic's error if it has only white space."""
    if not text.strip():
        raise PydanticCustomError("blank", "A question needs at least one character that is not white space")
    return text


class Question(WorkspaceChoice):
    """A question, and how to answer it."""

    question: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_QUESTION), AfterValidator(not_blank)]
    agent: Name = Field(
        "react",
        description="`react` (tools, one after the other), `chat` (the model alone), `documents` (from documents, "
        "with citations), `plan_execute` (a plan, step by step), `auto` (one of these, by the model's choice), or an "
        "agent of the workspace",
    )
    model: LongName | None = Field(None, description="a model in `/health`; default: the first one")
    max_steps: int | None = Field(
        None, ge=1, le=32, description="maximum number of tool calls; default: HEARTH_MAX_STEPS"
    )
    session_id: SessionId | None = Field(
        None,
        description="the session that the question continues or begins: letters, digits, `.`, `_` and `-`",
    )
    images: list[Annotated[str, StringConstraints(min_length=1)]] = Field(
        default_factory=list,
        max_length=64,
        description="pictures that the question is about: names of files of the session, or data URLs; at most "
        "HEARTH_MAX_IMAGES",
    )
    generation: Name | None = Field(
        None, description="the generation that answers instead of the live one: its hash, or the first digits of it"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="maximum number of written tokens; at most HEARTH_MAX_TOKENS, the default"
    )
    timeout: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="time limit in seconds after it has left the queue; at most HEARTH_RUN_TIMEOUT, the default",
    )
    priority: Literal["interactive", "batch"] = Field(
        "interactive", description="`batch` has a lower priority than the questions of people who wait"
    )
    detach: bool = Field(
        False, description="continue when the connection is closed; otherwise closing it cancels the run"
    )


class Step(BaseModel):
    thought: str
    tool: str
    input: dict[str, Any]
    observation: str
    error: str | None = None
    traceback: str | None = Field(None, description="only when the tool raised an unexpected error; for people")


class Usage(BaseModel):
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int = Field(description="sampled from the model")
    forced_tokens: int = Field(description="written by the grammar without a choice")
    forward_passes: int


class Identity(BaseModel):
    name: str
    revision: str | None = Field(description="the commit of a model from Hugging Face")
    quantization: str | None
    dtype: str | None
    device: str | None
    base_url: str | None = Field(None, description="only for a remote model with another address than its provider's")


class Provenance(BaseModel):
    hearth: str = Field(description="the server's version")
    agent: str
    max_steps: int
    max_tokens: int | None
    tool_timeout: float
    model: Identity


class NotReloaded(BaseModel):
    message: str
    errors: list[dict[str, Any]] = Field(description="as in `reload_failed`; empty: the code is not the reason")


class ImageShown(BaseModel):
    """A picture, as it is stored, and how the model got it."""

    name: str
    sha256: str
    width: int
    height: int
    media_type: Literal["image/png", "image/jpeg"]
    bytes: int
    notes: list[str] = Field(default=[], description="what was changed in it")
    seen: bool = Field(False, description="whether a model has seen it")
    read_by: Literal["model", "ocr", "facts"] | None = Field(
        None, description="`ocr`: the text in it was read for the model; `facts`: only its size and colours are known"
    )
    tokens: int = Field(0, description="the maximum number of tokens that it takes each time it is sent")
    ocr_text: str | None = Field(None, description="the text that the model has read in its place")
    problem: str | None = Field(None, description="why there is no text")


class Citation(BaseModel):
    """Words of a document that a sentence of the answer rests on. They stand there: code has compared them."""

    document: str
    document_id: str
    page: int = Field(description="index of the page, from 0")
    page_label: str | None = Field(description="the page as printed; null: the document has no pages")
    quote: str = Field(description="exactly what stands in the document's text from start to end, on that page")
    start: int = Field(description="characters before the quote in the document's text")
    end: int
    score: float = Field(description="of the passage in its search; 1 if all documents were read")
    at: int = Field(description="characters of the answer up to the end of the sentence that the quote belongs to")


class ForkedFrom(BaseModel):
    """The run that a run continues."""

    run_id: str
    step: int = Field(description="the steps before this one are taken from that run's record")
    edited: list[str] = Field(description="names of what was changed")
    same_prompt: bool | None = Field(
        description="whether the agent's first model call had exactly the prompt of that step; null: there was none"
    )
    sampling: dict[str, Any] | None = Field(None, description="changed sampling parameters; only if there are any")


class Answer(BaseModel):
    """As a stream: the events `queued`, `started`, `token`, `step`, `plan`, and `answer` (this object) or `error`."""

    model_config = ConfigDict(openapi_extra={"content": EVENTS["content"]})  # type: ignore[typeddict-unknown-key]

    run_id: str
    answer: str
    function: str | None = Field(description="the last tool that was called")
    steps: list[Step]
    workspace: str
    generation: str
    model: str
    usage: Usage
    seconds: float = Field(description="time from the question to the answer")
    queued_seconds: float = Field(description="part of that time in the queue")
    provenance: Provenance = Field(description="what determines the answer, in addition to question and generation")
    session_id: str | None = Field(None, description="only if the question belongs to a session")
    forked_from: ForkedFrom | None = Field(None, description="only of a run that continues another one")
    details: dict[str, Any] | None = Field(
        None,
        description="further results of the agent: the `plan` of plan_execute with each step's state, the `choice` "
        "of auto with its probability, `out_of_steps`; of documents `searched`, `dropped` and `declined`; null: none",
    )
    images: list[ImageShown] | None = Field(
        None,
        description="the pictures of the question, and those that the agent has looked at; only if there are any",
    )
    citations: list[Citation] | None = Field(None, description="of the agent `documents`; null: none")
    tools_shown: list[str] | None = Field(
        None, description="the tools that the model was shown; only if it was not shown all of them"
    )
    not_reloaded: NotReloaded | None = Field(
        None, description="only if HEARTH_RELOAD found changed code on disk that can't be loaded"
    )
    not_recorded: Failure | None = Field(None, description="only if the run could not be saved")


class Replayed(Answer):
    replay_of: str
    same_answer: bool


class RunStarted(BaseModel):
    """A run that continues after this answer: with `Prefer: respond-async`."""

    run_id: str
    state: str


class RunQuery(StrictRequest):
    """How much of a run."""

    steps: bool = Field(True, strict=False, description="false: without its steps, which may be many")


class RunsQuery(SessionsQuery):
    """Filters of runs, and their maximum number."""

    state: Literal["queued", "running", "done", "failed", "cancelled"] | None = None
    agent: Name | None = None
    model: LongName | None = None
    session_id: SessionId | None = None
    text: Name | None = Field(None, description="a part of the question, in capital letters or small ones")
    since: AwareDatetime | None = Field(
        None, strict=False, description="only runs that were asked at this time or later: ISO 8601, with a time zone"
    )
    before: Name | None = Field(None, description="only runs that come after this one in the list")


class RunShown(BaseModel):
    """A run in any state. When it is done, it has all fields of its answer."""

    model_config = ConfigDict(extra="allow")

    run_id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    priority: Literal["interactive", "batch"] = "interactive"
    position: int | None = Field(None, description="position in the queue, only while it waits; 1 is next")
    asked: float = Field(description="seconds since 1970")
    question: str
    agent: str
    max_steps: int
    workspace: str
    generation: str | None
    model: str | None
    seconds: float
    queued_seconds: float
    tools_shown: list[str] | None = Field(None, description="only if the model was not shown all tools")
    error: Failure | None = Field(None, description="only if the run failed or was cancelled")


class RunsListed(BaseModel):
    runs: list[RunShown]


class RunCancelled(BaseModel):
    run_id: str
    cancelled: Literal[True]
