"""The body of `/health`."""

from typing import Literal

from pydantic import BaseModel, Field

from server.http.model_schemas import Model
from server.http.schemas import Failure


class ToolsCount(BaseModel):
    generation: str
    count: int


class WorkerShown(BaseModel):
    """A worker process."""

    workspace: str
    generation: str
    pid: int
    state: Literal["starting", "idle", "busy", "retired", "ended"]
    runs: int
    memory_bytes: int = Field(description="proportional set size, including the processes that it has started")
    cpu_seconds: float
    started_at: str = Field(description="ISO 8601, UTC")
    retired: str | None = Field(description="why it gets no new runs")


class WorkerMemory(BaseModel):
    bytes: int = Field(description="memory that each process may allocate")
    by: Literal["RLIMIT_DATA"]


class RunsCount(BaseModel):
    running: int
    queued: int


class Health(BaseModel):
    status: Literal["ok"]
    version: str
    model: Model | None = Field(description="the first model: the default, or the one that is loading to become it")
    models: list[Model] = Field(description="all models; during a replacement, both")
    tools: ToolsCount | None = Field(description="of the workspace main")
    runs: RunsCount
    kv_bytes: int = Field(description="size of the KV cache")
    workers: list[WorkerShown] | None = Field(None, description="worker processes; only with the token")
    worker_memory: WorkerMemory | None = Field(description="null: no limit")
    autoload_error: Failure | None = Field(None, description="only if loading at the start failed")
    store_error: Failure | None = Field(None, description="only if the last run could not be saved")
