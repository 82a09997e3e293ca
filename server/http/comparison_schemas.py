"""The requests and responses of the routes for comparisons."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator
from pydantic.functional_validators import AfterValidator
from pydantic_core import PydanticCustomError

from server.http.description import REF
from server.http.file_schemas import form_of
from server.http.run_schemas import LONGEST_QUESTION, not_blank
from server.http.schemas import LongName, Name, StrictRequest, WorkspaceChoice

MOST_QUESTIONS = 5000
MOST_AT_ONCE = 16
REQUEST = "request"
"""The field of a form that has the rest of the request, as JSON."""
Text = Annotated[str, StringConstraints(max_length=LONGEST_QUESTION)]


class HistoryMessage(StrictRequest):
    """A message before the question."""

    role: Literal["user", "assistant", "system"]
    content: Text


class ComparedQuestion(StrictRequest):
    question: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_QUESTION), AfterValidator(not_blank)]
    expected: Text | None = Field(None, description="the expected answer")
    history: list[HistoryMessage] = Field([], max_length=200)


class ComparedSide(StrictRequest):
    """One of the two versions."""

    workspace: Name | None = Field(None, description="default: the comparison's")
    generation: Name | None = Field(
        None,
        description="its hash, or the first digits; default, or `live`: the generation that is live at the start",
    )
    model: LongName | None = Field(None, description="a model in `/health`; default: the first one")
    agent: Name = "react"
    max_steps: int | None = Field(None, ge=1, le=32, description="default: HEARTH_MAX_STEPS")
    instructions: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = Field(
        None, description="text before each question; or, with `{question}` in it, text around each question"
    )


class ComparedCheck(StrictRequest):
    """How answers are judged."""

    kind: Literal["equal", "contains", "tool", "model"] = Field(
        description="the answer equals or contains the expected one; a tool of side a judges; the model judges"
    )
    tool: Name | None = Field(
        None,
        description="a tool that takes `answer`, and perhaps `question` and `expected`, and returns true, false or a "
        "number; from 0.5 on, it counts as true",
    )

    @model_validator(mode="after")
    def _tool_or_none(self) -> Self:
        if (self.kind == "tool") != (self.tool is not None):
            raise PydanticCustomError("tool", "The kind tool needs the name of a tool, and no other kind takes one")
        return self


class NewComparison(WorkspaceChoice):
    """Two sides, and the questions for both: one of `questions` and `runs`."""

    name: Name | None = None
    questions: list[ComparedQuestion] | None = Field(None, min_length=1, max_length=MOST_QUESTIONS)
    runs: list[Name] | None = Field(
        None, min_length=1, max_length=1000, description="ids of runs, whose questions and histories are asked"
    )
    a: ComparedSide
    b: ComparedSide
    check: ComparedCheck | None = None
    at_once: int = Field(4, ge=1, le=MOST_AT_ONCE, description="maximum number of questions in flight")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.questions is None) == (self.runs is None):
            raise PydanticCustomError("source", "Send one of questions, runs, and a form with a file of questions")
        return self


class ComparisonPath(StrictRequest):
    comparison_id: Name


class ComparisonsQuery(StrictRequest):
    """The workspace of comparisons, and which part of the list."""

    workspace: Name | None = Field(None, description="default: all workspaces")
    before: Name | None = Field(
        None, description="only comparisons that came before this one: `next` of the last part"
    )
    limit: int = Field(100, ge=1, le=1000, strict=False)


class RowsQuery(StrictRequest):
    """The order of rows, and which part of the list."""

    order: Literal["changed", "number"] = Field(
        "changed",
        description="`changed`: first what the check judges differently, then other answers that differ, then the "
        "same answers, then what is not answered yet",
    )
    after: Annotated[str, StringConstraints(pattern=r"^[0-9]-[0-9]{1,9}$")] | None = Field(
        None, description="`next` of the last part"
    )
    limit: int = Field(100, ge=1, le=1000, strict=False)


class SideShown(BaseModel):
    workspace: str
    generation: str
    model: str
    agent: str
    max_steps: int
    instructions: str | None


class CheckShown(BaseModel):
    kind: Literal["equal", "contains", "tool", "model"]
    tool: str | None
    judge: str | None = Field(description="the model that judges")


class Reason(BaseModel):
    type: str
    message: str


class ComparisonShown(BaseModel):
    comparison_id: str
    name: str
    workspace: str
    state: Literal["running", "done", "failed", "cancelled", "interrupted"] = Field(
        description="`interrupted`: the server ended; `failed`: it could not continue. Both, and `cancelled`, can be "
        "resumed"
    )
    a: SideShown
    b: SideShown
    check: CheckShown | None
    at_once: int
    questions: int = Field(description="their number")
    answered: int = Field(description="how many of them both sides have ended")
    created_at: str = Field(description="ISO 8601, UTC")
    ended_at: str | None
    error: Reason | None


class Compared(BaseModel):
    """Medians of both sides, and of b - a of each question that both have answered."""

    median_a: float | None
    median_b: float | None
    median_difference: float | None


class OfBoth(BaseModel):
    a: int
    b: int


class Summary(BaseModel):
    questions: int
    answered: int
    changed: int = Field(description="questions to which the answers differ, or only one side has one")
    failed: OfBoth = Field(description="runs that ended with an error")
    judged: int = Field(description="questions of which both sides are judged")
    unjudged: int = Field(description="answered questions that have no check, no expected answer, or a failed check")
    correct: OfBoth = Field(description="of the judged ones. A run that failed counts as not correct")
    only_a_correct: int
    only_b_correct: int
    p: float | None = Field(description="exact McNemar test, two-sided; null: nothing was judged")
    tokens: Compared
    seconds: Compared


class ComparisonDetails(ComparisonShown):
    summary: Summary


class ComparisonsListed(BaseModel):
    comparisons: list[ComparisonShown]
    next: str | None


class ComparisonStarted(BaseModel):
    comparison_id: str
    state: Literal["running"]


class ComparisonDeleted(BaseModel):
    comparison_id: str


class CellShown(BaseModel):
    run_id: str | None = Field(description="null: it could not be asked")
    answer: str | None = Field(description="null: see `error`; of a long one, the middle is left out")
    error: Reason | None
    correct: bool | None = Field(description="null: nothing has judged it")
    score: float | None = Field(description="the number that a tool returned as a check")
    check_error: Reason | None = Field(description="why the check gave no result")
    tokens: int = Field(description="read and written ones")
    seconds: float = Field(description="without the time in the queue")


class RowShown(BaseModel):
    number: int = Field(description="from 1")
    question: str
    expected: str | None
    changed: bool | None = Field(description="null: not both sides have ended")
    a: CellShown | None = Field(description="null: not answered yet")
    b: CellShown | None


class RowsListed(BaseModel):
    rows: list[RowShown]
    next: str | None


def body() -> dict[str, Any]:
    """The OpenAPI description of the body that starts a comparison: JSON, or a form."""
    json_schema = NewComparison.model_json_schema(ref_template=REF)
    content = {
        "application/json": {"schema": json_schema},
        **form_of({REQUEST: {"type": "string", "description": "the other fields, as JSON"}}, ["files"]),
    }
    return {"requestBody": {"required": True, "content": content}}
