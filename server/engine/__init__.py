"""PERSISTENT. The resident model behind guidance: constrained decoding for any number of threads at once.

`GuidedEngine` is a guidance Engine; agents use guidance's own language over it and nothing of ours. Its seam is
`__call__`: a prompt and a whole grammar in, text and captures out. Nothing here knows agents, tools or HTTP.
"""

from server.engine.chat_model import ResidentChatModel
from server.engine.engine import GuidedEngine, OutOfTokensError
from server.engine.weights import GivenBack

__all__ = ["GivenBack", "GuidedEngine", "OutOfTokensError", "ResidentChatModel"]
