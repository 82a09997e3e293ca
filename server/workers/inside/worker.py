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
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from langchain_core.tools import BaseTool
from pydantic import ValidationError

from server.bounds import LONGEST_TEXT
from server.errors import HearthError, InvalidRequestError, NoHistoryError, PromptTooLongError
from server.sdk import context
from server.sdk.chat_model import ResidentChatModel
from server.sdk.jobs import SessionJobs, is_background
from server.sdk.replay import ReplayedStep
from server.sdk.run import as_json
from server.sdk.saved_values import KeptReport, KeptValues, use
from server.sdk.tool_absent import AbsentTool
from server.sdk.tool_call import call_and_show, call_tool
from server.sdk.tool_content import as_content, in_pieces
from server.sdk.tool_error import ToolFailedError
from server.workers.failure import LoadError
from server.workers.inside.loading import LoadedCode
from server.workers.inside.mcp_tools import McpTools
from server.workers.inside.models import ApiStandIn, ModelOfTheContext, ResidentStandIn
from server.workers.inside.overlooked import overlooked
from server.workers.inside.priority import lower_priority
from server.workers.inside.server_end import ServerEnd
from server.workers.inside.task import Task
from server.workers.inside.toolset import build_tools, describe_tool
from server.workers.messages import LONGEST_FROM_WORKER, Answered, Channel, MessageError, decode, encode

HISTORY_SHARES = (1 / 4, 1 / 8, 1 / 16, 0)
"""The maximum shares of the model's context window for a session's history. They are tried in this order until
question, tools and history fit."""


def main(connection: socket.socket) -> None:
    """Serve until the server closes the connection."""
    Worker(Channel(connection, sends=LONGEST_FROM_WORKER)).serve()


class Worker:
    """The worker's side of the connection to the server. The process has one, and its main thread runs `serve`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._server = ServerEnd(channel)
        self._on_main: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._models: dict[int, ResidentStandIn | ApiStandIn] = {}
        self._code: LoadedCode | None = None
        self._tools: dict[str, BaseTool] = {}
        self._kept: KeptValues | None = None
        self._tasks: dict[int, Task] = {}
        self._changing = threading.Lock()

    def serve(self) -> None:
        """Do what the server asks for. Returns when the server has closed the connection."""
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
                    task = self._tasks.get(message["task"])
                if task is not None:
                    task.cancelled.set()
            case "forget":
                if self._kept is not None:
                    self._kept.drop(message["name"])

    def _begin(self, message: dict[str, Any], work: Callable[[Task, dict[str, Any]], Any]) -> None:
        """Do `work` for the message on a new thread."""
        task = Task(message["task"], self._server, None if self._code is None else self._code.files)
        with self._changing:
            self._tasks[task.id] = task

        def do() -> None:
            try:
                self._do(task, lambda: work(task, message))
            finally:
                with self._changing:
                    del self._tasks[task.id]

        threading.Thread(target=do, name=f"run {task.id}", daemon=True).start()

    def _do(self, task: Task, work: Callable[[], Any]) -> None:
        """Send the result of `work`, or the error that it raises."""
        try:
            with context.scope(task=task.id, cancelled=task.cancelled, listener=task):
                try:
                    self._server.send("done", task=task.id, value=work())
                except MessageError as error:
                    raise ValueError(f"the result can't be sent: {error}") from None
        except BaseException as error:  # boundary: people's code may raise anything
            self._send_failure(task, error)

    def _send_failure(self, task: Task, error: BaseException) -> None:
        """Send the error of a task. If that is impossible, end the process, so that the server does not wait."""
        try:
            try:
                self._server.send("failed", task=task.id, error=self._described(error))
            except (MessageError, TypeError, ValueError) as failure:
                message = f"what it says can't be sent: {failure}"
                self._server.send("failed", task=task.id, error={"type": type(error).__name__, "message": message})
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
        """Load or build on the main thread, with garbage collection off: nearly all objects that this creates stay,
        so the collector would scan them often and find nothing."""

        def do() -> None:
            gc.disable()
            try:
                self._do(Task(message["task"], self._server), lambda: work(message))
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
        llm = ResidentChatModel(get_engine=lambda: model)
        absent: list[AbsentTool] = []
        with context.scope(absent_tools=absent, absent_internet=message["absent_internet"]):
            self._tools = build_tools(self._code, llm, message["check"])
        outside = McpTools(self._code, self._tools)
        if message["check"]:
            outside.find(message["mcp_seconds"])
        else:
            outside.take(message["mcp_tools"])
        self._tools |= outside.tools
        built: dict[str, Any] = {"tools": [], "warnings": [], "imports": [], "absent": [], "mcp_tools": []}
        if message["check"]:
            built = {
                "tools": [describe_tool(self._code, tool) for tool in self._tools.values()],
                "warnings": [*overlooked(self._code, self._tools.values()), *outside.warnings],
                "imports": [*self._code.third_party(), *outside.imports],
                "absent": [asdict(one) for one in (*absent, *outside.absent) if one.name not in self._tools],
                "mcp_tools": outside.listed,
            }
        lower_priority(message["niceness"])
        return built

    def _stand_in(self, message: dict[str, Any]) -> ResidentStandIn | ApiStandIn:
        if message["guided"]:
            return ResidentStandIn(self._server, message["context_length"], message["control_tokens"])
        return ApiStandIn(self._server, message["name"], message["context_length"], message["takes_schema"])

    # Answering

    def _answer(self, task: Task, message: dict[str, Any]) -> dict[str, Any]:
        """The agent's result for the question and the history, if there is one."""
        assert self._code is not None, "code is loaded before it is asked"
        model, turns = self._models[message["model"]], message["turns"]
        jobs = SessionJobs(message["jobs"], any(map(is_background, self._tools.values())))
        with context.scope(
            jobs=jobs,
            has_code=message["has_code"],
            has_documents=message["has_documents"],
            has_images=message["has_images"],
            most_tools=message["most_tools"],
            session_tools=_tools_called(turns),
            replayed=tuple(ReplayedStep(**one) for one in message["replayed"]),
        ):
            make = self._code.agents[message["agent"]]
            if message["replayed"] and not getattr(make, "replays", False):
                raise InvalidRequestError(
                    f"The agent {message['agent']!r} of this generation can't replay the steps of another run. Fork "
                    "at step 1, or with another agent or generation, or let it use server.sdk.replayed_steps and say "
                    "replays = True."
                )
            agent = make(model, self._tools, message["max_steps"], message["tool_seconds"])
            return self._ask_agent(task, message, model, agent)

    def _ask_agent(
        self, task: Task, message: dict[str, Any], model: ResidentStandIn | ApiStandIn, agent: Callable[..., Any]
    ) -> dict[str, Any]:
        question, history, turns = message["question"], message["history"], message["turns"]
        if not turns:
            return _as_plain(message["agent"], _call(message["agent"], agent, question, history))
        notes = self._notes()
        for share in HISTORY_SHARES:
            recalled = _plain(notes.recall(model, question, turns, share)) if share else []
            self._server.send("recalled", task=task.id, messages=recalled)
            try:
                return _as_plain(message["agent"], _call(message["agent"], agent, question, [*history, *recalled]))
            except PromptTooLongError:
                if task.has_steps or not recalled:
                    raise
        raise AssertionError("without a history it was answered, or raised")

    def _call_tool(self, task: Task, message: dict[str, Any]) -> dict[str, Any]:
        """A call of a tool alone, without an agent; see `server.workers.worker._Called`."""
        try:
            with context.scope(is_alone=True):
                tool, given, seconds = self._tools[message["tool"]], message["input"], message["seconds"]
                if not message["as_content"]:
                    return {"text": call_tool(tool, given, seconds)}
                content = call_and_show(tool, given, seconds, as_content)
        except ToolFailedError as failure:
            return {"failed": str(failure), "traceback": failure.traceback}
        if isinstance(content, str):
            return {"text": content}
        return {"blocks": in_pieces(content.blocks, LONGEST_TEXT), "structured": content.structured}

    def _note(self, task: Task, message: dict[str, Any]) -> Any:
        """The note on a run that the code's `write_note` makes with the background model."""

        def complete(
            messages: list[dict[str, str]],
            *,
            max_tokens: int,
            schema: Mapping[str, Any] | None = None,
            words: str = "",
        ) -> str:
            reply = self._server.ask("note", messages=messages, max_tokens=max_tokens, schema=schema, words=words)
            return str(reply["text"])

        return _plain(self._notes().write_note(complete, message["record"]))

    def _notes(self) -> Any:
        """The code's module `agent.notes`, which selects a session's history. Raises `NoHistoryError` if there is
        none."""
        assert self._code is not None, "code is loaded before it is asked"
        try:
            return self._code.modules["agent.notes"]
        except KeyError:
            raise NoHistoryError(
                "This generation has no server/agent/notes.py, which says what of a session a question is shown. "
                "Ask code that has one, or without a session."
            ) from None


def _tools_called(turns: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of the tools that were called in `turns` of a session, the latest first: as the entries of the
    notepad have them, which a person may have changed."""
    calls = [call for turn in turns if turn["entry"] for call in turn["entry"].get("done", ())]
    return tuple(dict.fromkeys(call.partition("(")[0] for call in reversed(calls)))


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
            "steps": [as_json(step) for step in result.steps],
            "usage": result.usage,
            "details": getattr(result, "details", None) or {},
            "citations": [vars(one) for one in getattr(result, "citations", None) or ()],
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
    """`value` as plain JSON values. Raises `TypeError` or `ValueError` if it is not JSON."""
    return decode(encode(value))


def _give_up() -> NoReturn:
    """Print the current exception and end the process. The server reports the output."""
    try:
        traceback.print_exc()
    finally:
        os._exit(1)
