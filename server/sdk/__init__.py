"""What tools and agents may import from Hearth: this package, and nothing else of the server's.

Their code runs in workers, processes of their own. This package works in the worker, and reaches the model in the
server's process over a socket.

For tools:

- `keep(name, factory)`: a value that is costly to build, saved for later versions of the code.
- `ResidentChatModel`: the type of the `llm` that `load_tools(llm)` and `build_tool(llm)` get, a LangChain chat model.
- `progress(done, total, message)`: reports how far a job is.
- `shared`: a dictionary that the tools and jobs of a session share.
- `run_code(code)`: runs Python in the session's sandbox. Code that a model wrote belongs there, never into `exec`.
- `search_documents(query)`, `read_pages(document_id, first, last)`, `list_documents()`, `has_documents()`: the
  documents that the run may read.
- `search_web(query)`, `read_web_page(url)`: the web, as far as the server allows it. What they give is `WebResults`
  and `WebPage`, whose `str()` is marked as text from outside; `marked(text, source)` marks other texts.
- `need_internet(what, tool)`, `ToolAbsentError`: for `build_tool`, where this server can't offer a tool.
- `check_cancelled()`: raises `RunCancelledError` if the run that calls the tool was stopped. Call it in long loops.

For agents:

- `GuidedModel`, `ApiModel`: the two kinds of model that an agent gets. `model.guided` says which it is.
- `call_tool(tool, arguments, seconds)`: a tool's result as text, within its time limit; `ToolFailedError`.
- `job_tools()`: the tools by which an agent waits for jobs, cancels them, and asks after them.
- `wait_for_started(seconds)`: waits for the jobs that the run has started.
- `code_session()`, `has_code()`: files and variables of the session, and whether it has any.
- `image_names()`, `has_images()`, `look_at(name)`: pictures of the question and of the session.
- `arguments_schema(tool)`: the JSON schema of a tool's arguments.
- `grammar_schema(schema)`: what a grammar can say of a JSON schema, for `guidance.json`.
- `describe_type(schema, defs)`: the type of a value in a few words, from its JSON schema.
- `tell_step(step)`, `tell_plan(steps)`: send a finished step, or the plan, to the readers of the run.
- `replayed_steps()`: the steps that a fork of a run replays, for an agent with `replays = True`.
- `shown_tools`: how many tools to show the model, and how to report which.
- `usage.measured()`, `logprobs.measured()`: tokens and log-probabilities of what the model writes in a block.
- `Prepared(words)`: a guidance grammar in its serialised form, for one that is used again and again.
- `DocumentNotFoundError`, `PromptTooLongError`, `UnreadableReplyError`, `SchemaRefusedError`, `RunCancelledError`:
  the errors that documents and models raise, and agents may handle or raise themselves.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.errors import (
        DocumentNotFoundError,
        OutOfTokensError,
        PromptTooLongError,
        RunCancelledError,
        SchemaRefusedError,
        UnreadableReplyError,
    )
    from server.sdk import logprobs, shown_tools, usage
    from server.sdk.chat_model import ResidentChatModel
    from server.sdk.code import CodeResult, CodeSession, code_session, has_code, run_code
    from server.sdk.context import check_cancelled
    from server.sdk.documents import (
        DocumentPage,
        ListedDocument,
        Passage,
        has_documents,
        list_documents,
        read_pages,
        search_documents,
    )
    from server.sdk.images import LookedAt, has_images, image_names, look_at
    from server.sdk.internet import WebPage, WebResult, WebResults, need_internet, read_web_page, search_web
    from server.sdk.job_control import job_tools, wait_for_started
    from server.sdk.jobs import progress, shared
    from server.sdk.json_schema import describe_type
    from server.sdk.models import ApiModel, GuidedModel
    from server.sdk.program import Prepared
    from server.sdk.replay import ReplayedStep, replayed_steps
    from server.sdk.run import tell_plan, tell_step
    from server.sdk.saved_values import KeepError, keep
    from server.sdk.schema_grammar import grammar_schema
    from server.sdk.tool_absent import ToolAbsentError
    from server.sdk.tool_call import call_tool
    from server.sdk.tool_error import ToolFailedError
    from server.sdk.tool_schema import arguments_schema
    from server.sdk.untrusted import marked

__all__ = [
    "ApiModel",
    "CodeResult",
    "CodeSession",
    "DocumentNotFoundError",
    "DocumentPage",
    "GuidedModel",
    "KeepError",
    "ListedDocument",
    "LookedAt",
    "OutOfTokensError",
    "Passage",
    "Prepared",
    "PromptTooLongError",
    "ReplayedStep",
    "ResidentChatModel",
    "RunCancelledError",
    "SchemaRefusedError",
    "ToolAbsentError",
    "ToolFailedError",
    "UnreadableReplyError",
    "WebPage",
    "WebResult",
    "WebResults",
    "arguments_schema",
    "call_tool",
    "check_cancelled",
    "code_session",
    "describe_type",
    "grammar_schema",
    "has_code",
    "has_documents",
    "has_images",
    "image_names",
    "job_tools",
    "keep",
    "list_documents",
    "logprobs",
    "look_at",
    "marked",
    "need_internet",
    "progress",
    "read_pages",
    "read_web_page",
    "replayed_steps",
    "run_code",
    "search_documents",
    "search_web",
    "shared",
    "shown_tools",
    "tell_plan",
    "tell_step",
    "usage",
    "wait_for_started",
]

_HOMES = {
    "ApiModel": "server.sdk.models",
    "DocumentNotFoundError": "server.errors",
    "CodeResult": "server.sdk.code",
    "CodeSession": "server.sdk.code",
    "DocumentPage": "server.sdk.documents",
    "GuidedModel": "server.sdk.models",
    "KeepError": "server.sdk.saved_values",
    "ListedDocument": "server.sdk.documents",
    "LookedAt": "server.sdk.images",
    "OutOfTokensError": "server.errors",
    "Passage": "server.sdk.documents",
    "Prepared": "server.sdk.program",
    "PromptTooLongError": "server.errors",
    "ReplayedStep": "server.sdk.replay",
    "ResidentChatModel": "server.sdk.chat_model",
    "RunCancelledError": "server.errors",
    "SchemaRefusedError": "server.errors",
    "ToolAbsentError": "server.sdk.tool_absent",
    "ToolFailedError": "server.sdk.tool_error",
    "UnreadableReplyError": "server.errors",
    "WebPage": "server.sdk.internet",
    "WebResult": "server.sdk.internet",
    "WebResults": "server.sdk.internet",
    "arguments_schema": "server.sdk.tool_schema",
    "call_tool": "server.sdk.tool_call",
    "check_cancelled": "server.sdk.context",
    "code_session": "server.sdk.code",
    "describe_type": "server.sdk.json_schema",
    "grammar_schema": "server.sdk.schema_grammar",
    "has_code": "server.sdk.code",
    "has_documents": "server.sdk.documents",
    "has_images": "server.sdk.images",
    "image_names": "server.sdk.images",
    "job_tools": "server.sdk.job_control",
    "keep": "server.sdk.saved_values",
    "list_documents": "server.sdk.documents",
    "look_at": "server.sdk.images",
    "marked": "server.sdk.untrusted",
    "need_internet": "server.sdk.internet",
    "progress": "server.sdk.jobs",
    "read_pages": "server.sdk.documents",
    "read_web_page": "server.sdk.internet",
    "replayed_steps": "server.sdk.replay",
    "run_code": "server.sdk.code",
    "search_documents": "server.sdk.documents",
    "search_web": "server.sdk.internet",
    "shared": "server.sdk.jobs",
    "tell_plan": "server.sdk.run",
    "tell_step": "server.sdk.run",
    "wait_for_started": "server.sdk.job_control",
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
    return globals().setdefault(name, getattr(importlib.import_module(home), name))
