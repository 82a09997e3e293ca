"""Inference on the resident model: constrained decoding for any number of threads at once.

`GuidedEngine` is a guidance Engine. Its interface is `__call__`: a prompt and a whole grammar in, text and captures
out. Nothing here knows agents, tools or HTTP. `server.sdk` has what agents use of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.engine.engine import GuidedEngine
    from server.engine.offload import FreedMemory

__all__ = ["FreedMemory", "GuidedEngine"]

_HOMES = {"FreedMemory": "offload", "GuidedEngine": "engine"}


def __getattr__(name: str) -> Any:
    # Imported on first use: they import torch, which the rest of the server does not need.
    if name in _HOMES:
        return globals().setdefault(name, getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
