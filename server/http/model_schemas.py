"""The bodies of models: loading them, and their states."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from constants import BaseUrl
from server.http.schemas import EVENTS, Failure, LongName, Name, StrictRequest


class ModelChoice(StrictRequest):
    """A model and how to load it. The defaults are the settings."""

    model: LongName | None = Field(
        None,
        description="`embedded`, a Hugging Face id, a local folder or GGUF file, or a remote model: openai:NAME, "
        "anthropic:NAME, google_genai:NAME, mistralai:NAME, huggingface:NAME, ollama:NAME",
    )
    base_url: BaseUrl | None = Field(
        None,
        description="address of a remote model's API, instead of its provider's own. No key is sent there",
    )
    replace: bool = Field(True, description="replace the default model; if false, load it in addition to the others")
    load_in_8bit: bool | None = Field(None, description="8-bit weights")
    quantizer: Literal["bitsandbytes", "torchao", "torchao_fp8"] | None = Field(
        None, description="library for 8-bit weights"
    )
    device_map: Name | None = Field(None, description="auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["auto", "bfloat16", "float32"] | None = None


class ModelName(StrictRequest):
    """The name of a loaded model."""

    model: LongName | None = Field(None, description="default: all models")


class Progress(BaseModel):
    stage: str
    done: int
    total: int


class Model(BaseModel):
    name: str
    state: Literal["loading", "ready", "asleep", "failed"]
    device: str | None
    quantization: str | None = Field(
        description="8bit (bitsandbytes), int8 or fp8 (torchao), none, or the author's method; null: a remote model"
    )
    memory_bytes: int | None
    takes_images: bool | None = Field(description="whether it sees pictures; null while it loads")
    progress: Progress | None = Field(None, description="only while the model loads")
    error: Failure | None = Field(None, description="only if loading failed")


class ModelLoaded(BaseModel):
    """As a stream: events `progress` (stage, done, total), and `model` (this object) or `error`."""

    model_config = ConfigDict(openapi_extra={"content": EVENTS["content"]})  # type: ignore[typeddict-unknown-key]

    model: Model
    seconds: float


class ModelsShown(BaseModel):
    """The loaded models, as in `/health`."""

    model: Model | None
    models: list[Model]
    seconds: float


class GivenBack(BaseModel):
    model: str
    kv_bytes: int
    weights_bytes: int = Field(description="0 on the CPU, where weights can't be offloaded")


class ModelsSlept(ModelsShown):
    given_back: list[GivenBack] = Field(description="freed memory of the device, for each model that was awake")
