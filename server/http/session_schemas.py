"""The bodies of sessions and notepads."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.functional_validators import field_validator
from pydantic_core import PydanticCustomError

from server.http.schemas import MARKDOWN, Name, StrictRequest, WorkspaceQuery


class ExportQuery(WorkspaceQuery):
    """A workspace, and the format of the export."""

    format: Literal["json", "markdown"] = "json"


class SessionsQuery(StrictRequest):
    """The workspace of sessions, and their maximum number."""

    workspace: Name | None = Field(None, description="default: all workspaces")
    limit: int = Field(100, ge=1, le=1000, strict=False)


Note = Annotated[str, StringConstraints(max_length=2000)]


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
