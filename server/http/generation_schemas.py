"""The bodies of generations and reloads."""

from pydantic import BaseModel, ConfigDict, Field

from server.http.schemas import Name, StrictRequest, WorkspaceChoice
from server.http.workspace_schemas import FileShown


class DiffQuery(StrictRequest):
    """The generation to compare with."""

    to: Name = Field(description="a generation's hash, or at least the first 4 digits of it")


class GenerationHash(StrictRequest):
    generation: Name = Field(description="a generation's hash, or at least the first 4 digits of it")


class GenerationFilePath(GenerationHash):
    path: str = Field(description="like tools/shout.py")


class GenerationFiles(BaseModel):
    generation: str
    files: list[FileShown]


class GenerationShown(BaseModel):
    generation: str
    time: float = Field(description="when it became live, in seconds since 1970")
    runs: int = Field(description="number of saved runs that it answered, in all workspaces")
    changed: list[str] | None = Field(
        description="files that differ from the generation before; null: it is the first one"
    )


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


class ReloadChoice(WorkspaceChoice):
    """The code to load."""

    dry_run: bool = Field(False, description="only report what would change")
    generation: Name | None = Field(
        None, description="an earlier generation to make live again: its hash, or the first digits of it"
    )


class ToolChanges(BaseModel):
    added: list[str]
    removed: list[str]
    changed: list[str]


class ReloadWarning(BaseModel):
    file: str
    message: str


class Reloaded(BaseModel):
    workspace: str
    generation: str
    previous: str | None
    changed: list[str]
    tools: ToolChanges
    seconds: float
    rebuilt: list[str] = Field(description="values of keep that can't be saved, so each worker builds its own")
    warnings: list[ReloadWarning] = Field(
        description="what was loaded and may not be what its author meant, such as a file that can't be imported"
    )
