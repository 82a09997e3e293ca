"""PERSISTENT. The resident model behind guidance: constrained decoding for any number of threads at once.

`GuidedEngine` is a guidance Engine. Its seam is `__call__`: a prompt and a whole grammar in, text and captures out.
Nothing here knows agents, tools or HTTP. What agents use of it stands in `server.sdk`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.engine.engine import GuidedEngine
    from server.engine.offload import GivenBack

__all__ = ["GivenBack", "GuidedEngine"]

_HOMES = {"GivenBack": "offload", "GuidedEngine": "engine"}


def __getattr__(name: str) -> Any:
    # When they are first asked for: they bring torch, and the rest of the server needs none.
    if name in _HOMES:
        return globals().setdefault(name, getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
