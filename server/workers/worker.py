"""One worker, seen from the server: it loads code, and answers runs with it.

Promised: each call here ends, even if people's code does not: with a result, with the error that the code raised,
with an error that says how the process ended, or, if the run was stopped and the code does not stop, with
`DidNotStopError`. Over 400 lines, because one lock guards the worker, its tasks and their model calls.
"""

import contextvars
import itertools
import logging
import math
import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server import errors
from server.errors import AgentFailedError, HearthError, QueueFullError, WorkerCrashedError
from server.observability import metrics, tracing
from server.observability import semantic_conventions as names
from server.runs.run import Run
from server.sdk import context
from server.sdk.saved_values import KeptReport
from server.sdk.tool_content import ToolContent, joined
from server.sdk.tool_error import ToolFailedError
from server.workers import messages
from server.workers.failure import CodeFiles, ErrorReport, LoadError, problem
from server.workers.kept_values import InvalidReportError, Trial
from server.workers.messages import Channel, MessageError
from server.workers.model_calls import Grammars, ModelCalls, as_reply
from server.workers.template import End, Process
from server.workers.tool_spans import ToolSpans

if TYPE_CHECKING:
    from server.models.resident import ResidentModel

log = logging.getLogger(__name__)

NOTICE_SECONDS = 0.1
"""Interval at which a waiting call checks whether its run was stopped."""
PAUSE_SECONDS = 0.25
"""A run that has not used the model for this time gives its turn to others."""
STOP_SECONDS = 3.0
"""Maximum time for an agent or a tool to stop. Most stop at the model's next token."""
RETIRE_SECONDS = 60.0
"""Maximum time for the other runs of a retired worker to end."""
MOST_CALLS = 32
"""Maximum number of model calls of one run at the same time. Each takes a thread of the server."""
MOST_SENT_BYTES = 2 * messages.LONGEST_FROM_WORKER
"""Maximum number of bytes of one run's steps and plans."""
AT_ONCE = ("count", "cut", "render")
"""Calls that take less time than handing them to another thread."""
ELSEWHERE = ("jobs", "code", "documents", "internet", "images", "tools")
"""Calls that the model has no part in. They may wait for long, so never on the thread that waits for the task."""
LINGER_SECONDS = 1.0
"""Maximum time for a process to end after it has closed the connection."""
MCP_SECONDS, MCP_SHARE = 12.0, 0.6
"""Maximum time for a workspace's MCP servers to list their tools, in seconds and as a share of the time to build."""
END_SECONDS = 5.0
"""Maximum time until the end of a process is reported."""


R = TypeVar("R", bound=BaseModel)


class WorkerEndedError(Exception):
    """The process has ended, or was killed because it did not answer. The message is a sentence; `details` have
    signal, exit code, place and output, if they are known."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details


class NotStartedError(Exception):
    """The worker had ended or was retired before the call. It has done nothing: another worker can take the call."""


class DidNotStopError(Exception):
    """A run was stopped, and its agent did not stop."""


class Loaded(BaseModel):
    """The result of loading code: the names of its agents, and the packages' modules that it imports."""

    model_config = ConfigDict(strict=True, extra="forbid")

    agents: list[str]
    imports: list[str]


class BuiltTool(BaseModel):
    """A tool; see `server.workers.inside.toolset.describe_tool`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    description: str
    args_schema: dict[str, Any]
    sources: dict[str, str]
    is_background: bool
    is_idempotent: bool
    resources: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    title: messages.Text | None
    annotations: dict[str, bool]


class LoadWarning(BaseModel):
    """Something in a file that may not be what its author meant."""

    model_config = ConfigDict(strict=True, extra="forbid")

    file: str
    message: str


class AbsentTool(BaseModel):
    """A tool that this server can't offer; see `server.sdk.tool_absent.AbsentTool`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: messages.Text
    reason: messages.Text


class Built(BaseModel):
    """The result of building the tools."""

    model_config = ConfigDict(strict=True, extra="forbid")

    tools: list[BuiltTool]
    warnings: list[LoadWarning]
    imports: list[str]
    absent: Annotated[list[AbsentTool], Field(max_length=1000)]
    mcp_tools: list[dict[str, Any]]
    """The tools of the workspace's MCP servers, for later workers; see `server.workers.inside.mcp_tools`."""


class _Called(BaseModel):
    """The result of a tool's call: its text, or its content, or why there is none."""

    model_config = ConfigDict(strict=True, extra="forbid")

    text: messages.Text = ""
    blocks: list[dict[str, Any]] | None = None
    structured: dict[str, Any] | None = None
    failed: messages.Text | None = None
    traceback: messages.Text | None = None


class SessionCalls(Protocol):
    """Does what people's code asks the server for, besides the model: see `server.sessions.calls`."""

    @property
    def absent_internet(self) -> Mapping[str, str]:
        """What the server can't do on the web, and why: see `server.internet.calls`."""

    def do(self, what: str, given: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
        """The answer to a call of `ELSEWHERE`, as JSON values. `run`: the run, or the job, that asks. Raises
        `HearthError`."""

    def jobs(self, run: Run) -> list[str]:
        """The names of the jobs that the run's agent knows, the latest first."""

    def has_code(self, run: Run) -> bool:
        """Whether the run's session has files or variables, so that code may be of use."""

    def has_documents(self, run: Run) -> bool:
        """Whether there are documents that the run may read."""

    def has_images(self, run: Run) -> bool:
        """Whether there are pictures that the run's agent may look at."""


State = Literal["starting", "idle", "busy", "retired", "ended"]


class Worker:
    """Safe for any number of threads."""

    def __init__(
        self,
        process: Process,
        folder: str,
        workspace: str,
        generation: str,
        calls: ModelCalls,
        session_calls: SessionCalls,
        kept: Trial,
        kept_folder: Path,
        niceness: int,
    ) -> None:
        """`process` has started. `folder` has the generation's files, and `kept_folder` the values that `keep` has
        saved. After the tools are built, the worker adds `niceness` to its own."""
        self.workspace = workspace
        self.generation = generation
        self.kept = kept
        self.process = process
        self.retired: str | None = None
        """Why it gets no new runs."""
        self.loaded = False
        self._is_loading = False
        self.idle_since = time.monotonic()
        self._files = CodeFiles(folder)
        self._kept_folder = kept_folder
        self._niceness = niceness
        self._calls = calls
        self._session_calls = session_calls
        self._channel = Channel(process.socket, receives=messages.LONGEST_FROM_WORKER)
        self._grammars = Grammars()
        self._numbers = itertools.count(1)
        self._tasks: dict[int, _Task] = {}
        self._asked: dict[int, _Call] = {}
        self._known_models: weakref.WeakKeyDictionary[ResidentModel, int] = weakref.WeakKeyDictionary()
        self._changing = threading.RLock()
        self._killed_for: str | None = None
        self._place: tuple[str, int] | None = None
        self._over: WorkerEndedError | None = None
        process.code_folder = folder
        process.name_output(f"{workspace} {generation}")
        threading.Thread(target=self._read, name=f"worker {process.pid}", daemon=True).start()

    @property
    def state(self) -> State:
        """What it is doing."""
        if self._over is not None:
            return "ended"
        if self.retired is not None:
            return "retired"
        if not self.loaded or self._is_loading:
            return "starting"
        return "busy" if self._tasks else "idle"

    @property
    def runs(self) -> int:
        """Runs that it answers now."""
        return len(self._tasks)

    # Loading

    def load(self, seconds: float) -> Loaded:
        """Import the generation. Raises `LoadError`."""
        given = {"folder": self._files.folder, "kept": str(self._kept_folder), "drafts": self.kept.drafts}
        loaded = self._load("load", Loaded, given, seconds)
        self.loaded = True
        return loaded

    def build(self, seconds: float) -> Built:
        """Build and check the tools. Raises `LoadError`."""
        given = {"check": True, "mcp_seconds": min(MCP_SECONDS, seconds * MCP_SHARE)}
        return self._load("build", Built, self._for_build() | given, seconds)

    def rebuild(self, seconds: float, mcp_tools: Sequence[Mapping[str, Any]]) -> None:
        """Build the tools of code whose tools were checked in another worker, which has found `mcp_tools`. Raises
        `LoadError`."""
        given = {"check": False, "mcp_tools": list(mcp_tools)}
        self._load("build", Built, self._for_build() | given, seconds)

    def _for_build(self) -> dict[str, Any]:
        return {"niceness": self._niceness, "absent_internet": dict(self._session_calls.absent_internet)}

    def _load(self, kind: str, result: type[R], given: Mapping[str, Any], seconds: float) -> R:
        deadline = time.monotonic() + seconds

        def look() -> float:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LoadError([self._hang(seconds)])
            return left

        self._is_loading = True
        about = {names.WORKSPACE: self.workspace, names.GENERATION: self.generation}
        try:
            with tracing.span("load code" if kind == "load" else "build tools", about):
                return self._checked(result, self._do(_Task(next(self._numbers)), kind, given, look))
        except WorkerEndedError as ended:
            details = ended.details
            kind = details.get("signal") or "ProcessEndedError"
            output = "".join(f"  | {line}\n" for line in details["output"])
            report = problem(details["file"], details["line"], kind, f"{ended} while the code was loaded")
            raise LoadError([{**report, "traceback": report["traceback"] + output}]) from None
        finally:
            self._is_loading = False

    def _hang(self, seconds: float) -> ErrorReport:
        """Kill the process, because loading does not end. Returns a report about it."""
        stacks = self.process.stacks()
        file, line = self._named(self.process.place_in(stacks))
        self.kill("its code did not finish loading")
        message = (
            f"loading did not finish within {seconds:g} seconds. "
            "Move slow work out of the module's top level, into the function that needs it."
        )
        report = problem(file, line, "TimeoutError", message)
        running = self._files.running(stacks)
        return {**report, "traceback": f"{running}TimeoutError: {message}\n"} if running else report

    # Answering

    def answer(
        self, run: Run, model: "ResidentModel", turns: list[dict[str, Any]], tool_seconds: float, most_tools: int
    ) -> messages.Answered:
        """The result of the run's agent for its question and the earlier `turns` of its session. The agent should
        show the model up to `most_tools` tools.

        Raises what the agent raises: a `HearthError` unchanged, any other error as `AgentFailedError`. Raises
        `WorkerCrashedError`; `DidNotStopError` for a run that was stopped and whose agent continues: the worker is
        retired.
        """
        task = _Task(next(self._numbers), run, contextvars.copy_context())
        stop_at = math.inf

        def look() -> float:
            nonlocal stop_at
            now = time.monotonic()
            if run.cancelled.is_set():
                if stop_at == math.inf:
                    stop_at = now + STOP_SECONDS
                    self._send({"kind": "cancel", "task": task.id})
                elif now > stop_at:
                    self.retire(f"the agent {run.agent} of run {run.id} did not stop")
                    raise DidNotStopError(f"the agent of run {run.id} did not stop")
            self._check_tools(task, now)
            if run.turn is not None and not self._uses_model(task, now):
                run.turn.pause()
            return NOTICE_SECONDS

        given = {
            "model": self._introduce(model),
            "agent": run.agent,
            "question": run.with_images(run.question),
            "history": [{**one, "content": run.with_images(one["content"])} for one in run.history],
            "turns": turns,
            "jobs": self._session_calls.jobs(run),
            "has_code": self._session_calls.has_code(run),
            "has_documents": self._session_calls.has_documents(run),
            "has_images": self._session_calls.has_images(run),
            "max_steps": run.max_steps,
            "tool_seconds": tool_seconds,
            "most_tools": most_tools,
            "replayed": [] if run.fork is None else list(run.fork.replayed),
        }
        try:
            return self._checked(messages.Answered, self._do(task, "answer", given, look))
        except WorkerEndedError as ended:
            raise WorkerCrashedError(
                f"{ended}. Tools that were called may have done their work. Ask again: a fresh worker answers.",
                **ended.details,
                steps=run.steps,
            ) from None

    def call_tool(
        self,
        tool: str,
        given: Mapping[str, Any],
        seconds: float,
        run: Run | None = None,
        on_progress: Callable[[messages.Progress], object] = lambda progress: None,
    ) -> str:
        """The result of a tool, as text. `run`: what its model calls count for. `on_progress` gets the tool's
        reports, and must not wait. Raises `ToolFailedError` with a sentence, `WorkerCrashedError`."""
        return self._called(tool, given, seconds, run, on_progress, False).text

    def call_for_content(
        self,
        tool: str,
        given: Mapping[str, Any],
        seconds: float,
        run: Run,
        on_progress: Callable[[messages.Progress], object],
    ) -> ToolContent:
        """The same as content blocks. Raises what `call_tool` raises, and `RunCancelledError` soon after `run` was
        stopped: the tool is asked to end, and a worker whose tool does not end is retired."""
        called = self._called(tool, given, seconds, run, on_progress, True)
        blocks = [{"type": "text", "text": called.text}] if called.blocks is None else joined(called.blocks)
        return ToolContent(blocks, called.structured)

    def _called(
        self,
        tool: str,
        given: Mapping[str, Any],
        seconds: float,
        run: Run | None,
        on_progress: Callable[[messages.Progress], object],
        as_content: bool,
    ) -> _Called:
        task = _Task(next(self._numbers), run, contextvars.copy_context(), on_progress)
        is_stopped = False

        def look() -> float:
            nonlocal is_stopped
            now = time.monotonic()
            if as_content and not is_stopped and run is not None and run.cancelled.is_set():
                is_stopped = True
                self._send({"kind": "cancel", "task": task.id})
            self._check_tools(task, now)
            if run is not None and run.turn is not None and not self._uses_model(task, now):
                run.turn.pause()
            return NOTICE_SECONDS

        try:
            asked = {"tool": tool, "input": given, "seconds": seconds, "as_content": as_content}
            called = self._checked(_Called, self._do(task, "call_tool", asked, look))
        except WorkerEndedError as ended:
            raise WorkerCrashedError(f"{ended}.", **ended.details) from None
        if called.failed is not None:
            raise ToolFailedError(called.failed, called.traceback)
        return called

    def cancel_calls(self) -> None:
        """Ask the tools that run in it to end: `check_cancelled` raises, and coroutines are cancelled."""
        with self._changing:
            tasks = list(self._tasks)
        for task in tasks:
            self._send({"kind": "cancel", "task": task})

    def write_note(self, record: Mapping[str, Any], seconds: float) -> Any:
        """The result of the code's `write_note` for a run's record. Raises `TimeoutError`, `AgentFailedError`, a
        `HearthError`, `WorkerCrashedError`."""
        deadline = time.monotonic() + seconds

        def look() -> float:
            if time.monotonic() > deadline:
                self.retire("a note took too long to be written")
                raise TimeoutError(f"it took longer than {seconds:g} s")
            return NOTICE_SECONDS

        task = _Task(next(self._numbers), call_context=contextvars.copy_context())
        try:
            return self._do(task, "note", {"record": record}, look)
        except WorkerEndedError as ended:
            raise WorkerCrashedError(f"{ended}.", **ended.details) from None

    def forget(self, name: str) -> None:
        """Make `keep` build the value of that name again."""
        self._send({"kind": "forget", "name": name})

    def _check_tools(self, task: "_Task", now: float) -> None:
        """Kill the worker if a tool's time is up and the worker has not reported it: the tool blocks the whole
        process."""
        for tool, seconds, deadline in list(task.tools.values()):
            if now > deadline + STOP_SECONDS:
                self._place = self.process.place_in(self.process.stacks())
                self.kill(f"the tool {tool} did not answer within {seconds:g} seconds and blocked the process")

    def _uses_model(self, task: "_Task", now: float) -> bool:
        """Whether the model works for the task, or did a moment ago."""
        return now - task.model_used < PAUSE_SECONDS or any(
            call.task is task and call.needs_turn for call in list(self._asked.values())
        )

    def _introduce(self, model: "ResidentModel") -> int:
        """The number by which the worker knows a model."""
        with self._changing:
            number = self._known_models.get(model)
            if number is None:
                number = self._known_models[model] = next(self._numbers)
                engine = model.engine
                assert engine is not None, "the model is in use"
                shown: dict[str, Any] = {"context_length": engine.context_length, "guided": engine.guided}
                if engine.guided:
                    shown["control_tokens"] = engine.tokenizer.control.names
                else:
                    shown |= {"name": engine.name, "takes_schema": engine.takes_schema}
                self._send({"kind": "model", "id": number, **shown})
        return number

    # The end

    def retire(self, reason: str) -> None:
        """Give it no new runs, and end it after its last run, or after `RETIRE_SECONDS`."""
        with self._changing:
            if self.retired is not None:
                return
            self.retired = reason
            log.warning("the worker %d of %s %s is retired: %s", *self._name, reason)
            self._end_if_retired()
        self.later(RETIRE_SECONDS, lambda: self.kill(reason))

    def _end_if_retired(self) -> None:
        if self.retired is not None and not self._tasks:
            self.kill(self.retired)

    def close(self) -> None:
        """End it. No run may use it any more. Exit handlers of its code run, for `END_SECONDS` at most."""
        with self._changing:
            if self._killed_for is not None:
                return
            self._killed_for = self.retired = "it is not needed any more"
        self._channel.close_sending()
        self.later(END_SECONDS, self.process.kill)

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call `call` after `seconds`, unless the process has ended before."""
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        timer.start()
        self.process.on_end(lambda _: timer.cancel())

    def end_if_idle(self, seconds: float) -> None:
        """End it if it has been idle for `seconds`."""
        with self._changing:
            if self.state == "idle" and time.monotonic() - self.idle_since > seconds:
                self.kill(f"it was idle for {seconds:g} s")

    def kill(self, reason: str) -> None:
        """End the process and all that it has started. Its runs end with an error that has the reason."""
        with self._changing:
            if self._killed_for is None:
                self._killed_for = reason
                if self.retired is None:
                    self.retired = reason
        self.process.kill()

    @property
    def _name(self) -> tuple[int, str, str]:
        return self.process.pid, self.workspace, self.generation

    def _named(self, place: tuple[str, int] | None) -> tuple[str | None, int | None]:
        return (None, None) if place is None else (self._files.name(place[0]), place[1])

    # Messages

    def _do(self, task: "_Task", kind: str, given: Mapping[str, Any], look: Callable[[], float]) -> Any:
        """Send a task to the worker and wait for its result. Meanwhile, do the task's model calls.

        `look` is called before each wait. It returns the maximum number of seconds to wait, or raises to end the
        task.
        """
        with self._changing:
            if self.retired is not None or self._over is not None:
                raise NotStartedError(self.retired or str(self._over))
            self._tasks[task.id] = task
        try:
            if not self._send({"kind": kind, "task": task.id, **given}):
                raise NotStartedError("it has ended")
            while True:
                try:
                    message = task.inbox.get(timeout=look())
                except queue.Empty:
                    continue
                match message:
                    case _Call():
                        message.serve()
                        task.is_serving = False
                    case messages.Done():
                        return message.value
                    case messages.Failed():
                        raise self._error(message.error, task)
                    case WorkerEndedError():
                        raise message
        finally:
            task.tool_spans.close()
            with self._changing:
                del self._tasks[task.id]
                while not task.inbox.empty():
                    # A call of a thread that people's code has left running.
                    if isinstance(left := task.inbox.get(), _Call):
                        left.serve_elsewhere()
                self.idle_since = time.monotonic()
                self._end_if_retired()

    def _checked(self, kind: type[R], value: Any) -> R:
        """A result, checked like other input from outside. If it is invalid, kills the worker and raises
        `WorkerEndedError`."""
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            self.kill(f"it sent what is no result ({'.'.join(map(str, first['loc']))}: {first['msg']})")
            self.process.ended.wait(END_SECONDS)
            raise self._described(self.process.end) from None

    def _error(self, raised: messages.Raised, task: "_Task") -> Exception:
        """The error that people's code raised."""
        if raised.reports is not None:
            return LoadError([cast(ErrorReport, report.model_dump()) for report in raised.reports])
        kind = getattr(errors, raised.type, None)
        if raised.known and isinstance(kind, type) and issubclass(kind, HearthError):
            return kind(raised.message, **raised.details)
        log.warning("%s %s: %s", self.workspace, self.generation, raised.traceback or raised.message)
        details: dict[str, Any] = {"exception": raised.type, "reason": raised.message}
        details |= {"file": raised.file, "line": raised.line, "traceback": raised.traceback}
        if task.run is not None:
            details["steps"] = task.run.steps
        return AgentFailedError(
            f"The code of {self.workspace} failed with {raised.type}: {raised.message}", **details
        )

    def _send(self, message: Mapping[str, Any]) -> bool:
        """Returns whether the whole message was sent. A worker that does not read is killed."""
        try:
            self._channel.send(message)
            return True
        except BlockingIOError:
            # A part of the message has gone out.
            self.kill("it does not read what it is sent")
        except OSError:
            # It has ended, as its reader finds out in a moment.
            with self._changing:
                self.retired = self.retired or "it has ended"
        return False

    def _read(self) -> None:
        """Read what the worker sends, until it ends."""
        try:
            while (data := self._channel.receive()) is not None:
                self._take(messages.read(data), len(data))
        except (MessageError, InvalidReportError) as error:
            self.kill(f"it sent what is no message ({error})")
        except OSError:
            pass  # it has ended, as the next lines find out
        except Exception:  # boundary: the thread's end; a worker that nobody reads would hang its runs
            log.exception("the messages of worker %d can't be read", self.process.pid)
            self.kill("its messages could not be read")
        if not self.process.ended.wait(LINGER_SECONDS):
            self.kill("it closed its connection")
            self.process.ended.wait(END_SECONDS)
        self.process.socket.close()
        self.kept.close()
        over = self._described(self.process.end)
        with self._changing:
            self._over = over
            tasks = list(self._tasks.values())
        metrics.WORKER_ENDS.labels("crashed" if self._killed_for is None else "ended").inc()
        if self._killed_for is None:
            log.warning("%s", str(over))  # a handler that keeps it would keep all that its traceback holds
        for task in tasks:
            # Each gets its own: two threads must not raise the same one.
            task.inbox.put(WorkerEndedError(str(over), over.details))
        for call in list(self._asked.values()):
            call.leave()

    def _described(self, end: End | None) -> WorkerEndedError:
        place = self._place or (end.place if end is not None else None)
        file, line = self._named(place)
        details = {
            "signal": end.signal if end is not None and self._killed_for is None else None,
            "exit_code": end.exit_code if end is not None and self._killed_for is None else None,
            "file": file,
            "line": line,
            "output": end.output if end is not None else [],
        }
        at = f" in {file} line {line}" if file else ""
        if self._killed_for is not None:
            how = f"was ended, because {self._killed_for}"
        else:
            how = end.describe() if end is not None else "ended"
        return WorkerEndedError(f"The worker of generation {self.generation} {how}{at}", details)

    def _take(self, message: messages.FromWorker, size: int) -> None:
        """In the reader's thread: nothing here may wait for another thread."""
        if isinstance(message, messages.Saved):
            self.kept.report(
                KeptReport(message.name, message.type, message.bytes, message.built, message.how, message.draft)
            )
            return
        if isinstance(message, messages.Stuck):
            # The task itself may have ended long before.
            self.retire(f"the {message.what} did not stop")
            return
        if isinstance(message, messages.Leave):
            if (call := self._asked.get(message.call)) is not None:
                call.leave()
            return
        with self._changing:
            task = self._tasks.get(message.task) if message.task is not None else None
        if isinstance(message, messages.Ask):
            self._take_call(message, task)
        elif task is not None:
            if not isinstance(message, messages.Done | messages.Failed):
                task.sent_bytes += size
            if task.sent_bytes > MOST_SENT_BYTES:
                self.kill(f"one run sent more than {MOST_SENT_BYTES} bytes of steps")
                return
            task.take(message)

    def _take_call(self, message: messages.Ask, task: "_Task | None") -> None:
        if sum(other.task is task for other in list(self._asked.values())) >= MOST_CALLS:
            error = QueueFullError(f"{MOST_CALLS} calls of the model are under way, and no run may have more.")
            self._send({"kind": "reply", "call": message.call, "error": as_reply(error)})
            return
        call = _Call(self, message, task)
        self._asked[message.call] = call
        if message.what in ELSEWHERE:
            call.serve_elsewhere(None if task is None else task.call_context)
            return
        if task is not None and task.call_context is not None and message.what in AT_ONCE:
            task.call_context.copy().run(call.serve)
            return
        if task is not None and not task.is_serving and task.call_context is not None:
            task.is_serving = True
            task.inbox.put(call)
            return
        # The task's own thread is busy with another call, or there is none.
        call.serve_elsewhere(None if task is None else task.call_context)


class _Task:
    """A task of the worker: an answer, a tool call, a note, or loading. Its calls of the model are done in
    `call_context`."""

    def __init__(
        self,
        number: int,
        run: Run | None = None,
        call_context: contextvars.Context | None = None,
        on_progress: Callable[[messages.Progress], object] = lambda progress: None,
    ) -> None:
        self.id = number
        self.run = run
        self.call_context = call_context
        self.on_progress = on_progress
        self.inbox: queue.SimpleQueue[_Call | messages.Done | messages.Failed | WorkerEndedError] = (
            queue.SimpleQueue()
        )
        self.is_serving = False
        """Whether the thread that waits for the task does a model call, or has one in its inbox."""
        self.sent_bytes = 0
        self.model_used = time.monotonic()
        """When the model last worked for it."""
        self.tools: dict[int, tuple[str, float, float]] = {}
        """Tool calls that have not ended: the tool, its time limit, and its deadline."""
        self.tool_spans = ToolSpans()

    def take(self, message: messages.FromWorker) -> None:
        match message:
            case messages.Done() | messages.Failed():
                self.inbox.put(message)
            case messages.Step() if self.run is not None:
                self.run.add_step(message.step)
                self.tool_spans.step(message.step)
            case messages.Progress():
                self.on_progress(message)
            case messages.Plan() if self.run is not None:
                self.run.events.publish("plan", {"steps": message.steps})
            case messages.Recalled() if self.run is not None:
                self.run.recalled = message.messages
            case messages.ToolsShown() if self.run is not None:
                self.run.add_tools_shown(message.tools)
            case messages.ToolBegan():
                self.tools[message.call] = (message.tool, message.seconds, time.monotonic() + message.seconds)
                self.tool_spans.begin(message.call, message.tool)
            case messages.ToolEnded():
                tool = self.tools.pop(message.call, ("unknown", 0.0, 0.0))[0]
                self.tool_spans.end(message.call, tool, message.failed)
                metrics.TOOL_SECONDS.labels(tool).observe(message.seconds)
                if message.failed:
                    metrics.TOOL_FAILURES.labels(tool).inc()


class _Call:
    """A model call of people's code. See `server.workers.model_calls.Caller`."""

    def __init__(self, worker: Worker, message: messages.Ask, task: _Task | None) -> None:
        self.task = task
        self._left = threading.Event()
        self._worker = worker
        self._message = message

    @property
    def left(self) -> bool:
        """See `Caller`."""
        return self._left.is_set()

    @property
    def needs_turn(self) -> bool:
        """Whether the model works for the call, so that its run needs a turn."""
        return self._message.what not in (*AT_ONCE, *ELSEWHERE)

    def leave(self) -> None:
        """The worker no longer waits for the answer: the model stops at its next token."""
        self._left.set()

    def serve(self) -> None:
        """Do the call, and send its result or its error."""
        message, worker = self._message, self._worker
        run = self.task.run if self.task is not None else None
        span = None if self.task is None else self.task.tool_spans.parent_of(message.tool_call)
        asked = time.monotonic()
        try:
            if self.needs_turn and run is not None and run.turn is not None:
                run.turn.resume()
            cancelled, queued = _EitherSet(self._left, context.current().cancelled), time.monotonic() - asked
            with context.scope(cancelled=cancelled, tool=message.tool, span=span, queued_seconds=queued):
                if message.what in ELSEWHERE:
                    value = worker._session_calls.do(message.what, message.given, run)
                else:
                    value = worker._calls.do(message.what, message.given, self, worker._grammars, worker.workspace)
            reply: dict[str, Any] = {"value": value}
        except BaseException as error:  # boundary: people's code is sent whatever went wrong
            reply = {"error": as_reply(error)}
        finally:
            worker._asked.pop(message.call, None)
            if self.needs_turn and self.task is not None:
                self.task.model_used = time.monotonic()
        if not self.left:
            worker._send({"kind": "reply", "call": message.call, **reply})

    def serve_elsewhere(self, copied: contextvars.Context | None = None) -> None:
        """Do `serve` on another thread, in a copy of the context `copied`. None: in an empty context, with the
        default model."""
        within = contextvars.Context() if copied is None else copied.copy()
        name = f"call {self._message.what}"
        threading.Thread(target=within.run, args=(self.serve,), name=name, daemon=True).start()

    def send_part(self, value: dict[str, Any]) -> None:
        """See `Caller`."""
        self._worker._send({"kind": "part", "call": self._message.call, "value": value})


class _EitherSet(threading.Event):
    """An event that is set when one of two others is. Read-only."""

    def __init__(self, one: threading.Event, other: threading.Event | None) -> None:
        super().__init__()
        self._both = (one,) if other is None else (one, other)

    def is_set(self) -> bool:
        """See `threading.Event`."""
        return any(event.is_set() for event in self._both)
