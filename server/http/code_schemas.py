"""Requests and answers about code in a session's sandbox."""

from pydantic import BaseModel, Field

from server.http.schemas import Name, SessionPath, StrictRequest
from server.sandbox.cells import Shown, Variable


class Code(StrictRequest):
    """A cell of code."""

    code: str = Field(max_length=200_000, description="Python")
    workspace: Name = "main"
    timeout: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="time limit in seconds; at most HEARTH_SANDBOX_TIMEOUT, the default",
    )


class CodeInterrupted(BaseModel):
    """The answer when code was interrupted."""

    session_id: str
    interrupted: bool


class VariablePath(SessionPath):
    name: Name


class VariablesListed(BaseModel):
    """The variables of a session."""

    session_id: str
    variables: list[Variable]


class VariableShown(Shown):
    """A variable."""

    name: str
