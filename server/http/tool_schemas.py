"""Requests and answers about the tools of a workspace: calls of one, and statistics."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from server.http.schemas import Name, StrictRequest, WorkspaceChoice, WorkspaceQuery


class ToolPath(StrictRequest):
    tool: Name


class ToolCall(WorkspaceChoice):
    """A tool's input."""

    input: dict[str, Any] = Field({}, description="the tool's arguments")
    generation: Name | None = Field(None, description="its hash, or the first digits; default: the live generation")


class ToolCallFailed(BaseModel):
    """Why a call has no result: also its `traceback`, or `signal`, `file` and `line` of a crash."""

    model_config = ConfigDict(extra="allow")

    type: str
    message: str


class ToolCallShown(BaseModel):
    tool: str
    workspace: str
    generation: str
    result: str | None = Field(description="null: the call failed")
    error: ToolCallFailed | None
    output: str = Field(description="what the tool printed")
    seconds: float = Field(description="how long the tool ran")


class StatisticsQuery(WorkspaceQuery):
    """A workspace, and how many of its runs count."""

    limit: int = Field(1000, ge=1, le=1000, strict=False, description="only the last so many runs of the workspace")


class ToolUseShown(BaseModel):
    tool: str
    generation: str
    calls: int
    failures: int
    p50_seconds: float | None = Field(description="median time of a call; null: no step has its time")
    p95_seconds: float | None
    last_at: float = Field(description="when the run of its last call was asked, in seconds since 1970")


class ToolsUsed(BaseModel):
    workspace: str
    statistics: list[ToolUseShown]


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
