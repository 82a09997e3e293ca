"""The requests and responses of the routes for people's files."""

from typing import Any

from pydantic import BaseModel, Field

from server.http.request_parser import FORM
from server.http.schemas import SessionId, SessionPath, StrictRequest, WorkspaceQuery
from server.sandbox.analyses import Analysis

BINARY: dict[str, Any] = {"type": "string", "format": "binary"}
ANY_FILE: dict[str, Any] = {"content": {"*/*": {}}}
"""A file as an answer, of whatever type it has."""


def form_of(fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """The OpenAPI description of a form with `files` and these fields."""
    files = {"type": "array", "items": BINARY}
    schema = {"type": "object", "properties": {"files": files, **fields}, "required": required}
    return {FORM: {"schema": schema}}


class FilesQuery(WorkspaceQuery):
    """A workspace, and which of a session's files to list."""

    # Query parameters are text.
    limit: int = Field(100, ge=1, le=1000, strict=False)
    after: str = Field("", max_length=4096, description="list the files whose names come after this one")


class UploadFields(StrictRequest):
    """The fields of a form with files whose path names no session."""

    session_id: SessionId | None = Field(None, description="default: a new session")


class SessionFilePath(SessionPath):
    name: str = Field(description="like sales.csv, or plots/sales.png")


class FileSaved(BaseModel):
    name: str = Field(description="its name in the session; `sales-2.csv` if `sales.csv` is another file")
    bytes: int
    sha256: str
    type: str = Field(description="media type, by the content")
    uploaded_as: str = Field(description="the name that the client gave")


class FilesSaved(BaseModel):
    session_id: str
    workspace: str
    files: list[FileSaved]


class SessionFile(BaseModel):
    name: str
    bytes: int
    type: str = Field(description="media type, by the content")
    modified_at: str = Field(description="ISO 8601, UTC")


class SessionFilesListed(BaseModel):
    session_id: str
    workspace: str
    files: list[SessionFile] = Field(description="by name")
    has_more: bool = Field(description="whether there are files after these: ask again with `after`")
    is_complete: bool = Field(description="false if the session has too many files and folders to look at all")
    left_out: int = Field(description="links, special files, unreadable folders, names that are not UTF-8")


class SessionFileDeleted(BaseModel):
    session_id: str
    workspace: str
    name: str


class FileAnalysed(Analysis):
    """What is in a file."""

    session_id: str
    name: str
