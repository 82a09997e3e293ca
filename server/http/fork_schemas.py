"""The request of `POST /runs/<id>/fork`."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic.functional_validators import AfterValidator
from pydantic_core import PydanticCustomError

from server.bounds import LONGEST_TEXT
from server.http.run_schemas import LONGEST_QUESTION
from server.http.schemas import Name, StrictRequest
from server.http.trace_schemas import LARGEST


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", "A lone surrogate is no character") from None
    return text


Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT), AfterValidator(_encodable)]
Words = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_QUESTION), AfterValidator(_encodable)]


class ContinueFrom(StrictRequest):
    """A token of a model call."""

    call: int = Field(ge=1, le=LARGEST, description="the number of a model call: the agent's first one in its step")
    token: int = Field(ge=0, le=LARGEST, description="the index of the token before which its text is cut off")
    text: Text = Field("", description="what stands there instead; without it the model chooses anew")


class Sampling(StrictRequest):
    """Sampling parameters of the agent's model calls; those left out are as in the run."""

    temperature: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=1, le=LARGEST)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=100, allow_inf_nan=False)
    seed: int | None = Field(None, ge=0, lt=2**63)


class Message(StrictRequest):
    role: Literal["system", "user", "assistant"]
    content: Text


class ForkRequest(StrictRequest):
    """At which step to continue a run, and what to change. What is left out is as in the run."""

    step: int | None = Field(
        None,
        ge=1,
        le=LARGEST,
        description="the first step that is made anew; the answer is the step after the last. Default: that of "
        "`continue_from`",
    )
    observation: Text | None = Field(
        None, description="of the step before: what the model reads as the tool's result"
    )
    rerun_tool: bool = Field(False, description="call the tool of the step before again")
    thought: Text | None = Field(None, description="of the step before")
    input: dict[str, Any] | None = Field(None, description="of the step before: the tool's input")
    question: Words | None = None
    history: list[Message] | None = Field(None, max_length=1000, description="the messages before the question")
    agent: Name | None = None
    workspace: Name | None = None
    generation: Name | None = Field(
        None, description="`live` for the workspace's live one, or a hash or its first digits; default: the run's own"
    )
    sampling: Sampling = Sampling()
    continue_from: ContinueFrom | None = None
    detach: bool = Field(
        False, description="continue when the connection is closed; otherwise closing it cancels the run"
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.step is None and self.continue_from is None:
            raise PydanticCustomError("missing", "Say at which step the run is to continue, or continue_from")
        return self
