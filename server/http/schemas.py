"""The request and response models of the routes. Requests are validated by them, and OpenAPI is made from them.

Over 400 lines, one short class for each body.
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.functional_validators import AfterValidator, field_validator
from pydantic_core import PydanticCustomError

from constants import BaseUrl

LONGEST_QUESTION = 100_000
EVENTS: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
"""Server-sent events: `event: <kind>`, `data: <JSON>`, and an `id` that Last-Event-ID resumes from."""
MARKDOWN: dict[str, Any] = {"content": {"text/markdown": {"schema": {"type": "string"}}}}
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
LongName = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
"""Text without the null character, which databases can't store."""
SessionId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Note = Annotated[str, StringConstraints(max_length=2000)]


def not_blank(text: str) -> str:
    """`text`. Raises pydantic's error if it has only white space."""
    if not text.strip():
        raise PydanticCustomError("blank", "A question needs at least one character that is not white space")
    return text


class StrictRequest(BaseModel):
    """A request. Values are not converted, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


class EmptyRequest(StrictRequest):
    """An empty object, or no body at all."""


class ModelChoice(StrictRequest):
    """A model and how to load it. The defaults are the settings."""

    model: LongName | None = Field(
        None,
        description="`embedded`, a Hugging Face id, a local folder or GGUF file, or a remote model: openai:NAME, "
        "anthropic:NAME, google_genai:NAME, mistralai:NAME, huggingface:NAME, ollama:NAME",
    )
    base_url: BaseUrl | None = Field(
        None,
        description="address of a remote model's API, instead of its provider's own. No key is sent there",
    )
    replace: bool = Field(True, description="replace the default model; if false, load it in addition to the others")
    load_in_8bit: bool | None = Field(None, description="8-bit weights")
    quantizer: Literal["bitsandbytes", "torchao", "torchao_fp8"] | None = Field(
        None, description="library for 8-bit weights"
    )
    device_map: Name | None = Field(None, description="auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["auto", "bfloat16", "float32"] | None = None


class ModelName(StrictRequest):
    """The name of a loaded model."""

    model: LongName | None = Field(None, description="default: all models")


class WorkspaceChoice(StrictRequest):
    """A workspace."""

    workspace: Name = "main"


class NoQuery(StrictRequest):
    """No query parameters."""


class WorkspaceQuery(WorkspaceChoice):
    """A workspace, as a query parameter."""


class HistoryQuery(WorkspaceQuery):
    """A workspace, and the maximum number of items."""

    # Query parameters are text.
    limit: int = Field(100, ge=1, le=1000, strict=False)


class ExportQuery(WorkspaceQuery):
    """A workspace, and the format of the export."""

    format: Literal["json", "markdown"] = "json"


class DiffQuery(StrictRequest):
    """The generation to compare with."""

    to: Name = Field(description="a generation's hash, or at least the first 4 digits of it")


class RunStarted(BaseModel):
    """A run that continues after this answer: with `Prefer: respond-async`."""

    run_id: str
    state: str


class RunQuery(StrictRequest):
    """How much of a run."""

    steps: bool = Field(True, strict=False, description="false: without its steps, which may be many")


class SessionsQuery(StrictRequest):
    """The workspace of sessions, and their maximum number."""

    workspace: Name | None = Field(None, description="default: all workspaces")
    limit: int = Field(100, ge=1, le=1000, strict=False)


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


class WorkspaceName(StrictRequest):
    workspace: str


class FilePath(WorkspaceName):
    path: str = Field(description="like tools/shout.py: below tools/ or agent/, or model.py")


class KeptName(WorkspaceName):
    name: str


class GenerationHash(StrictRequest):
    generation: Name = Field(description="a generation's hash, or at least the first 4 digits of it")


class GenerationFilePath(GenerationHash):
    path: str = Field(description="like tools/shout.py")


class RunId(StrictRequest):
    run_id: Name


class SessionPath(StrictRequest):
    session_id: SessionId


class Entry(StrictRequest):
    """The notepad entry of an exchange."""

    turn: int = Field(ge=1, description="1 is the session's first question")
    run_id: Name | None = Field(None, description="the run that answered it; optional in requests")
    title: Note | None = Field(None, description="null: no model has written it yet, or it failed")
    asked: Note
    done: list[Note] = Field([], max_length=100, description="tool calls")
    found: Note
    files: list[Note] = Field([], max_length=100)
    variables: list[Note] = Field([], max_length=100)


class Notepad(StrictRequest):
    """The whole notepad; entries that are left out are deleted."""

    entries: list[Entry] = Field(max_length=10_000)

    @field_validator("entries")
    @classmethod
    def _once(cls, entries: list[Entry]) -> list[Entry]:
        if len({entry.turn for entry in entries}) < len(entries):
            raise PydanticCustomError("twice", "Two entries have the same turn")
        return entries


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


class ReloadChoice(WorkspaceChoice):
    """The code to load."""

    dry_run: bool = Field(False, description="only report what would change")
    generation: Name | None = Field(
        None, description="an earlier generation to make live again: its hash, or the first digits of it"
    )


class Progress(BaseModel):
    stage: str
    done: int
    total: int


class Failure(BaseModel):
    type: str
    message: str


class Model(BaseModel):
    name: str
    state: Literal["loading", "ready", "asleep", "failed"]
    device: str | None
    quantization: str | None = Field(
        description="8bit (bitsandbytes), int8 or fp8 (torchao), none, or the author's method; null: a remote model"
    )
    memory_bytes: int | None
    takes_images: bool | None = Field(description="whether it sees pictures; null while it loads")
    progress: Progress | None = Field(None, description="only while the model loads")
    error: Failure | None = Field(None, description="only if loading failed")


class ToolsCount(BaseModel):
    generation: str
    count: int


class WorkerShown(BaseModel):
    """A worker process."""

    workspace: str
    generation: str
    pid: int
    state: Literal["starting", "idle", "busy", "retired", "ended"]
    runs: int
    memory_bytes: int = Field(description="proportional set size, including the processes that it has started")
    cpu_seconds: float
    started_at: str = Field(description="ISO 8601, UTC")
    retired: str | None = Field(description="why it gets no new runs")


class WorkerMemory(BaseModel):
    bytes: int = Field(description="memory that each process may allocate")
    by: Literal["RLIMIT_DATA"]


class RunsCount(BaseModel):
    running: int
    queued: int


class Health(BaseModel):
    status: Literal["ok"]
    version: str
    model: Model | None = Field(description="the first model: the default, or the one that is loading to become it")
    models: list[Model] = Field(description="all models; during a replacement, both")
    tools: ToolsCount | None = Field(description="of the workspace main")
    runs: RunsCount
    kv_bytes: int = Field(description="size of the KV cache")
    workers: list[WorkerShown] | None = Field(None, description="worker processes; only with the token")
    worker_memory: WorkerMemory | None = Field(description="null: no limit")
    autoload_error: Failure | None = Field(None, description="only if loading at the start failed")
    store_error: Failure | None = Field(None, description="only if the last run could not be saved")


class ModelLoaded(BaseModel):
    """As a stream: events `progress` (stage, done, total), and `model` (this object) or `error`."""

    model_config = ConfigDict(openapi_extra={"content": EVENTS["content"]})  # type: ignore[typeddict-unknown-key]

    model: Model
    seconds: float


class ModelsShown(BaseModel):
    """The loaded models, as in `/health`."""

    model: Model | None
    models: list[Model]
    seconds: float


class GivenBack(BaseModel):
    model: str
    kv_bytes: int
    weights_bytes: int = Field(description="0 on the CPU, where weights can't be offloaded")


class ModelsSlept(ModelsShown):
    given_back: list[GivenBack] = Field(description="freed memory of the device, for each model that was awake")


class Tool(BaseModel):
    name: str
    description: str
    args_schema: dict[str, Any] = Field(description="JSON schema of its arguments")
    background: bool = Field(description="whether an agent's call of it starts a job")


class ToolLeftOut(BaseModel):
    name: str
    reason: str = Field(description="what is missing, and what to do")


class ToolsLoaded(BaseModel):
    workspace: str
    generation: str
    tools: list[Tool]
    absent: list[ToolLeftOut] = Field(description="tools of this code that this server can't offer")


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


class JobPath(StrictRequest):
    job_id: str


class NewJob(WorkspaceChoice):
    """A tool and its input."""

    tool: Name
    input: dict[str, Any] = Field({}, description="the tool's arguments")
    generation: Name | None = Field(None, description="its hash, or the first digits; default: the live generation")
    session_id: SessionId | None = Field(None, description="the session that is woken at the job's end")
    priority: int = Field(0, ge=-100, le=100, description="among your own jobs; the higher number is next")
    timeout: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="time limit in seconds; at most HEARTH_JOB_TIMEOUT, the default",
    )


class JobsQuery(StrictRequest):
    """Filters of jobs, and their maximum number."""

    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "lost"] | None = None
    session_id: SessionId | None = None
    workspace: Name | None = Field(None, description="default: all workspaces")
    before: Name | None = Field(None, description="only jobs that came before this one")
    limit: int = Field(100, ge=1, le=1000, strict=False)


class JobStarted(BaseModel):
    job_id: str
    state: Literal["queued"]
    retry_of: str | None = Field(None, description="only after a retry")


class JobProgress(BaseModel):
    done: float
    total: float | None = None
    message: str | None = None


class JobShown(BaseModel):
    job_id: str
    workspace: str
    generation: str
    tool: str
    input: dict[str, Any]
    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "lost"]
    priority: int
    timeout_seconds: float
    tries: int = Field(description="how often it was started")
    created_at: str = Field(description="ISO 8601, UTC")
    started_at: str | None = Field(None, description="only after its start")
    ended_at: str | None = Field(None, description="only after its end")
    session_id: str | None = Field(None, description="only if it belongs to a session")
    run_id: str | None = Field(None, description="the run that started it, if one did")
    retry_of: str | None = Field(None, description="the job that it repeats, if it does")
    progress: JobProgress | None = Field(None, description="only if the tool reports it")
    result: str | None = Field(None, description="only of a job that succeeded")
    error: Failure | None = Field(None, description="only of a job that failed or was lost")


class JobsListed(BaseModel):
    jobs: list[JobShown]


class SessionShown(BaseModel):
    session_id: str
    workspace: str
    title: str
    turns: int = Field(description="number of answered questions")
    created: float = Field(description="seconds since 1970")
    used: float = Field(description="time of the last answer, in seconds since 1970")


class SessionsListed(BaseModel):
    sessions: list[SessionShown]


class SessionMessage(BaseModel):
    turn: int
    role: Literal["user", "system", "assistant"] = Field(description="`system`: jobs have ended")
    username: str | None = Field(None, description="only of a user's message, with accounts: who has asked")
    content: str
    run_id: str
    time: float = Field(description="seconds since 1970")


class SessionMessages(SessionShown):
    messages: list[SessionMessage]


class NotepadShown(BaseModel):
    session_id: str
    workspace: str
    entries: list[Entry]


class SessionExported(SessionMessages):
    """With `format=markdown`, the same as Markdown text."""

    model_config = ConfigDict(openapi_extra={"content": MARKDOWN["content"]})  # type: ignore[typeddict-unknown-key]

    notepad: list[Entry]


class SessionDeleted(BaseModel):
    session_id: str
    workspace: str


class WorkspaceShown(BaseModel):
    workspace: str
    generation: str | None = Field(description="the live generation; null: the workspace has not been used yet")


class WorkspacesListed(BaseModel):
    workspaces: list[WorkspaceShown]


class FileShown(BaseModel):
    path: str
    bytes: int


class FilesListed(BaseModel):
    workspace: str
    files: list[FileShown]


class GenerationFiles(BaseModel):
    generation: str
    files: list[FileShown]


class FileWritten(FileShown):
    workspace: str


class KeptShown(BaseModel):
    name: str
    type: str
    bytes: int | None = Field(
        description="size of its file; for a value that is not saved, the size that it reports; null: unknown"
    )
    built: float = Field(description="seconds since 1970")
    kind: Literal["saved", "in_worker"] = Field(
        description="saved on disk for later workers, or built by each worker because it can't be pickled"
    )


class KeptListed(BaseModel):
    workspace: str
    kept: list[KeptShown]


class KeptDropped(BaseModel):
    workspace: str
    name: str


class GenerationShown(BaseModel):
    generation: str
    time: float = Field(description="when it became live, in seconds since 1970")
    runs: int = Field(description="number of saved runs that it answered, in all workspaces")
    changed: list[str] | None = Field(
        description="files that differ from the generation before; null: it is the first one"
    )


class GenerationsListed(BaseModel):
    workspace: str
    live: str | None
    generations: list[GenerationShown]


class FileDiff(BaseModel):
    path: str
    diff: str


class GenerationsDiffer(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    before: str = Field(alias="from")
    to: str
    files: list[FileDiff]


class GenerationDeleted(BaseModel):
    generation: str


class ToolChanges(BaseModel):
    added: list[str]
    removed: list[str]
    changed: list[str]


class ReloadWarning(BaseModel):
    file: str
    message: str


class Reloaded(BaseModel):
    workspace: str
    generation: str
    previous: str | None
    changed: list[str]
    tools: ToolChanges
    seconds: float
    rebuilt: list[str] = Field(description="values of keep that can't be saved, so each worker builds its own")
    warnings: list[ReloadWarning] = Field(
        description="what was loaded and may not be what its author meant, such as a file that can't be imported"
    )


class ErrorBody(BaseModel):
    """`type` and `message`, and the fields of this type of error."""

    model_config = ConfigDict(extra="allow")

    type: str
    message: str


class ErrorAnswer(BaseModel):
    error: ErrorBody
