"""One worker, seen from the server: code is loaded in it, and runs are answered by it.

Promised: whatever the code does, each call here ends. With a result, with the error that the code raised, with
`WorkerEndedError` when the process has ended, or, when the run was stopped and the code does not stop, without it.
"""

import contextvars
import itertools
import logging
import math
import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from server import errors
from server.errors import AgentFailedError, HearthError, QueueFullError, WorkerCrashedError
from server.observability import metrics
from server.runs.run import Run
from server.sdk import cancellation
from server.sdk.run import within_tool
from server.sdk.saved_values import KeptReport
from server.sdk.tool_call import ToolFailedError
from server.workers import messages
from server.workers.failure import CodeFiles, ErrorReport, LoadError, problem
from server.workers.kept_values import InvalidReportError, Trial
from server.workers.messages import Channel, MessageError
from server.workers.model_calls import Grammars, ModelCalls, as_reply
from server.workers.processes import End, Process

if TYPE_CHECKING:
    from server.models.resident import ResidentModel

log = logging.getLogger(__name__)

NOTICE_SECONDS = 0.1
"""How soon it is noticed that a run was stopped."""
STOP_SECONDS = 3.0
"""How long an agent or a tool that is to stop may take. Most stop at the model's next token."""
RETIRE_SECONDS = 60.0
"""How long other runs of a worker that is to be replaced may take to end."""
MOST_CALLS = 32
"""Calls of the model that one run may have under way; each takes a thread of the server."""
MOST_SENT_BYTES = messages.LONGEST
"""What one run may send of steps and plans."""
AT_ONCE = ("count", "cut", "render")
"""What takes less time than to hand it to another thread."""
LINGER_SECONDS = 1.0
"""How long a process may live after its end of the connection is closed."""
END_SECONDS = 5.0
"""How long it may take until the end of a process is reported."""


R = TypeVar("R", bound=BaseModel)


class WorkerEndedError(Exception):
    """The process has ended, or never answers any more. The message is a sentence; `details` say what is known."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details


class NotStartedError(Exception):
    """The worker had ended, or was retired, before it was asked. Nothing was done: ask another one."""


class DidNotStopError(Exception):
    """A run was stopped, and its agent did not stop."""


class Loaded(BaseModel):
    """What loading code gives: the names of its agents, and the modules of others that it imports."""

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


class Built(BaseModel):
    """What building the tools gives."""

    model_config = ConfigDict(strict=True, extra="forbid")

    tools: list[BuiltTool]
    imports: list[str]


class _Text(BaseModel):
    model_config = ConfigDict(strict=True)

    text: str


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
        kept: Trial,
        kept_folder: Path,
        niceness: int,
    ) -> None:
        """`process` has started. `folder` has the generation's files, and `kept_folder` what `keep` has saved. Once
        its tools are built, its priority is lower by `niceness`."""
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
        self._channel = Channel(process.socket)
        self._grammars = Grammars()
        self._numbers = itertools.count(1)
        self._jobs: dict[int, _Job] = {}
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
        return "busy" if self._jobs else "idle"

    @property
    def runs(self) -> int:
        """Runs that it answers now."""
        return len(self._jobs)

    # Loading

    def load(self, seconds: float) -> Loaded:
        """Import the generation. Raises `LoadError`."""
        given = {"folder": self._files.folder, "kept": str(self._kept_folder), "drafts": self.kept.drafts}
        loaded = self._load("load", Loaded, given, seconds)
        self.loaded = True
        return loaded

    def build(self, seconds: float) -> Built:
        """Build and check the tools. Raises `LoadError`."""
        return self._load("build", Built, {"niceness": self._niceness}, seconds)

    def _load(self, kind: str, result: type[R], given: Mapping[str, Any], seconds: float) -> R:
        deadline = time.monotonic() + seconds

        def look() -> float:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LoadError([self._hang(seconds)])
            return left

        self._is_loading = True
        try:
            return self._checked(result, self._do(_Job(next(self._numbers)), kind, given, look))
        except WorkerEndedError as ended:
            details = ended.details
            kind = details.get("signal") or "ProcessEndedError"
            output = "".join(f"  | {line}\n" for line in details["output"])
            report = problem(details["file"], details["line"], kind, f"{ended} while the code was loaded")
            raise LoadError([{**report, "traceback": report["traceback"] + output}]) from None
        finally:
            self._is_loading = False

    def _hang(self, seconds: float) -> ErrorReport:
        """A report about loading that does not come to its end."""
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
        self, run: Run, model: "ResidentModel", turns: list[dict[str, Any]], tool_seconds: float
    ) -> messages.Answered:
        """What the run's agent gives, for its question and the `turns` before it in its session.

        Raises what the agent raises: a `HearthError` as such, anything else as `AgentFailedError`. Raises
        `WorkerCrashedError`; `DidNotStopError` for a run that was stopped and whose agent continues: the worker is
        retired.
        """
        job = _Job(next(self._numbers), run, contextvars.copy_context())
        stop_at = math.inf

        def look() -> float:
            nonlocal stop_at
            now = time.monotonic()
            if run.cancelled.is_set():
                if stop_at == math.inf:
                    stop_at = now + STOP_SECONDS
                    self._send({"kind": "cancel", "job": job.id})
                elif now > stop_at:
                    self.retire(f"the agent {run.agent} of run {run.id} did not stop")
                    raise DidNotStopError(f"the agent of run {run.id} did not stop")
            self._check_tools(job, now)
            return NOTICE_SECONDS

        given = {
            "model": self._introduce(model),
            "agent": run.agent,
            "question": run.question,
            "history": list(run.history),
            "turns": turns,
            "max_steps": run.max_steps,
            "tool_seconds": tool_seconds,
        }
        try:
            return self._checked(messages.Answered, self._do(job, "answer", given, look))
        except WorkerEndedError as ended:
            raise WorkerCrashedError(
                f"{ended}. Tools that were called may have done their work. Ask again: a fresh worker answers.",
                **ended.details,
                steps=run.steps,
            ) from None

    def call_tool(self, tool: str, given: Mapping[str, Any], seconds: float) -> str:
        """What a tool gives, as text. Raises `ToolFailedError` with a sentence, `WorkerCrashedError`."""
        job = _Job(next(self._numbers), context=contextvars.copy_context())

        def look() -> float:
            self._check_tools(job, time.monotonic())
            return NOTICE_SECONDS

        try:
            value = self._do(job, "call_tool", {"tool": tool, "input": given, "seconds": seconds}, look)
            return self._checked(_Text, {"text": value}).text
        except AgentFailedError as error:
            if error.details["exception"] != ToolFailedError.__name__:
                raise
            raise ToolFailedError(error.details["reason"]) from None
        except WorkerEndedError as ended:
            raise WorkerCrashedError(f"{ended}.", **ended.details) from None

    def write_note(self, record: Mapping[str, Any], seconds: float) -> Any:
        """What the code's `write_note` gives for a run's record. Raises `TimeoutError`, `AgentFailedError`, a
        `HearthError`, `WorkerCrashedError`."""
        deadline = time.monotonic() + seconds

        def look() -> float:
            if time.monotonic() > deadline:
                self.retire("a note took too long to be written")
                raise TimeoutError(f"it took longer than {seconds:g} s")
            return NOTICE_SECONDS

        job = _Job(next(self._numbers), context=contextvars.copy_context())
        try:
            return self._do(job, "note", {"record": record}, look)
        except WorkerEndedError as ended:
            raise WorkerCrashedError(f"{ended}.", **ended.details) from None

    def forget(self, name: str) -> None:
        """Let `keep` build the value of that name anew."""
        self._send({"kind": "forget", "name": name})

    def _check_tools(self, job: "_Job", now: float) -> None:
        """A tool whose time is up and of which the worker says nothing blocks the whole process."""
        for tool, seconds, deadline in list(job.tools.values()):
            if now > deadline + STOP_SECONDS:
                self._place = self.process.place_in(self.process.stacks())
                self.kill(f"the tool {tool} did not answer within {seconds:g} seconds and blocked the process")

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
        """Give it no new runs, and end it when it has none left, or after a while."""
        with self._changing:
            if self.retired is not None:
                return
            self.retired = reason
            log.warning("the worker %d of %s %s is retired: %s", *self._name, reason)
            self._end_if_retired()
        self._later(RETIRE_SECONDS, lambda: self.kill(reason))

    def _end_if_retired(self) -> None:
        if self.retired is not None and not self._jobs:
            self.kill(self.retired)

    def close(self) -> None:
        """End it; nobody uses it any more. What its code does at exit is done, within `END_SECONDS`."""
        with self._changing:
            if self._killed_for is not None:
                return
            self._killed_for = self.retired = "it is not needed any more"
        self._channel.close_sending()
        self._later(END_SECONDS, self.process.kill)

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call it after so many seconds, if the process has not ended by then."""
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        timer.start()
        self.process.on_end(lambda _: timer.cancel())

    def end_if_idle(self, seconds: float) -> None:
        """End it if it has had nothing to do for so long."""
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

    def _do(self, job: "_Job", kind: str, given: Mapping[str, Any], look: Callable[[], float]) -> Any:
        """Have the worker do something, and do meanwhile what it asks of the model.

        `look` says for how many seconds to wait at most until it is called again, and may raise.
        """
        with self._changing:
            if self.retired is not None or self._over is not None:
                raise NotStartedError(self.retired or str(self._over))
            self._jobs[job.id] = job
        try:
            if not self._send({"kind": kind, "job": job.id, **given}):
                raise NotStartedError("it has ended")
            while True:
                try:
                    message = job.inbox.get(timeout=look())
                except queue.Empty:
                    continue
                match message:
                    case _Call():
                        message.serve()
                        job.is_serving = False
                    case messages.Done():
                        return message.value
                    case messages.Failed():
                        raise self._error(message.error, job)
                    case WorkerEndedError():
                        raise message
        finally:
            with self._changing:
                del self._jobs[job.id]
                while not job.inbox.empty():
                    # Of a thread that people's code has left running.
                    if isinstance(left := job.inbox.get(), _Call):
                        left.serve_elsewhere()
                self.idle_since = time.monotonic()
                self._end_if_retired()

    def _checked(self, kind: type[R], value: Any) -> R:
        """A result, read as if it came from outside. Raises `WorkerEndedError` where it is none."""
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            self.kill(f"it sent what is no result ({'.'.join(map(str, first['loc']))}: {first['msg']})")
            self.process.ended.wait(END_SECONDS)
            raise self._described(self.process.end) from None

    def _error(self, raised: messages.Raised, job: "_Job") -> Exception:
        """The error that people's code raised."""
        if raised.reports is not None:
            return LoadError([cast(ErrorReport, report.model_dump()) for report in raised.reports])
        kind = getattr(errors, raised.type, None)
        if raised.known and isinstance(kind, type) and issubclass(kind, HearthError):
            return kind(raised.message, **raised.details)
        log.warning("%s %s: %s", self.workspace, self.generation, raised.traceback or raised.message)
        details: dict[str, Any] = {"exception": raised.type, "reason": raised.message}
        details |= {"file": raised.file, "line": raised.line, "traceback": raised.traceback}
        if job.run is not None:
            details["steps"] = job.run.steps
        return AgentFailedError(
            f"The code of {self.workspace} failed with {raised.type}: {raised.message}", **details
        )

    def _send(self, message: Mapping[str, Any]) -> bool:
        """Returns whether all of it was sent. A worker that does not read is ended."""
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
        """Hand out what the worker sends, until it ends."""
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
            jobs = list(self._jobs.values())
        metrics.WORKER_ENDS.labels("crashed" if self._killed_for is None else "ended").inc()
        if self._killed_for is None:
            log.warning("%s", str(over))  # a handler that keeps it would keep all that its traceback holds
        for job in jobs:
            # Each gets its own: two threads must not raise the same one.
            job.inbox.put(WorkerEndedError(str(over), over.details))
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
            # The job itself may have ended long before.
            self.retire(f"the {message.what} did not stop")
            return
        if isinstance(message, messages.Leave):
            if (call := self._asked.get(message.call)) is not None:
                call.leave()
            return
        with self._changing:
            job = self._jobs.get(message.job) if message.job is not None else None
        if isinstance(message, messages.Ask):
            self._take_call(message, job)
        elif job is not None:
            if not isinstance(message, messages.Done | messages.Failed):
                job.sent_bytes += size
            if job.sent_bytes > MOST_SENT_BYTES:
                self.kill(f"one run sent more than {MOST_SENT_BYTES} bytes of steps")
                return
            job.take(message)

    def _take_call(self, message: messages.Ask, job: "_Job | None") -> None:
        if sum(other.job is job for other in list(self._asked.values())) >= MOST_CALLS:
            error = QueueFullError(f"{MOST_CALLS} calls of the model are under way, and no run may have more.")
            self._send({"kind": "reply", "call": message.call, "error": as_reply(error)})
            return
        call = _Call(self, message, job)
        self._asked[message.call] = call
        if job is not None and job.context is not None and message.what in AT_ONCE:
            job.context.copy().run(call.serve)
            return
        if job is not None and not job.is_serving and job.context is not None:
            job.is_serving = True
            job.inbox.put(call)
            return
        # The job's own thread is busy with another call, or there is none.
        call.serve_elsewhere(None if job is None else job.context)


class _Job:
    """Something that the worker does. `context`: in which its calls of the model are done."""

    def __init__(self, number: int, run: Run | None = None, context: contextvars.Context | None = None) -> None:
        self.id = number
        self.run = run
        self.context = context
        self.inbox: queue.SimpleQueue[_Call | messages.Done | messages.Failed | WorkerEndedError] = (
            queue.SimpleQueue()
        )
        self.is_serving = False
        """Whether the thread that waits for the job does a call, or is about to."""
        self.sent_bytes = 0
        self.tools: dict[int, tuple[str, float, float]] = {}
        """Calls of tools under way: the tool, its time limit, and until when."""

    def take(self, message: messages.FromWorker) -> None:
        match message:
            case messages.Done() | messages.Failed():
                self.inbox.put(message)
            case messages.Step() if self.run is not None:
                self.run.add_step(message.step)
            case messages.Plan() if self.run is not None:
                self.run.events.publish("plan", {"steps": message.steps})
            case messages.Recalled() if self.run is not None:
                self.run.recalled = message.messages
            case messages.ToolBegan():
                self.tools[message.call] = (message.tool, message.seconds, time.monotonic() + message.seconds)
            case messages.ToolEnded():
                tool = self.tools.pop(message.call, ("unknown", 0.0, 0.0))[0]
                metrics.TOOL_SECONDS.labels(tool).observe(message.seconds)
                if message.failed:
                    metrics.TOOL_FAILURES.labels(tool).inc()


class _Call:
    """Something that people's code asks of the model. It is its `Caller`."""

    def __init__(self, worker: Worker, message: messages.Ask, job: _Job | None) -> None:
        self.job = job
        self._left = threading.Event()
        self._worker = worker
        self._message = message

    @property
    def left(self) -> bool:
        """See `Caller`."""
        return self._left.is_set()

    def leave(self) -> None:
        """Nobody reads the answer any more: the model stops at its next token."""
        self._left.set()

    def serve(self) -> None:
        """Do it, and send what comes of it."""
        message, worker = self._message, self._worker
        try:
            with (
                cancellation.scope(_EitherSet(self._left, cancellation.current())),
                within_tool(message.tool) if message.tool is not None else nullcontext(),
            ):
                value = worker._calls.do(message.what, message.given, self, worker._grammars, worker.workspace)
            reply: dict[str, Any] = {"value": value}
        except BaseException as error:  # boundary: people's code is sent whatever went wrong
            reply = {"error": as_reply(error)}
        finally:
            worker._asked.pop(message.call, None)
        if not self.left:
            worker._send({"kind": "reply", "call": message.call, **reply})

    def serve_elsewhere(self, context: contextvars.Context | None = None) -> None:
        """The same on another thread, in a copy of `context`, or in none: then the model is the default one."""
        within = contextvars.Context() if context is None else context.copy()
        name = f"call {self._message.what}"
        threading.Thread(target=within.run, args=(self.serve,), name=name, daemon=True).start()

    def send_part(self, value: dict[str, Any]) -> None:
        """See `Caller`."""
        self._worker._send({"kind": "part", "call": self._message.call, "value": value})


class _EitherSet(threading.Event):
    """Is set when one of two others is. To be looked at only."""

    def __init__(self, one: threading.Event, other: threading.Event | None) -> None:
        super().__init__()
        self._both = (one,) if other is None else (one, other)

    def is_set(self) -> bool:
        """See `threading.Event`."""
        return any(event.is_set() for event in self._both)
