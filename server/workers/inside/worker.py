"""The worker: it loads one generation, and then answers questions with it.

The main thread loads the code, since there Python lets it do what any program may do (signal handlers, for one). One
thread reads the socket and hands the messages out; each run has a thread of its own.
"""

import gc
import inspect
import os
import queue
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from langchain_core.tools import BaseTool
from pydantic import ValidationError

from server.errors import HearthError, NoHistoryError, PromptTooLongError
from server.sdk import cancellation, run
from server.sdk.chat_model import ResidentChatModel
from server.sdk.saved_values import KeptReport, KeptValues, use
from server.sdk.tool_call import call_tool
from server.workers.failure import LoadError
from server.workers.inside import server_end
from server.workers.inside.loading import LoadedCode
from server.workers.inside.models import ApiStandIn, ModelOfTheContext, ResidentStandIn
from server.workers.inside.priority import lower_priority
from server.workers.inside.server_end import ServerEnd
from server.workers.inside.toolset import build_tools, describe_tool
from server.workers.messages import Answered, Channel, MessageError, decode, encode

HISTORY_SHARES = (1 / 4, 1 / 8, 1 / 16, 0)
"""Of the model's window, what the history of a session takes at most; less where question and tools leave no room."""
STOP_SECONDS = 3.0
"""How long what a run has turned away from may take to end. Then the server is to replace this worker."""


def main(connection: socket.socket) -> None:
    """Serve until the server closes the connection."""
    Worker(Channel(connection)).serve()


class Worker:
    """The process's one. Its main thread is in `serve`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._server = ServerEnd(channel)
        self._on_main: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._models: dict[int, ResidentStandIn | ApiStandIn] = {}
        self._code: LoadedCode | None = None
        self._tools: dict[str, BaseTool] = {}
        self._kept: KeptValues | None = None
        self._jobs: dict[int, Job] = {}
        self._changing = threading.Lock()

    def serve(self) -> None:
        """Do what the server asks for. Returns when it has closed the connection."""
        threading.Thread(target=self._read, name="hearth messages", daemon=True).start()
        while (work := self._on_main.get()) is not None:
            work()

    def _read(self) -> None:
        try:
            while (data := self._channel.receive()) is not None:
                self._take(decode(data.decode()))
        except BaseException:  # boundary: the process. People's code may have closed the socket, or used up a limit
            _give_up()
        # The server has closed its end. The process ends as any other, with what people's code does at exit; if it
        # does not, its guard ends it.
        self._on_main.put(None)

    def _take(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "part" | "reply":
                self._server.deliver(message)
            case "load":
                self._on_main_thread(message, self._load)
            case "build":
                self._on_main_thread(message, self._build)
            case "model":
                self._models[message["id"]] = self._stand_in(message)
            case "answer":
                self._begin(message, self._answer)
            case "call_tool":
                self._begin(message, self._call_tool)
            case "note":
                self._begin(message, self._note)
            case "cancel":
                with self._changing:
                    job = self._jobs.get(message["job"])
                if job is not None:
                    job.cancelled.set()
            case "forget":
                if self._kept is not None:
                    self._kept.drop(message["name"])

    def _begin(self, message: dict[str, Any], work: Callable[["Job", dict[str, Any]], Any]) -> None:
        """Let a thread of its own do it."""
        job = Job(message["job"], self._server)
        with self._changing:
            self._jobs[job.id] = job

        def do() -> None:
            try:
                self._do(job, lambda: work(job, message))
            finally:
                with self._changing:
                    del self._jobs[job.id]

        threading.Thread(target=do, name=f"run {job.id}", daemon=True).start()

    def _do(self, job: "Job", work: Callable[[], Any]) -> None:
        """Send what comes of it."""
        token = server_end.job.set(job.id)
        try:
            with cancellation.scope(job.cancelled), run.scope(job):
                try:
                    self._server.send("done", job=job.id, value=work())
                except MessageError as error:
                    raise ValueError(f"the result can't be sent: {error}") from None
        except BaseException as error:  # boundary: people's code may raise anything
            self._send_failure(job, error)
        finally:
            server_end.job.reset(token)

    def _send_failure(self, job: "Job", error: BaseException) -> None:
        """Ends the process where that is impossible, so that the server does not wait."""
        try:
            try:
                self._server.send("failed", job=job.id, error=self._described(error))
            except (MessageError, TypeError, ValueError) as failure:
                message = f"what it says can't be sent: {failure}"
                self._server.send("failed", job=job.id, error={"type": type(error).__name__, "message": message})
        except BaseException:  # boundary: the process
            _give_up()

    def _described(self, error: BaseException) -> dict[str, Any]:
        """An error as the server reads it."""
        if isinstance(error, LoadError):
            return {"type": "LoadError", "message": str(error)[:1000], "reports": error.errors}
        if isinstance(error, HearthError):
            return {
                "type": type(error).__name__,
                "known": True,
                "message": error.message,
                "details": _plain(error.details),
            }
        assert self._code is not None, "only loading comes before there is code, and its errors are LoadErrors"
        return dict(self._code.files.describe(error))

    # Loading

    def _on_main_thread(self, message: dict[str, Any], work: Callable[[dict[str, Any]], Any]) -> None:
        """Load or build. Hardly anything of what this makes is garbage: the collector would look at all of it often,
        and find nothing."""

        def do() -> None:
            gc.disable()
            try:
                self._do(Job(message["job"], self._server), lambda: work(message))
            finally:
                gc.enable()

        self._on_main.put(do)

    def _load(self, message: dict[str, Any]) -> dict[str, Any]:
        self._kept = KeptValues(Path(message["kept"]), self._report_value, message["drafts"])
        use(self._kept)
        self._code = LoadedCode(message["folder"])
        return {"agents": sorted(self._code.agents), "imports": self._code.third_party()}

    def _report_value(self, report: KeptReport) -> None:
        self._server.send(
            "saved",
            name=report.name,
            type=report.type,
            bytes=report.bytes,
            built=report.built,
            how=report.kind,
            draft=report.draft,
        )

    def _build(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._code is not None, "code is loaded before its tools are built"
        model = ModelOfTheContext(self._server)
        self._tools = build_tools(self._code, ResidentChatModel(get_engine=lambda: model))
        built = {
            "tools": [describe_tool(self._code, tool) for tool in self._tools.values()],
            "imports": self._code.third_party(),
        }
        lower_priority(message["niceness"])
        return built

    def _stand_in(self, message: dict[str, Any]) -> ResidentStandIn | ApiStandIn:
        if message["guided"]:
            return ResidentStandIn(self._server, message["context_length"], message["control_tokens"])
        return ApiStandIn(self._server, message["name"], message["context_length"], message["takes_schema"])

    # Answering

    def _answer(self, job: "Job", message: dict[str, Any]) -> dict[str, Any]:
        """What the agent gives for the question, and for what was said before it, where there is any."""
        assert self._code is not None, "code is loaded before it is asked"
        model = self._models[message["model"]]
        agent = self._code.agents[message["agent"]](model, self._tools, message["max_steps"], message["tool_seconds"])
        question, history, turns = message["question"], message["history"], message["turns"]
        if not turns:
            return _as_plain(message["agent"], _call(message["agent"], agent, question, history))
        notes = self._notes()
        for share in HISTORY_SHARES:
            recalled = _plain(notes.recall(model, question, turns, share)) if share else []
            self._server.send("recalled", job=job.id, messages=recalled)
            try:
                return _as_plain(message["agent"], _call(message["agent"], agent, question, [*history, *recalled]))
            except PromptTooLongError:
                if job.has_steps or not recalled:
                    raise
        raise AssertionError("without a history it was answered, or raised")

    def _call_tool(self, job: "Job", message: dict[str, Any]) -> str:
        return call_tool(self._tools[message["tool"]], message["input"], message["seconds"])

    def _note(self, job: "Job", message: dict[str, Any]) -> Any:
        """What the code has the background model write of a run."""

        def complete(
            messages: list[dict[str, str]], *, max_tokens: int, schema: Mapping[str, Any] | None = None
        ) -> str:
            reply = self._server.ask("note", messages=messages, max_tokens=max_tokens, schema=schema)
            return str(reply["text"])

        return _plain(self._notes().write_note(complete, message["record"]))

    def _notes(self) -> Any:
        """The module that says what a session remembers. Raises `NoHistoryError` where there is none."""
        assert self._code is not None, "code is loaded before it is asked"
        try:
            return self._code.modules["agent.notes"]
        except KeyError:
            raise NoHistoryError(
                "This generation has no server/agent/notes.py, which says what of a session a question is shown. "
                "Ask code that has one, or without a session."
            ) from None


class Job:
    """One thing that the server asked for. It is the `Listener` of the run that it answers."""

    def __init__(self, number: int, server: ServerEnd) -> None:
        self.id = number
        self.cancelled = threading.Event()
        self.has_steps = False
        self._server = server
        self._calls = 0
        self._counting = threading.Lock()

    def step(self, step: dict[str, Any]) -> None:
        """See `Listener`."""
        self.has_steps = True
        self._server.send("step", job=self.id, step=step)

    def plan(self, steps: list[dict[str, Any]]) -> None:
        """See `Listener`."""
        self._server.send("plan", job=self.id, steps=steps)

    def tool_began(self, tool: str, seconds: float) -> int:
        """See `Listener`."""
        with self._counting:
            self._calls += 1
            call = self._calls
        self._server.send("tool_began", job=self.id, call=call, tool=tool, seconds=float(seconds))
        return call

    def tool_ended(self, call: int, seconds: float, failed: bool) -> None:
        """See `Listener`."""
        self._server.send("tool_ended", job=self.id, call=call, seconds=seconds, failed=failed)

    def still_running(self, what: str, ended: Callable[[], bool]) -> None:
        """See `Listener`."""

        def look() -> None:
            until = time.monotonic() + STOP_SECONDS
            while not ended() and time.monotonic() < until:
                time.sleep(0.05)
            if not ended():
                self._server.send("stuck", job=self.id, what=what)

        threading.Thread(target=look, name=f"{what} is stopped", daemon=True).start()


def _call(name: str, agent: Callable[..., Any], question: str, history: list[dict[str, str]]) -> Any:
    if not history:
        return agent(question)
    try:
        inspect.signature(agent).bind(question, history)
    except TypeError:
        raise NoHistoryError(
            f"The agent {name!r} takes a question alone, and can't know what was said before it. Let its __call__ "
            "take a history as well, as in server/agent/agent.py, or ask without a session."
        ) from None
    return agent(question, history)


def _as_plain(name: str, result: Any) -> dict[str, Any]:
    """An agent's result as the server reads it."""
    if not isinstance(result.answer, str):
        raise TypeError(
            f"the agent {name!r} gave {type(result.answer).__name__} as its answer, and not text. It is the first "
            "value of AgentResult."
        )
    plain: dict[str, Any] = _plain(
        {
            "answer": result.answer,
            "function": result.function,
            "steps": [run.as_json(step) for step in result.steps],
            "usage": result.usage,
            "details": getattr(result, "details", None) or {},
        }
    )
    try:
        Answered.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise TypeError(f"the agent {name!r} gave what is no AgentResult: {place}: {first['msg']}") from None
    return plain


def _plain(value: Any) -> Any:
    """`value` in plain values only. Raises `TypeError` or `ValueError` for what is no JSON."""
    return decode(encode(value))


def _give_up() -> NoReturn:
    """End the process, with the exception under way in its output: the server reports that."""
    try:
        traceback.print_exc()
    finally:
        os._exit(1)
