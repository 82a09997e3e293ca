"""What the bodies of several routes share. Requests are validated by these models, and OpenAPI is made from them.

The bodies of one subject are in `<subject>_schemas.py`.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

EVENTS: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
"""Server-sent events: `event: <kind>`, `data: <JSON>`, and an `id` that Last-Event-ID resumes from."""
MARKDOWN: dict[str, Any] = {"content": {"text/markdown": {"schema": {"type": "string"}}}}
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
LongName = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
"""Text without the null character, which databases can't store."""
SessionId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class StrictRequest(BaseModel):
    """A request. Values are not converted, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


class EmptyRequest(StrictRequest):
    """An empty object, or no body at all."""


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


class WorkspaceName(StrictRequest):
    workspace: str


class RunId(StrictRequest):
    run_id: Name


class SessionPath(StrictRequest):
    session_id: SessionId


class Failure(BaseModel):
    type: str
    message: str


class ErrorBody(BaseModel):
    """`type` and `message`, and the fields of this type of error."""

    model_config = ConfigDict(extra="allow")

    type: str
    message: str


class ErrorAnswer(BaseModel):
    error: ErrorBody
