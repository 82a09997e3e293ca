"""PERSISTENT. The resident model behind guidance: constrained decoding for any number of threads at once.

`GuidedEngine` is a guidance Engine; agents use guidance's own language over it, and of ours only what spares time.
Its seam is `__call__`: a prompt and a whole grammar in, text and captures out. Nothing here knows agents, tools
or HTTP.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.engine.chat_model import ResidentChatModel
    from server.engine.engine import GuidedEngine, OutOfTokensError
    from server.engine.program import Prepared
    from server.engine.weights import GivenBack

__all__ = ["GivenBack", "GuidedEngine", "OutOfTokensError", "Prepared", "ResidentChatModel"]

_HOMES = {
    "GivenBack": "weights",
    "GuidedEngine": "engine",
    "OutOfTokensError": "engine",
    "Prepared": "program",
    "ResidentChatModel": "chat_model",
}


def __getattr__(name: str) -> Any:
    # When they are first asked for: they bring torch and LangChain, and whoever counts tokens needs neither.
    if name in _HOMES:
        return globals().setdefault(name, getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
