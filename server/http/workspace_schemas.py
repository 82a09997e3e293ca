"""The bodies of workspaces: their files and kept values."""

from typing import Literal

from pydantic import BaseModel, Field

from server.http.schemas import WorkspaceName


class FilePath(WorkspaceName):
    path: str = Field(description="like tools/shout.py: below tools/ or agent/, or model.py")


class KeptName(WorkspaceName):
    name: str


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
