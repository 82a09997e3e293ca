"""PERSISTENT. The resident model behind guidance: constrained decoding for any number of threads at once.

`GuidedEngine` is a guidance Engine; agents use guidance's own language over it and nothing of ours. Its seam is
`__call__`: a prompt and a whole grammar in, text and captures out. Nothing here knows agents, tools or HTTP.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.engine.chat_model import ResidentChatModel
    from server.engine.engine import GuidedEngine

__all__ = ["GuidedEngine", "ResidentChatModel"]


def __getattr__(name: str) -> Any:
    # When they are asked for: they bring torch and LangChain, and whoever counts tokens needs neither.
    if name == "GuidedEngine":
        from server.engine.engine import GuidedEngine

        return GuidedEngine
    if name == "ResidentChatModel":
        from server.engine.chat_model import ResidentChatModel

        return ResidentChatModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
