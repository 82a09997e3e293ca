"""The executor: the queue before the agent, its turns, and the jobs that its tools start."""

import atexit
import logging
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import BaseTool

from server.jobs.executor import prompts
from server.jobs.executor.agent import ConcurrentStructuredChatAgent
from server.jobs.executor.global_context import GlobalContext, SharedValues
from server.jobs.executor.interactions import Interaction, InteractionType, PriorityQueueMultiGet, interaction
from server.jobs.executor.job_tools import JobTool, describe_end
from server.jobs.executor.jobs import Job, Jobs, JobState
from server.jobs.executor.messages import Dispatcher, Message, MessageCallback
from server.jobs.executor.process import prepare
from server.jobs.executor.tools import BaseParallelizableTool, is_parallel, sendable
from server.jobs.executor.turn import Conversation, Turns

log = logging.getLogger(__name__)

EXIT_SECONDS = 10.0
"""How long the end of Python waits for an executor that was not stopped."""
_END_TYPES = {JobState.Succeeded: "finish", JobState.Failed: "error", JobState.Cancelled: "cancel"}

_running: "weakref.WeakSet[ConcurrentAgentExecutor]" = weakref.WeakSet()


def _is_end_of_job(one: Interaction | None) -> bool:
    return one is not None and one.interaction_type is InteractionType.Tool


class ConcurrentAgentExecutor:
    """Runs an agent whose tools may run in the background. Usable as a context manager.

    - `executor({"input": text})` queues a message of the user, and returns at once.
    - `on_message` gets the answers, and what the jobs do.
    - `run_once` does both for one message.

    Options: `max_iterations`, steps of one turn; `grace_seconds`, between SIGTERM and SIGKILL; `gather_seconds`, how
    long a system turn waits for other jobs to end, while jobs are running; `max_jobs`, running at the same time;
    `history_messages`, how many earlier messages the agent reads.
    """

    def __init__(
        self,
        agent: ConcurrentStructuredChatAgent,
        tools: Sequence[BaseTool],
        *,
        max_iterations: int = 15,
        grace_seconds: float = 3.0,
        gather_seconds: float = 0.1,
        max_jobs: int = 64,
        history_messages: int = 100,
    ) -> None:
        """Raises `ValueError` if two tools have one name, and `ToolNotSendableError`."""
        self.agent = agent
        self.tools = {tool.name: tool for tool in tools}
        if len(self.tools) < len(tools):
            raise ValueError(f"Two tools have one name: {', '.join(sorted(tool.name for tool in tools))}")
        self._gather_seconds = gather_seconds
        values = SharedValues()
        self.global_context = GlobalContext(values.execute)
        self.queue: PriorityQueueMultiGet[Interaction] = PriorityQueueMultiGet()
        self._jobs = Jobs(values, grace_seconds, max_jobs, self._on_start, self._on_report, self._on_end)
        self._turns = Turns(agent, self.tools, self.global_context, max_iterations, self._on_foreground_report)
        self._dispatcher = Dispatcher()
        self._lock = threading.Lock()
        """Of the next four. It may be held when the queue's lock is taken, and never the other way round."""
        self._conversation = Conversation()
        self._history: deque[BaseMessage] = deque(maxlen=history_messages)
        self._open = 0
        """Interactions without an answer, and jobs whose end the agent does not know."""
        self._unqueued = 0
        """Jobs whose end is not in the queue yet."""
        self._life = threading.Lock()
        """Of the next four."""
        self._is_running = False
        self._over = threading.Event()
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._stopped.set()
        for tool in tools:
            if is_parallel(tool):
                sendable(tool)
            if isinstance(tool, BaseParallelizableTool):
                tool.global_context = self.global_context
            if isinstance(tool, JobTool):
                tool.connect(self._jobs, self._interruption)

    # Life

    def start(self) -> None:
        """Start the threads. No effect if it runs. Raises `RuntimeError` in a job's process that imports the
        script."""
        prepare()
        with self._life:
            if self._is_running:
                return
            self._stopped.wait()
            self._stopped.clear()
            with self._lock:
                self._conversation = Conversation()
            self._pid = os.getpid()
            self._dispatcher.start()
            over = threading.Event()
            self._over, self._is_running = over, True
            self._thread = threading.Thread(target=self._run, args=(over,), name="executor agent", daemon=True)
            self._thread.start()
            _running.add(self)

    def stop(self, timeout: float | None = None) -> None:
        """Cancel all jobs, drop the queue, and end the threads. No effect if it doesn't run.

        Waits for a model call or a foreground tool in flight, but at most `timeout` seconds. Called by a tool or a
        callback, it can't wait for the thread that it is called in.
        """
        with self._life:
            was_running, self._is_running = self._is_running, False
            thread = self._thread
        current = threading.current_thread()
        if not was_running:
            if current is not thread and not self._dispatcher.is_own_thread():
                self._stopped.wait(timeout)
            return
        self._over.set()
        self._abandon()
        self.queue.put(interaction(InteractionType.Stop, "executor", {}))
        self._jobs.cancel_all()
        if thread is not None and thread is not current:
            thread.join(timeout)
        with self._lock:
            self.queue.get_multiple()
            self._open = self._unqueued = 0
        self._dispatcher.stop()
        _running.discard(self)
        self._stopped.set()

    def reset(self) -> None:
        """Cancel all jobs, forget conversation and queue, abandon the turn, and continue. The global context
        stays."""
        self._abandon()
        self._jobs.cancel_all()
        self._jobs.forget()
        with self._lock:
            dropped = self.queue.get_multiple(accept=lambda one: one.interaction_type is not InteractionType.Stop)
            self._history.clear()
            self._conversation = Conversation()
        self._close(len(dropped))

    def __enter__(self) -> "ConcurrentAgentExecutor":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Use

    def __call__(self, inputs: dict[str, Any] | str) -> None:
        """Queue a message of the user: a text, or `{"input": text}`. Returns at once. Before `start` it waits."""
        given = {"input": inputs} if isinstance(inputs, str) else dict(inputs)
        if not isinstance(given.get("input"), str):
            raise ValueError('The inputs need a text in "input".')
        with self._lock:
            self._open += 1
            self.queue.put(interaction(InteractionType.User, "user", given))
        self._jobs.wake()

    def run_once(self, inputs: dict[str, Any] | str) -> Iterator[Message]:
        """Queue a message of the user, and give all messages until the agent has answered and no job is running.

        Starts when it is first iterated. If the executor is not running, it runs until the iterator ends or is
        closed.
        """
        own = not self._is_running
        messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

        def on_message(who: str, type: str, outputs: dict[str, Any]) -> None:
            messages.put(Message(who, type, outputs))

        def on_idle(stopped: bool) -> None:
            if stopped or not self._is_open():
                messages.put(None)

        # Held open, so that an older end can't be taken for the end of this message.
        with self._lock:
            self._open += 1
        self._dispatcher.add(on_message)
        self._dispatcher.add_idle(on_idle)
        try:
            try:
                self.start()
                self(inputs)
            finally:
                self._close(1)
            while (message := messages.get()) is not None:
                yield message
        finally:
            self._dispatcher.remove(on_message)
            self._dispatcher.remove_idle(on_idle)
            if own:
                self.stop()

    def on_message(self, callback: MessageCallback) -> MessageCallback:
        """Call `callback(who, type, outputs)` with each message, in a thread of the executor. A decorator, too."""
        self._dispatcher.add(callback)
        return callback

    def emit_message(self, who: str, type: str, outputs: dict[str, Any]) -> None:
        """Send a message to all callbacks. Returns at once."""
        self._dispatcher.send(Message(who, type, outputs))

    @property
    def jobs(self) -> list[Job]:
        """All jobs, the oldest first. Read only."""
        return self._jobs.all()

    @property
    def running_jobs(self) -> set[str]:
        """The names of the jobs that have not ended."""
        return {job.job_id for job in self._jobs.all() if not job.state.is_end}

    def cancel(self, job_id: str) -> Job:
        """End a job. When this returns, nothing of it is left. Raises `KeyError` for an unknown name."""
        job = self._jobs.get(job_id)
        if job is None:
            raise KeyError(job_id)
        self._jobs.cancel([job])
        return job

    # What tools and jobs do

    def _on_foreground_report(self, tool: str, text: str) -> None:
        self.emit_message(tool, "report", {"output": text})

    def _on_start(self, job: Job) -> None:
        self._emit_job(job, "start", {"output": prompts.STARTED.format(tool=job.tool, job_id=job.job_id)})

    def _on_report(self, job: Job, text: str) -> None:
        self._emit_job(job, "report", {"output": text})

    def _on_end(self, job: Job) -> None:
        text = job.text if job.state is JobState.Succeeded else describe_end(job)
        self._emit_job(job, _END_TYPES[job.state], {"output": text, "result": job.result})
        self.queue.put(interaction(InteractionType.Tool, f"{job.tool}:{job.job_id}", {"job": job}))
        # Afterwards, so that at zero the ends of all jobs are in the queue.
        with self._lock:
            self._unqueued -= 1
        self.queue.notify()

    def _emit_job(self, job: Job, type: str, outputs: dict[str, Any]) -> None:
        self.emit_message(f"{job.tool}:{job.job_id}", type, {**outputs, "job_id": job.job_id})

    # The agent's thread

    def _run(self, over: threading.Event) -> None:
        while not over.is_set():
            self.queue.wait_for(lambda first: first is not None)
            if _is_end_of_job(self.queue.first()):
                self._gather()
            with self._lock:
                conversation, taken = self._conversation, self._take()
            if not taken:  # `reset` was quicker
                continue
            try:
                self._answer(conversation, taken)
            except Exception as error:  # boundary: the model, and people's agents and parsers, may raise anything
                log.exception("A turn has failed")
                if not conversation.abandoned.is_set():
                    self.emit_message("agent", "error", {"output": f"{type(error).__name__}: {error}"})
            finally:
                if not over.is_set():
                    self._close(len(taken))

    def _gather(self) -> None:
        """Give jobs that end together the time to be in the queue together."""
        self.queue.wait_for(lambda first: self._unqueued == 0 or not _is_end_of_job(first), self._gather_seconds)

    def _take(self) -> list[Interaction]:
        """What the next turn answers: the ends of all jobs that have ended, or one message."""
        if _is_end_of_job(self.queue.first()):
            return self.queue.get_multiple(accept=_is_end_of_job)
        return self.queue.get_multiple(1)

    def _answer(self, conversation: Conversation, taken: list[Interaction]) -> None:
        kind = taken[0].interaction_type
        match kind:
            case InteractionType.Stop:
                return
            case InteractionType.Tool:
                jobs: list[Job] = [one.inputs["job"] for one in taken]
                text = "\n".join(describe_end(job) for job in jobs if self._jobs.claim_report(job))
                if not text:
                    return
            case InteractionType.User:
                text = taken[0].inputs["input"]
        with self._lock:
            history = list(self._history)

        def start_job(tool: BaseTool, tool_input: str | dict[str, Any]) -> str:
            return self._start_job(conversation, tool, tool_input)

        answer, steps = self._turns.answer(conversation, kind, text, history, start_job)
        with self._lock:
            if conversation.abandoned.is_set():
                return
            self._history += [self.agent.last_message(kind, text), AIMessage(answer)]
        shown = [{"tool": one.tool, "tool_input": one.tool_input, "observation": seen} for one, seen in steps]
        self.emit_message("agent", "message", {"output": answer, "intermediate_steps": shown})

    def _start_job(self, conversation: Conversation, tool: BaseTool, tool_input: str | dict[str, Any]) -> str:
        with self._lock:
            self._open += 1
            self._unqueued += 1
        job = None
        try:
            job = self._jobs.start(tool, tool_input, conversation.abandoned.is_set)
        finally:
            if job is None:
                with self._lock:
                    self._unqueued -= 1
                self._close(1)
        return "" if job is None else prompts.STARTED.format(tool=tool.name, job_id=job.job_id)

    def _interruption(self) -> str | None:
        """Why a wait has to end, if so."""
        if self._conversation.abandoned.is_set():
            return "cancelled"
        first = self.queue.first()
        return "user" if first is not None and first.interaction_type is InteractionType.User else None

    # Bookkeeping

    def _abandon(self) -> None:
        with self._lock:
            self._conversation.abandoned.set()
        self._jobs.wake()

    def _close(self, count: int) -> None:
        with self._lock:
            self._open = max(0, self._open - count)
        if not self._is_open():
            self._dispatcher.send_idle()

    def _is_open(self) -> bool:
        with self._lock:
            return self._open > 0


@atexit.register
def _stop_all() -> None:
    """No job outlives Python."""
    for executor in list(_running):
        if executor._pid == os.getpid():
            executor.stop(EXIT_SECONDS)
