"""The requests and responses of the routes for what the model saw."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from server.http.run_schemas import Usage
from server.http.schemas import RunId, StrictRequest

LARGEST = 10_000_000


class StepsQuery(StrictRequest):
    """Which part of a run's steps."""

    after: int = Field(0, ge=0, le=LARGEST, strict=False, description="only steps after the one with this number")
    limit: int = Field(100, ge=1, le=1000, strict=False)


class StepPath(RunId):
    step: int = Field(
        ge=1, le=LARGEST, strict=False, description="1 is the first; the answer is the step after the last"
    )


class TokensQuery(StrictRequest):
    """Which model call, by its number or by its step, and which part of its tokens."""

    call: int | None = Field(None, ge=1, le=LARGEST, strict=False, description="the number of a model call")
    step: int | None = Field(
        None, ge=1, le=LARGEST, strict=False, description="a step: its first model call by the agent"
    )
    after: int = Field(0, ge=0, le=LARGEST, strict=False, description="without so many of its first tokens")
    limit: int = Field(1000, ge=1, le=4000, strict=False)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.call is None) == (self.step is None):
            raise PydanticCustomError("one_of", "Give either call or step")
        return self


class StepLine(BaseModel):
    step: int
    replayed: bool = Field(description="taken from the record of the run that this one continues")
    tool: str
    thought: str = Field(description="shortened")
    seconds: float | None = Field(description="since the step before, its tool included; null: unknown")
    tool_seconds: float | None = Field(None, description="the same without the agent's model calls; null: unknown")
    tokens: int = Field(description="written by the model for this step, also for its tool")
    model_calls: int
    has_error: bool


class StepsListed(BaseModel):
    run_id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    count: int = Field(description="number of steps so far")
    steps: list[StepLine]


class ModelCallShown(BaseModel):
    call: int = Field(description="its number in the run, from 1")
    step: int
    tool: str | None = Field(description="the tool that asked; null: the agent")
    kind: Literal["text", "messages"] = Field(
        description="the prompt is a text that the model continues, or the JSON of a remote model's messages"
    )
    prompt: str | None = Field(description="null: the run's texts were too long to be recorded")
    written: str | None
    tokens: int = Field(description="number of tokens for `GET /runs/<run_id>/tokens`; 0 for a remote model")
    seconds: float
    usage: Usage
    sampling: dict[str, Any]
    previous_call: int | None = Field(description="the call before with the same `tool`, with which it is compared")
    shared_prefix: int = Field(description="characters at the beginning that both prompts have")
    diff: list[str] | None = Field(
        description="the lines after these, as a unified diff; null: there is no call before, or they are too long"
    )


class StepShown(BaseModel):
    """A step, or the answer: then without `tool`, and with `answer` or `error`."""

    model_config = ConfigDict(extra="allow")

    run_id: str
    step: int
    count: int
    replayed: bool | None = None
    thought: str | None = None
    tool: str | None = None
    input: dict[str, Any] | None = None
    observation: str | None = Field(None, description="what the model read of the tool's result")
    error: Any = Field(None, description="the message of the tool's error; of the answer: the run's error")
    traceback: str | None = None
    seconds: float | None = None
    answer: str | None = None
    model_calls: list[ModelCallShown]
    model_calls_left_out: int


class Alternative(BaseModel):
    id: int
    text: str
    bytes: str | None = Field(None, description="hexadecimal; only if they are no UTF-8 by themselves")
    logprob: float


class TokenShown(BaseModel):
    id: int
    text: str
    bytes: str | None = Field(None, description="hexadecimal; only if they are no UTF-8 by themselves")
    logprob: float | None = Field(description="at temperature 1, among the whole vocabulary; null: nothing before it")
    forced: bool = Field(description="whether the grammar allowed nothing else, or the token is the prompt's")
    top: list[Alternative] = Field(description="the five likeliest tokens in this place")


class TokensListed(BaseModel):
    run_id: str
    call: int
    step: int
    model: str
    count: int = Field(description="number of its tokens")
    tokens: list[TokenShown]
