"""The model that every system serves."""

from server.engine import GuidedEngine
from server.model import load_model


def load_engine() -> GuidedEngine:
    """The embedded model behind guidance, on the CPU in float32, as Hearth has it there."""
    loaded = load_model(
        "embedded",
        load_in_8bit=False,
        device_map="cpu",
        dtype="float32",
        int8_threshold=6.0,
        progress=lambda stage, done, total: None,
    )
    return GuidedEngine(loaded.model, loaded.tokenizer)
