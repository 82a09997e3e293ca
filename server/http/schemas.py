"""The request and response models of the routes. Requests are validated by them, and OpenAPI is made from them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.functional_validators import AfterValidator, field_validator
from pydantic_core import PydanticCustomError

from constants import BaseUrl

LONGEST_QUESTION = 100_000
EVENTS: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
"""Server-sent events: `event: <kind>`, `data: <JSON>`, and an `id` that Last-Event-ID resumes from."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
LongName = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
"""Anything but the one character that a database can't hold."""
SessionId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Note = Annotated[str, StringConstraints(max_length=2000)]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "A question needs at least one character that is not white space")
    return text


class Taken(BaseModel):
    """A request. Values are not converted, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Nothing(Taken):
    """An empty object, or no body at all."""


class ModelChoice(Taken):
    """A model and how to load it; what is left out comes from the settings."""

    model: LongName | None = Field(
        None,
        description="`embedded`, a Hugging Face id, a local folder, or one behind an API: openai:NAME, "
        "anthropic:NAME, google_genai:NAME, mistralai:NAME, huggingface:NAME, ollama:NAME",
    )
    base_url: BaseUrl | None = Field(
        None,
        description="of a model behind an API: where it is asked, in place of its provider's own address. No key is "
        "sent there",
    )
    replace: bool = Field(
        True, description="in the place of the default model; else beside those that are there, as the last one"
    )
    load_in_8bit: bool | None = Field(None, description="8-bit weights")
    quantizer: Literal["bitsandbytes", "torchao", "torchao_fp8"] | None = Field(
        None, description="what makes 8-bit weights"
    )
    device_map: Name | None = Field(None, description="auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["auto", "bfloat16", "float32"] | None = None


class ModelName(Taken):
    """Which model."""

    model: LongName | None = Field(None, description="all, if it is left out")


class WorkspaceChoice(Taken):
    """Whose code."""

    workspace: Name = "main"


class TokenQuery(Taken):
    """Query parameters of every route."""

    token: str | None = Field(None, description="the token, if no header has it")


class WorkspaceQuery(WorkspaceChoice, TokenQuery):
    """Whose code, as a query."""


class HistoryQuery(WorkspaceQuery):
    """Whose code, and how far back."""

    # A query has only text.
    limit: int = Field(100, ge=1, le=1000, strict=False)


class ExportQuery(WorkspaceQuery):
    """Whose code, and the form."""

    format: Literal["json", "markdown"] = "json"


class DiffQuery(TokenQuery):
    """The generation to compare with."""

    to: Name = Field(description="a generation's hash, or at least the first 4 digits of it")


class RunsQuery(TokenQuery):
    """Whose runs or sessions, and how many."""

    workspace: Name | None = Field(None, description="of all workspaces, if it is left out")
    limit: int = Field(100, ge=1, le=1000, strict=False)


class WorkspaceName(Taken):
    workspace: str


class FilePath(WorkspaceName):
    path: str = Field(description="like tools/shout.py: below tools/ or agent/, or model.py")


class KeptName(WorkspaceName):
    name: str


class GenerationHash(Taken):
    generation: Name = Field(description="a generation's hash, or at least the first 4 digits of it")


class RunId(Taken):
    run_id: Name


class SessionPath(Taken):
    session_id: SessionId


class Entry(Taken):
    """The notepad's entry of an exchange."""

    turn: int = Field(ge=1, description="1 is the session's first question")
    run_id: Name | None = Field(None, description="the run that answered it; it need not be sent")
    title: Note | None = Field(None, description="null: a model has not written it yet, or could not")
    asked: Note
    done: list[Note] = Field([], max_length=100, description="the calls of tools")
    found: Note
    files: list[Note] = Field([], max_length=100)
    variables: list[Note] = Field([], max_length=100)


class Notepad(Taken):
    """The whole notepad; entries that are left out are deleted."""

    entries: list[Entry] = Field(max_length=10_000)

    @field_validator("entries")
    @classmethod
    def _once(cls, entries: list[Entry]) -> list[Entry]:
        if len({entry.turn for entry in entries}) < len(entries):
            raise PydanticCustomError("twice", "There are two entries of one turn")
        return entries


class Question(WorkspaceChoice):
    """A question, and what is to answer it."""

    question: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_QUESTION), AfterValidator(_not_blank)]
    agent: Name = Field(
        "react",
        description="`react` (tools, one after the other), `chat` (the model alone), `plan_execute` (a plan, step by "
        "step), `auto` (one of these, by the model's choice), or one of the workspace's own",
    )
    model: LongName | None = Field(None, description="one of those in `/health`; else the first of them")
    max_steps: int | None = Field(None, ge=1, le=32, description="tool calls it may take; else HEARTH_MAX_STEPS")
    session_id: SessionId | None = Field(
        None,
        description="the session that it continues or begins, in its workspace: letters, digits, `.`, `_` and `-`",
    )
    generation: Name | None = Field(
        None, description="the code that is to answer in place of the live one: its hash, or the first digits of it"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="tokens that it may write, less than HEARTH_MAX_TOKENS, which is what it may else"
    )
    timeout: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="seconds that it may take once it has its turn, less than HEARTH_RUN_TIMEOUT, which it may else",
    )
    priority: Literal["interactive", "batch"] = Field(
        "interactive", description="`batch` lets the questions of people who wait for an answer go first"
    )
    detach: bool = Field(
        False, description="continue when the connection is closed; otherwise closing it cancels the run"
    )


class ReloadChoice(WorkspaceChoice):
    """Which code to load."""

    dry_run: bool = Field(False, description="say what would happen, and change nothing")
    generation: Name | None = Field(
        None, description="an earlier generation to bring back: its hash, or the first digits of it"
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
        description="8bit (bitsandbytes), int8 or fp8 (torchao), none, or as it came; null of a model behind an API"
    )
    memory_bytes: int | None
    progress: Progress | None = Field(None, description="only while it loads")
    error: Failure | None = Field(None, description="only when it failed")


class ToolsCount(BaseModel):
    generation: str
    count: int


class WorkerShown(BaseModel):
    """A process that runs people's code."""

    workspace: str
    generation: str
    pid: int
    state: Literal["starting", "idle", "busy", "retired", "ended"]
    runs: int
    memory_bytes: int = Field(description="proportional set size, with the processes that it has started")
    cpu_seconds: float
    started_at: str = Field(description="ISO 8601, UTC")
    retired: str | None = Field(description="why it gets no new runs")


class WorkerMemory(BaseModel):
    bytes: int = Field(description="that each process may allocate")
    by: Literal["RLIMIT_DATA"]


class RunsCount(BaseModel):
    running: int
    queued: int


class Health(BaseModel):
    status: Literal["ok"]
    version: str
    model: Model | None = Field(description="the first of the models: the default, or the one that comes to be it")
    models: list[Model] = Field(description="all; while one replaces another, both")
    tools: ToolsCount | None = Field(description="of the workspace main")
    runs: RunsCount
    kv_bytes: int = Field(description="what KV memory takes")
    workers: list[WorkerShown] | None = Field(None, description="the processes of people's code; only with the token")
    worker_memory: WorkerMemory | None = Field(description="the limit that is in force; null: none")
    autoload_error: Failure | None = Field(None, description="only when loading at the start failed")
    store_error: Failure | None = Field(None, description="only when the last record could not be saved")


class ModelLoaded(BaseModel):
    """As a stream: events `progress` (stage, done, total), and `model` (this object) or `error`."""

    model_config = ConfigDict(openapi_extra={"content": EVENTS["content"]})  # type: ignore[typeddict-unknown-key]

    model: Model
    seconds: float


class ModelsShown(BaseModel):
    """The models that there are now, as `/health` has them."""

    model: Model | None
    models: list[Model]
    seconds: float


class GivenBack(BaseModel):
    model: str
    kv_bytes: int
    weights_bytes: int = Field(description="0 on the CPU, where weights have nowhere else to go")


class ModelsSlept(ModelsShown):
    given_back: list[GivenBack] = Field(description="by each model that was awake: memory of the device it is on")


class Tool(BaseModel):
    name: str
    description: str
    args_schema: dict[str, Any] = Field(description="JSON schema of its arguments")


class ToolsLoaded(BaseModel):
    workspace: str
    generation: str
    tools: list[Tool]


class Step(BaseModel):
    thought: str
    tool: str
    input: dict[str, Any]
    observation: str
    error: str | None = None


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
    base_url: str | None = Field(None, description="only of a model behind an API that isn't its provider's own")


class Provenance(BaseModel):
    hearth: str = Field(description="the server's version")
    agent: str
    max_steps: int
    max_tokens: int | None
    tool_timeout: float
    model: Identity


class NotReloaded(BaseModel):
    message: str
    errors: list[dict[str, Any]] = Field(description="as `reload_failed` has them; empty: it isn't the code's fault")


class Answer(BaseModel):
    """As a stream: the events `queued`, `started`, `token`, `step`, `plan`, and `answer` (this object) or `error`."""

    model_config = ConfigDict(openapi_extra={"content": EVENTS["content"]})  # type: ignore[typeddict-unknown-key]

    run_id: str
    answer: str
    function: str | None = Field(description="the tool that was called last")
    steps: list[Step]
    workspace: str
    generation: str
    model: str
    usage: Usage
    seconds: float = Field(description="from the question's arrival to its answer")
    queued_seconds: float = Field(description="how much of that it waited")
    provenance: Provenance = Field(description="what else decides the answer, besides question and generation")
    session_id: str | None = Field(None, description="only when the question belongs to one")
    details: dict[str, Any] | None = Field(
        None,
        description="what else the agent reports: the `plan` of plan_execute with each step's state, the `choice` of "
        "auto and its probability, `out_of_steps`; nothing: null",
    )
    not_reloaded: NotReloaded | None = Field(
        None, description="only when code has changed on disk that can't be loaded, and HEARTH_RELOAD looks for it"
    )
    not_recorded: Failure | None = Field(None, description="only when no record of the run could be saved")


class Replayed(Answer):
    replay_of: str
    same_answer: bool


class RunShown(BaseModel):
    """A run in any state; when it is done, with all that its answer had."""

    model_config = ConfigDict(extra="allow")

    run_id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    priority: Literal["interactive", "batch"] = "interactive"
    position: int | None = Field(None, description="only while it waits for its turn: 1 is next")
    asked: float = Field(description="seconds since 1970")
    question: str
    agent: str
    max_steps: int
    workspace: str
    generation: str | None
    model: str | None
    seconds: float
    queued_seconds: float
    error: Failure | None = Field(None, description="only when it has no answer")


class RunsListed(BaseModel):
    runs: list[RunShown]


class RunCancelled(BaseModel):
    run_id: str
    cancelled: Literal[True]


class SessionShown(BaseModel):
    session_id: str
    workspace: str
    title: str
    turns: int = Field(description="questions that were answered")
    created: float = Field(description="seconds since 1970")
    used: float = Field(description="when the last answer was given")


class SessionsListed(BaseModel):
    sessions: list[SessionShown]


class Message(BaseModel):
    turn: int
    role: Literal["user", "assistant"]
    content: str
    run_id: str
    time: float = Field(description="seconds since 1970")


class SessionTold(SessionShown):
    messages: list[Message]


class NotepadShown(BaseModel):
    session_id: str
    workspace: str
    entries: list[Entry]


class SessionExported(SessionTold):
    """Or, as it was asked for, the same in Markdown."""

    notepad: list[Entry]


class SessionDeleted(BaseModel):
    session_id: str
    workspace: str


class WorkspaceShown(BaseModel):
    workspace: str
    generation: str | None = Field(description="the live one; null: it was not used yet")


class WorkspacesListed(BaseModel):
    workspaces: list[WorkspaceShown]


class FileShown(BaseModel):
    path: str
    bytes: int


class FilesListed(BaseModel):
    workspace: str
    files: list[FileShown]


class FileWritten(FileShown):
    workspace: str


class KeptShown(BaseModel):
    name: str
    type: str
    bytes: int | None = Field(description="of its file; of a value that is not saved, what it says; null: unknown")
    built: float = Field(description="seconds since 1970")
    kind: Literal["saved", "in_worker"] = Field(
        description="saved on disk for later workers, or built by each worker, since it can't be pickled"
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
    runs: int = Field(description="how many recorded runs it answered, in any workspace")
    changed: list[str] | None = Field(description="files that differ from what was live before; null: nothing was")


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


class Reloaded(BaseModel):
    workspace: str
    generation: str
    previous: str | None
    changed: list[str]
    tools: ToolChanges
    seconds: float
    rebuilt: list[str] = Field(description="values of keep that can't be saved: each worker builds its own")


class ErrorBody(BaseModel):
    """`type` and `message`, and what else belongs to the type."""

    model_config = ConfigDict(extra="allow")

    type: str
    message: str


class ErrorAnswer(BaseModel):
    error: ErrorBody
