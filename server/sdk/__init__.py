"""What tools and agents may import from Hearth: this package, and nothing else of the server's.

Their code runs in workers, processes of their own. This package works in the worker, and reaches the model in the
server's process over a socket.

For tools:

- `keep(name, factory)`: a value that is costly to build, saved for later versions of the code.
- `ResidentChatModel`: the type of the `llm` that `load_tools(llm)` and `build_tool(llm)` get, a LangChain chat model.
- `check_cancelled()`: raises `RunCancelledError` if the run that calls the tool was stopped. Call it in long loops.

For agents:

- `GuidedModel`, `ApiModel`: the two kinds of model that an agent gets. `model.guided` says which it is.
- `call_tool(tool, arguments, seconds)`: a tool's result as text, within its time limit; `ToolFailedError`.
- `arguments_schema(tool)`: the JSON schema of a tool's arguments.
- `tell_step(step)`, `tell_plan(steps)`: send a finished step, or the plan, to the readers of the run.
- `usage.measured()`, `logprobs.measured()`: tokens and log-probabilities of what the model writes in a block.
- `Prepared(words)`: a guidance grammar in its serialised form, for one that is used again and again.
- `PromptTooLongError`, `UnreadableReplyError`, `SchemaRefusedError`, `RunCancelledError`: the errors that models
  raise, and agents may handle or raise themselves.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.errors import (
        OutOfTokensError,
        PromptTooLongError,
        RunCancelledError,
        SchemaRefusedError,
        UnreadableReplyError,
    )
    from server.sdk import logprobs, usage
    from server.sdk.cancellation import check as check_cancelled
    from server.sdk.chat_model import ResidentChatModel
    from server.sdk.models import ApiModel, GuidedModel
    from server.sdk.program import Prepared
    from server.sdk.run import tell_plan, tell_step
    from server.sdk.saved_values import KeepError, keep
    from server.sdk.tool_call import ToolFailedError, call_tool
    from server.sdk.tool_schema import arguments_schema

__all__ = [
    "ApiModel",
    "GuidedModel",
    "KeepError",
    "OutOfTokensError",
    "Prepared",
    "PromptTooLongError",
    "ResidentChatModel",
    "RunCancelledError",
    "SchemaRefusedError",
    "ToolFailedError",
    "UnreadableReplyError",
    "arguments_schema",
    "call_tool",
    "check_cancelled",
    "keep",
    "logprobs",
    "tell_plan",
    "tell_step",
    "usage",
]

_HOMES = {
    "ApiModel": "server.sdk.models",
    "GuidedModel": "server.sdk.models",
    "KeepError": "server.sdk.saved_values",
    "OutOfTokensError": "server.errors",
    "Prepared": "server.sdk.program",
    "PromptTooLongError": "server.errors",
    "ResidentChatModel": "server.sdk.chat_model",
    "RunCancelledError": "server.errors",
    "SchemaRefusedError": "server.errors",
    "ToolFailedError": "server.sdk.tool_call",
    "UnreadableReplyError": "server.errors",
    "arguments_schema": "server.sdk.tool_schema",
    "call_tool": "server.sdk.tool_call",
    "check_cancelled": "server.sdk.cancellation",
    "keep": "server.sdk.saved_values",
    "tell_plan": "server.sdk.run",
    "tell_step": "server.sdk.run",
}

_RENAMED = {"likelihood": "logprobs"}
"""Old names, which code of earlier generations imports, and the new ones."""


def __getattr__(name: str) -> Any:
    # Imported on first use: some import guidance and LangChain, which the server's start does not need.
    if name in _RENAMED:
        raise ImportError(f"server.sdk.{name} is called server.sdk.{_RENAMED[name]} now.", name=__name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    attribute = "check" if name == "check_cancelled" else name
    return globals().setdefault(name, getattr(importlib.import_module(home), attribute))
