"""Weights that leave their place and come back, of every kind that is loaded here.

On a machine without a GPU the CPU stands for the device that they leave; what only a GPU shows is at the end.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from guidance import gen

from server.engine import GuidedEngine
from server.engine import offload as module
from server.engine.offload import Weights
from server.errors import ModelCannotSleepError, OutOfMemoryError
from server.model import LoadedModel, load_model

TOKENS = torch.arange(40)[None] * 7 % 500
KINDS: dict[str, dict[str, Any]] = {
    "none": {"load_in_8bit": False},
    "8bit": {"load_in_8bit": True},
    "int8": {"load_in_8bit": True, "quantizer": "torchao"},
    "fp8": {"load_in_8bit": True, "quantizer": "torchao_fp8"},
}


def load(kind: str, **changes: Any) -> LoadedModel:
    options = {"device_map": "cpu", "dtype": "float32", "int8_threshold": 6.0, **KINDS[kind], **changes}
    loaded = load_model("embedded", progress=lambda stage, done, total: None, **options)
    assert loaded.quantization == kind
    return loaded


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU counts as a device that weights can leave."""
    monkeypatch.setattr(module, "_is_host", lambda device: False)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=TOKENS, use_cache=False).logits
    return found


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_were_away_are_the_same(kind: str) -> None:
    model = load(kind).model
    before, weights = logits(model), Weights(model)
    size = weights.bytes
    largest = max(model.parameters(), key=lambda weight: weight.numel())
    for _ in range(2):
        assert weights.offload() == size
        assert weights.offload() == 0
        assert largest.untyped_storage().nbytes() == 0
        assert weights.bytes == size
        weights.restore()
        assert torch.equal(logits(model), before)
    assert weights.bytes == size


def test_quantized_weights_are_smaller() -> None:
    sizes = {kind: Weights(load(kind).model).bytes for kind in KINDS}
    assert sizes["none"] == load("none").model.get_memory_footprint()
    # The embedding stays as it is.
    assert sizes["8bit"] < sizes["int8"] < 0.4 * sizes["none"]


def test_on_the_cpu_there_is_nowhere_else_to_go() -> None:
    model = load("none").model
    before, weights = logits(model), Weights(model)
    assert weights.offload() == 0
    assert torch.equal(logits(model), before)
    weights.restore()


@pytest.mark.usefixtures("elsewhere")
def test_without_a_place_in_memory_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("none").model
    before, weights = logits(model), Weights(model)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(OutOfMemoryError, match="POST /unload_model") as refused:
        weights.offload()
    assert refused.value.details == {"needed_bytes": weights.bytes, "free_bytes": 1000}
    assert torch.equal(logits(model), before)


@pytest.mark.usefixtures("elsewhere")
def test_weights_that_cannot_move_stay() -> None:
    model = load("none", dtype="bfloat16").model  # as they are in the file, which they are mapped from
    before, weights = logits(model), Weights(model)
    with pytest.raises(ModelCannotSleepError, match="POST /unload_model"):
        weights.offload()
    assert torch.equal(logits(model), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_is_empty_while_the_model_sleeps(kind: str, write: Callable[[GuidedEngine], str]) -> None:
    loaded = load(kind, device_map="cuda", dtype="bfloat16")
    engine = GuidedEngine(loaded.model, loaded.tokenizer)
    del loaded
    before, taken = write(engine), torch.cuda.memory_allocated()
    given = engine.sleep()
    assert given.kv_bytes > 0 and given.weights_bytes > 0.9 * engine.weights_bytes
    left = torch.cuda.memory_allocated()
    assert left <= taken - given.kv_bytes - given.weights_bytes
    # Scales of quantized layers stay, and what cuBLAS works in.
    assert left < 0.1 * given.weights_bytes + 64 * 2**20
    engine.wake()
    assert write(engine) == before
    engine.close()


@pytest.fixture
def write() -> Callable[[GuidedEngine], str]:
    return lambda engine: str(engine.program() + "Count: one two " + gen(regex=r"[a-z ]+", max_tokens=20))
