"""An agent whose tools may run in the background. It works by itself in a script, without the server.

    from server.jobs.executor import initialize

    with initialize(llm=any_langchain_chat_model, tools=[slow_tool]) as executor:
        for message in executor.run_once({"input": "Start the slow tool."}):
            print(message.who, message.outputs["output"])

The pattern is the Concurrent Agent Executor. The agent starts a background tool, continues to talk, and is woken when
the tool ends. It can wait for, cancel and inspect each job.

What this package promises:

**Jobs**
- A background tool returns its job's name at once, such as `brave-otter`. The names of one executor's jobs differ.
- Each job is a process of its own, started by multiprocessing (`forkserver`, else `spawn`), in its own session and
  process group. A guard process above it ends it together with everything that it started.
- Cancelling sends SIGTERM to the group, waits at most `grace_seconds`, and then kills the group. "Cancelled" means
  that no process of the job is left. On Linux this includes processes that took a session of their own.
- Each job has exactly one end: succeeded, failed or cancelled. It is reported once, after the process was reaped. A
  process that is killed while it writes its result has failed, and the error names the signal.
- If the executor's process is killed, its jobs end.
- Each job has sockets of its own. No lock is shared between processes. What a job's process sends is JSON, checked
  and bounded; it is never unpickled.

**Turns**
- The user's messages go before the system's (ends of jobs). Equals are first in, first out.
- Jobs that end together give one system turn.
- An end that a tool of the agent has reported (`WaitTool`, `CancelTool`) gets no system turn.
- `WaitTool` blocks its own turn only: messages, ends and reports are recorded meanwhile. A message of the user ends
  the wait, so that the agent can answer; the jobs continue.

**The executor**
- No thread spins: threads wait on conditions and sockets.
- `stop()` cancels all jobs and waits until no process of them and no thread of the executor is left. It waits for a
  model call in flight. multiprocessing's own fork server and resource tracker are idle processes that every executor
  of a Python process shares; they end with it.
- `reset()` cancels all jobs, forgets conversation and queue, and continues. The global context stays.
- `start()` and `stop()` may be called twice. An executor may start again after `stop()`.
- An error in a callback of `on_message` is logged and changes nothing else.

**The global context**
- A dictionary of JSON values that the agent, its tools and its jobs share. It is in the executor's process, and jobs
  reach it over their socket. Each operation is atomic.
- `update(key, fn)` calls `fn` in the caller's process: it reads, calls `fn`, and writes if nobody has written
  meanwhile; else it starts again. So `fn` may be called several times.

Not promised: a foreground tool or a model call that never returns can't be stopped, because it runs in the executor's
own thread. If the guard itself is killed with SIGKILL, processes of its job that took a session of their own may
stay.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from server.jobs.executor.agent import ConcurrentStructuredChatAgent
from server.jobs.executor.executor import ConcurrentAgentExecutor
from server.jobs.executor.global_context import GlobalContext
from server.jobs.executor.interactions import Interaction, InteractionType, PriorityQueueMultiGet
from server.jobs.executor.job_tools import CancelTool, StatusTool, WaitTool
from server.jobs.executor.jobs import Job, JobState
from server.jobs.executor.messages import Message
from server.jobs.executor.output_parser import StructuredChatOutputParser, StructuredChatOutputParserWithRetries
from server.jobs.executor.tools import BaseParallelizableTool, ToolNotSendableError, is_parallel

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool

__all__ = [
    "BaseParallelizableTool",
    "CancelTool",
    "ConcurrentAgentExecutor",
    "ConcurrentStructuredChatAgent",
    "GlobalContext",
    "Interaction",
    "InteractionType",
    "Job",
    "JobState",
    "Message",
    "PriorityQueueMultiGet",
    "StatusTool",
    "StructuredChatOutputParser",
    "StructuredChatOutputParserWithRetries",
    "ToolNotSendableError",
    "WaitTool",
    "initialize",
    "is_parallel",
]


def initialize(
    *, llm: "BaseChatModel", tools: "Sequence[BaseTool] | None" = None, **options: Any
) -> ConcurrentAgentExecutor:
    """An executor with an agent that `llm` drives. It has `tools`, and tools to wait for, cancel and inspect jobs.

    A tool runs in the background if `is_parallel` says so. `options`: see `ConcurrentAgentExecutor`. Raises
    `ValueError` if two tools have one name, and `ToolNotSendableError` if a background tool can't be sent to another
    process.
    """
    own = [*(tools or ()), WaitTool(), CancelTool(), StatusTool()]
    return ConcurrentAgentExecutor(ConcurrentStructuredChatAgent.from_llm_and_tools(llm, own), own, **options)
