"""The client of a Hearth server, in one file. It needs `requests`, and Python 3.10 or newer.

In a notebook:

    %load_ext hearth
    %hearth http://gpubox:5001 --workspace alice

    %%tool
    def shout(text: str) -> str:
        "Write a text in capital letters."
        return text.upper()

    %ask Use shout on hello
    %generations
    %rollback 3f2a

In Python:

    import hearth
    lab = hearth.connect("http://gpubox:5001", workspace="alice")
    lab.ask("What is 37 * 52?")

All that goes wrong is a `HearthError`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import getpass
import hashlib
import json
import os
import re
import shlex
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import requests
import requests.auth

__all__ = ["HearthError", "Lab", "connect"]

MAIN = "main"
CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
SHOW_SECONDS = 0.1
"""How soon a notebook is shown more of an answer."""
MOST_LISTED = 1000
RETRY_SECONDS = 1.0
"""How long to wait when the server has no place and does not say for how long."""

Item = TypeVar("Item")


# What goes wrong


@dataclass(frozen=True)
class Mistake:
    """An error in somebody's code, at a place. `file` and `line` are None where none can be named."""

    file: str | None
    line: int | None
    type: str
    message: str
    traceback: str = ""
    text: str | None = None
    """What the file holds, if it is known."""

    def __str__(self) -> str:
        lines = (self.text or "").splitlines()
        if self.line is None or not 0 < self.line <= len(lines):
            place = f"{self.file}: " if self.file else ""
            return self.traceback.rstrip() or f"{place}{self.type}: {self.message}"
        shown = [f"{self.file}, line {self.line}:"]
        width = len(str(self.line + 1))
        for number in range(max(1, self.line - 1), min(len(lines), self.line + 1) + 1):
            marker = "->" if number == self.line else "  "
            shown.append(f"{marker} {number:>{width}} | {lines[number - 1]}".rstrip())
        return "\n".join([*shown, f"{self.type}: {self.message}"])


class HearthError(Exception):
    """What went wrong.

    `message`: a sentence that says what to do. `code`: the server's, like `reload_failed`, or one of the client's
    own: `no_server`, `several_servers`, `no_answer`, `not_hearth`, `usage`, `no_function`, `cell`, `no_folder`.
    `status`: of HTTP; None when no server said it. `mistakes`: errors in code, each with its place. `retry_after`:
    after how many seconds it may go well; None if that is not known. `output`: of a worker that crashed, the last
    lines that it wrote.
    """

    def __init__(
        self,
        message: str,
        code: str,
        status: int | None = None,
        mistakes: Iterable[Mistake] = (),
        retry_after: float | None = None,
        output: Iterable[str] = (),
    ) -> None:
        super().__init__(message, code, status)
        self.message = message
        self.code = code
        self.status = status
        self.mistakes = list(mistakes)
        self.retry_after = retry_after
        self.output = list(output)

    def __str__(self) -> str:
        return "\n\n".join([self.message, *self._evidence()])

    def _evidence(self) -> list[str]:
        output = ["\n".join(["Its last output:", *(f"  | {line}" for line in self.output)])] if self.output else []
        return [*map(str, self.mistakes), *output]

    def _render_traceback_(self) -> list[str]:
        # IPython shows this in place of a traceback, all of which would be this file's.
        return [
            f"\x1b[31mHearthError\x1b[0m ({self.code}): {self.message}",
            *(f"\n{one}" for one in self._evidence()),
        ]


# What comes back


class Table(list[Item], Generic[Item]):
    """A list that a notebook shows as a table. `table["name"]` is a column, as a data frame has it."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return [row[key] if isinstance(row, Mapping) else getattr(row, key) for row in self]
        found = super().__getitem__(key)
        return Table(found) if isinstance(key, slice) else found

    def _rows(self) -> list[dict[str, str]]:
        return [{name: _cell(value) for name, value in _columns(row).items()} for row in self]

    def __repr__(self) -> str:
        rows = [{name: _short(text) for name, text in row.items()} for row in self._rows()]
        if not rows:
            return "(nothing)"
        widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
        lines = [{name: name for name in widths}, *rows]
        return "\n".join("  ".join(line[name].ljust(widths[name]) for name in widths).rstrip() for line in lines)

    def _repr_markdown_(self) -> str:
        rows = self._rows()
        if not rows:
            return "(nothing)"
        heading = [list(rows[0]), ["---"] * len(rows[0])]
        cells = [[_escaped(" ".join(text.split())) for text in row.values()] for row in rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in heading + cells)


@dataclass(frozen=True)
class Step:
    """A tool that was called: what the model thought, what it called with what, and what it read then."""

    thought: str
    tool: str
    input: dict[str, Any]
    observation: str
    error: str | None = None

    @property
    def action(self) -> str:
        """The call, as Python would write it."""
        return f"{self.tool}({', '.join(f'{name}={value!r}' for name, value in self.input.items())})"

    def __str__(self) -> str:
        return f"Thought: {self.thought}\nAction: {self.action}\nObservation: {self.observation}"

    def _repr_markdown_(self) -> str:
        return (
            f"*Thought:* {_escaped(self.thought)}  \n*Action:* {_code(self.action)}  \n"
            f"*Observation:* {_code(self.observation)}"
        )


@dataclass(frozen=True, repr=False)
class Answer:
    """An answer and how it came about. As text (`str`, `print`) it is the answer alone."""

    answer: str
    function: str | None
    """The tool that was called last."""
    steps: list[Step]
    generation: str
    """The hash of the code that answered."""
    run_id: str
    question: str
    workspace: str
    model: str
    seconds: float
    queued_seconds: float = 0.0
    session_id: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    """What some agents tell besides: `plan_execute` its `plan`, `auto` its `choice`."""
    replay_of: str | None = None
    same_answer: bool | None = None
    """Of a question that was asked again: is the answer the one that it was?"""
    not_reloaded: dict[str, Any] | None = None
    """Why code that has changed on disk did not answer: `message` and `errors`."""
    not_recorded: dict[str, Any] | None = None
    """Why no record of the run is kept: `message`."""

    def __str__(self) -> str:
        return self.answer

    def __repr__(self) -> str:
        return "\n".join([*map(str, self.steps), f"Answer: {self.answer}", f"({self._origin()})", *self._warnings()])

    def _repr_markdown_(self) -> str:
        parts = [step._repr_markdown_() for step in self.steps]
        parts += [f"**{_escaped(self.answer) or '(empty)'}**", f"*{_escaped(self._origin())}*"]
        return "\n\n".join([*parts, *map(_escaped, self._warnings())])

    def _warnings(self) -> list[str]:
        told = (("This is older code's answer.", self.not_reloaded), ("It is not recorded.", self.not_recorded))
        return [f"{what} {why['message']}" for what, why in told if why is not None]

    def _origin(self) -> str:
        same = {None: "", True: ", the same answer", False: ", another answer"}[self.same_answer]
        return f"{self.workspace}, generation {self.generation}, {self.seconds:.1f} s{same}"


@dataclass(frozen=True)
class Run:
    """A question in any state. `answer`, `function` and `steps` are there when it is done, `error` when it failed."""

    run_id: str
    state: str
    asked: datetime
    question: str
    workspace: str
    generation: str | None
    model: str | None
    seconds: float
    answer: str | None = None
    function: str | None = None
    steps: list[Step] = field(default_factory=list)
    error: str | None = None
    max_steps: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    position: int | None = None
    """Its place among those that wait for their turn; 1 is next."""

    def _row(self) -> dict[str, Any]:
        state = self.state if self.position is None else f"{self.state}, place {self.position}"
        return {
            "run": self.run_id,
            "asked": self.asked,
            "question": self.question,
            "answer": self.error or self.answer or state,
            "generation": self.generation,
        }


@dataclass(frozen=True)
class Conversation:
    """Questions that know what was said before them: `ask(..., session=...)`. `turns`: how many were answered."""

    session: str
    title: str
    turns: int
    created: datetime
    used: datetime

    def _row(self) -> dict[str, Any]:
        return {"session": self.session, "title": self.title, "turns": self.turns, "used": self.used}


@dataclass(frozen=True)
class Tool:
    """What the model may call."""

    name: str
    description: str
    args_schema: dict[str, Any]

    def _row(self) -> dict[str, Any]:
        arguments = ", ".join(self.args_schema.get("properties", {}))
        return {"tool": f"{self.name}({arguments})", "description": self.description}


@dataclass(frozen=True)
class Generation:
    """Code that became live at a time. `changed`: the files in which it differs from what was live before it."""

    generation: str
    time: datetime
    runs: int
    live: bool
    changed: list[str] | None = None
    """None: nothing was live before it."""

    def _row(self) -> dict[str, Any]:
        changed = "" if self.changed is None else ", ".join(self.changed) or "nothing"
        now = "live" if self.live else ""
        return {"generation": self.generation, "since": self.time, "changed": changed, "runs": self.runs, "": now}


@dataclass(frozen=True, repr=False)
class Reloaded:
    """What a reload did, or, for a dry run, would have done. `added`, `removed` and `changed_tools` name tools,
    `changed` modules."""

    workspace: str
    generation: str
    previous: str | None
    changed: list[str]
    added: list[str]
    removed: list[str]
    changed_tools: list[str]
    seconds: float
    rebuilt: list[str] = field(default_factory=list)
    """Values of `keep` that can't be saved: each worker builds its own."""
    dry_run: bool = False
    note: str = ""

    def __repr__(self) -> str:
        is_live = "would be live" if self.dry_run else "is live"
        if self.generation == self.previous:
            text = f"{self.workspace}: nothing changed, generation {self.generation} is live"
        else:
            before = f", in place of {self.previous}" if self.previous else ""
            text = f"{self.workspace}: generation {self.generation} {is_live}{before}"
        # Of code that takes nothing's place all tools are new, and most of them the common ones.
        added = "added" if self.previous else ""
        kinds = ((added, self.added), ("changed", self.changed_tools), ("removed", self.removed))
        tools = "; ".join(f"{kind} {', '.join(names)}".strip() for kind, names in kinds if names)
        rebuilt = self.rebuilt and f"built anew in each worker, since they can't be saved: {', '.join(self.rebuilt)}"
        parts = (text, tools and f"tools: {tools}", self.note, rebuilt)
        return "\n".join(part for part in parts if part)


@dataclass(frozen=True, repr=False)
class Diff:
    """What differs between two generations: `files` has a unified diff for each path."""

    before: str
    after: str
    files: dict[str, str]

    def __str__(self) -> str:
        return "".join(self.files.values()) or f"{self.before} and {self.after} have the same files."

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return _block(str(self), "diff")


@dataclass(frozen=True)
class File:
    """A file of a workspace."""

    path: str
    bytes: int

    def _row(self) -> dict[str, Any]:
        return {"path": self.path, "bytes": self.bytes}


@dataclass(frozen=True)
class Progress:
    """How far loading is."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Model:
    """A resident model. `state` is loading, ready, asleep or failed."""

    name: str
    state: str
    device: str | None = None
    quantization: str | None = None
    memory_bytes: int | None = None
    progress: Progress | None = None
    error: str | None = None


@dataclass(frozen=True)
class Worker:
    """A process that runs a workspace's code. `state` is starting, idle, busy, retired or ended. `retired`: why it
    gets no new questions."""

    workspace: str
    generation: str
    pid: int
    state: str
    runs: int
    memory_bytes: int
    cpu_seconds: float
    started_at: datetime
    retired: str | None = None

    def _row(self) -> dict[str, Any]:
        return {
            "workspace": self.workspace,
            "generation": self.generation,
            "state": self.state,
            "runs": self.runs,
            "MB": round(self.memory_bytes / 1e6),
            "CPU s": self.cpu_seconds,
            "since": self.started_at,
            "retired": self.retired,
        }


@dataclass(frozen=True)
class Health:
    """How far the server is. `model`: None if there is none. `tools`: how many main has; None if not built yet."""

    status: str
    version: str
    model: Model | None
    tools: int | None
    workers: Table[Worker] = field(default_factory=Table)
    """The processes of people's code."""
    autoload_error: str | None = None
    store_error: str | None = None
    """Why the record of the last run could not be kept."""


# Finding the server


@dataclass(frozen=True)
class _Found:
    url: str
    token: str = field(repr=False)


def connect(url: str | None = None, workspace: str = MAIN, token: str | None = None) -> Lab:
    """The server at `url`, as one workspace sees it.

    Without `url` it is the one that you run on this machine. Without `token` it is the one in `url` (the link that
    the server prints), that of your server on this machine, or else one that is asked for. Raises `HearthError`:
    `no_server`, `several_servers`, `not_hearth`, `unauthorized`.
    """
    if url is None:
        found = _running()
        if not found:
            raise HearthError(
                "No server of yours runs on this machine. Start one (`make run`), or say where one is, like "
                "http://gpubox:5001.",
                "no_server",
            )
        if len(found) > 1:
            urls = ", ".join(one.url for one in found)
            raise HearthError(f"Several servers of yours run on this machine: {urls}. Say which.", "several_servers")
        url, known = found[0].url, found[0].token
    else:
        url, known = _address(url)
        known = known or next((one.token for one in _running() if _same_place(one.url, url)), "")
    lab = Lab(url, workspace, known if token is None else token)
    try:
        lab.check()
    except HearthError as error:
        asked = _ask_for_token(url) if error.code == "unauthorized" and not (token or known) else None
        if not asked:
            raise
        lab = Lab(url, workspace, asked)
        lab.check()
    return lab


def _address(url: str) -> tuple[str, str]:
    """The address in what somebody typed or copied, and the token in it."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("no address")
    except ValueError:
        raise HearthError(f"{url} is no address like http://gpubox:5001.", "usage") from None
    token = parse_qs(parts.query).get("token", [""])[0]
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", "")), token


def _running() -> list[_Found]:
    """The servers of this person's that run on this machine, by the files that they leave while they do."""
    for folder in _runtime_folders():
        found = [one for file in sorted(folder.glob("hearth-*.json")) if (one := _read_runtime_file(file))]
        if found:
            return found
    return []


def _runtime_folders() -> list[Path]:
    """Where platformdirs, which the server asks, puts what belongs to a running program; the likeliest first."""
    if not hasattr(os, "geteuid"):
        return []
    bases = [os.environ.get("XDG_RUNTIME_DIR", "")]
    if sys.platform == "darwin":
        bases.append(os.path.expanduser("~/Library/Caches/TemporaryItems"))
    else:
        bases += [f"/run/user/{os.geteuid()}", os.path.join(tempfile.gettempdir(), f"runtime-{os.geteuid()}")]
    return [Path(base) / "hearth" for base in bases if base]


def _read_runtime_file(file: Path) -> _Found | None:
    """What it says; None if its server has ended, or if it is not this person's own."""
    try:
        # Anyone may make a folder in /tmp, and would be sent what is meant for the server.
        if file.stat().st_uid != os.geteuid():
            return None
        body = json.loads(file.read_text(encoding="utf-8"))
        os.kill(int(body["pid"]), 0)
        return _Found(str(body["url"]), str(body["token"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _same_place(one: str, other: str) -> bool:
    """Whether two URLs lead to the same port of the same machine, as far as names tell."""
    here = {"localhost", "127.0.0.1", "::1", socket.gethostname().lower()}
    a, b = urlsplit(one), urlsplit(other)
    return a.port == b.port and (a.hostname == b.hostname or {a.hostname, b.hostname} <= here)


def _ask_for_token(url: str) -> str | None:
    """Ask whoever sits there; None if nobody can be asked."""
    # A kernel puts a function of its own in getpass's place, which asks in the notebook.
    plain = getattr(getpass.getpass, "__module__", "") == "getpass"
    if plain and not (sys.stdin and sys.stdin.isatty()):
        return None
    try:
        return getpass.getpass(f"The token of {url}: ").strip() or None
    except (EOFError, NotImplementedError):  # the second: a kernel that nobody sits before
        return None


# The server, as one workspace sees it


class _Bearer(requests.auth.AuthBase):
    """Sends the token. As `auth` and no header, since a ~/.netrc would take a header's place."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@dataclass(frozen=True)
class _Source:
    """A file as its author knows it. `moved`: lines that were added to it, and the author's lines they stand for."""

    name: str
    text: str
    moved: Mapping[int, int] = field(default_factory=dict)


class Lab:
    """A server, as one workspace sees it. Any number of threads may use it.

    Every method raises `HearthError`.
    """

    def __init__(self, url: str, workspace: str = MAIN, token: str | None = None) -> None:
        """`connect` finds URL and token, and makes sure that they are right."""
        self.url = url
        self.workspace = workspace
        self._auth = _Bearer(token)
        # A session of `requests` is for one thread.
        self._threads = threading.local()

    def __repr__(self) -> str:
        return f"Hearth at {self.url}, workspace {self.workspace}"

    def check(self) -> None:
        """Make sure that a Hearth server is there, and lets us in."""
        body = self._json("GET", "/")
        if body.get("name") != "hearth":
            raise HearthError(f"What answers at {self.url} is no Hearth server.", "not_hearth")

    def health(self) -> Health:
        """How far the server is."""
        body = self._json("GET", "/health")
        model, tools = body.get("model"), body.get("tools")
        if model is not None:
            progress = model.get("progress")
            model = _made(Model, model, progress=progress and _made(Progress, progress), error=_reason(model))
        failed, unkept = body.get("autoload_error"), body.get("store_error")
        return _made(
            Health,
            body,
            model=model,
            tools=None if tools is None else tools["count"],
            workers=Table(
                _made(Worker, one, started_at=_local_time(one["started_at"])) for one in body.get("workers") or ()
            ),
            autoload_error=None if failed is None else failed["message"],
            store_error=None if unkept is None else unkept["message"],
        )

    # Asking

    def ask(
        self,
        question: str,
        *,
        agent: str | None = None,
        session: str | None = None,
        generation: str | None = None,
        model: str | None = None,
        max_steps: int | None = None,
        priority: str | None = None,
        stream: bool = False,
    ) -> Answer:
        """Ask a question, and wait for the answer as long as it takes. Whoever interrupts this cancels the run.

        `agent`: who answers, like `plan_execute`; else `react`. `session`: the conversation that it goes on with or
        begins, by a name. `generation`: the code that is to answer in place of the live one, by its hash or the first
        digits of it. `model`: the name of a resident one, in place of the default. `max_steps`: tool calls that it
        may take. `priority`: `batch` lets the questions of people who wait go first. `stream`: show thoughts,
        actions, observations and the answer as they come, below the cell in a notebook, and else on standard output.
        """
        wanted = self._named(
            {
                "question": question,
                "agent": agent,
                "session_id": session,
                "generation": generation,
                "model": model,
                "max_steps": max_steps,
                "priority": priority,
            }
        )
        try:
            if not stream:
                return _answer(self._json("POST", "/run_script", body=wanted, seconds=None), question)
            return self._ask_live(wanted, _CellView() if _in_notebook() else _TextView())
        except HearthError as error:
            error.mistakes = [self._placed(one, {}, generation) for one in error.mistakes]
            raise

    def _ask_live(self, wanted: Mapping[str, Any], view: _CellView | _TextView) -> Answer:
        """The answer, shown in `view` while it comes."""
        with contextlib.closing(self._events("/run_script", wanted)) as events:
            for kind, data in events:
                view.show(kind, data)
        return _answer(data, wanted["question"])

    def ask_many(
        self,
        questions: Iterable[str],
        *,
        at_once: int = 8,
        agent: str | None = None,
        generation: str | None = None,
        model: str | None = None,
        max_steps: int | None = None,
        priority: str | None = None,
    ) -> Any:
        """Ask many questions, up to `at_once` at a time, and wait for all of them. The rest is as `ask` has it.

        Gives a row for each, in their order: a pandas `DataFrame` if pandas is there, else a `Table` of dicts. A
        question that fails is a row with its `error`. When the server has no place, it is asked again later.
        """
        listed = list(questions)
        rows: list[dict[str, Any]] = [{} for _ in listed]
        given_up = threading.Event()

        def answer(place: int) -> None:
            while True:
                try:
                    answered = self.ask(
                        listed[place],
                        agent=agent,
                        generation=generation,
                        model=model,
                        max_steps=max_steps,
                        priority=priority,
                    )
                    rows[place] = _asked_row(listed[place], answered)
                except HearthError as error:
                    rows[place] = _failed_row(listed[place], error)
                    if error.status == 429 and not given_up.wait(error.retry_after or RETRY_SECONDS):
                        continue
                return

        bar = _bar("questions")
        pool = ThreadPoolExecutor(max(1, at_once), thread_name_prefix="ask")
        try:
            for count, done in enumerate(as_completed([pool.submit(answer, place) for place in range(len(listed))])):
                done.result()
                bar.show("questions", count + 1, len(listed))
        finally:
            # Whoever interrupts this doesn't want to wait for what was not answered yet.
            given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
            bar.close()
        try:
            import pandas
        except ImportError:
            return Table(rows)
        return pandas.DataFrame(rows, columns=list(_ROW))

    def sessions(self, limit: int = 20) -> Table[Conversation]:
        """The conversations of this workspace, the last used first."""
        body = self._json("GET", "/sessions", query={"workspace": self.workspace, "limit": limit})
        return Table(
            _made(
                Conversation, one, session=one["session_id"], created=_time(one["created"]), used=_time(one["used"])
            )
            for one in body["sessions"]
        )

    def runs(self, limit: int = 20) -> Table[Run]:
        """What was asked of this workspace, the latest first."""
        body = self._json("GET", "/runs", query={"workspace": self.workspace, "limit": limit})
        return Table(_run(one) for one in body["runs"])

    def run(self, run_id: str) -> Run:
        """A run by its id."""
        return _run(self._json("GET", f"/runs/{_quoted(run_id)}"))

    def replay(self, run_id: str) -> Answer:
        """Ask the question of an earlier run again, of the code that answered it."""
        question = self.run(run_id).question
        return _answer(self._json("POST", f"/runs/{_quoted(run_id)}/replay", seconds=None), question)

    def cancel(self, run_id: str) -> None:
        """Stop a run that is under way."""
        self._json("DELETE", f"/runs/{_quoted(run_id)}")

    # Code

    def tools(self) -> Table[Tool]:
        """The tools of this workspace. They are built first if they aren't."""
        body = self._json("POST", "/load_tools", body=self._named({}), seconds=None)
        return Table(_made(Tool, one) for one in body["tools"])

    def files(self) -> Table[File]:
        """The files of this workspace that lie over the common code."""
        body = self._json("GET", f"/workspaces/{_quoted(self.workspace)}/files")
        return Table(_made(File, one) for one in body["files"])

    def get(self, path: str) -> str:
        """The text of a file of this workspace, like `tools/shout.py`."""
        return self._read(path).decode("utf-8", "replace")

    def put(self, path: str, text: str) -> None:
        """Make or replace a file, and the workspace if it is new. It takes effect at the next reload."""
        self._write(path, text.encode())

    def delete(self, path: str) -> None:
        """Remove a file. It takes effect at the next reload."""
        self._check_own()
        self._call("DELETE", self._file(path))

    def reload(self, *, generation: str | None = None, dry_run: bool = False) -> Reloaded:
        """Take the workspace's files over, whole or not at all.

        `generation`: bring an earlier one back in place of the files. `dry_run`: only say what would happen.
        Raises `reload_failed` with the places and the lines.
        """
        return self._reload({}, generation, dry_run)

    def push(self, folder: str | os.PathLike[str]) -> Reloaded:
        """Send the Python files below a folder on this machine, and reload.

        They go to `tools/`. Of a folder that has `tools/`, `agent/` or `model.py` in it, these go as they are. Files
        of an earlier push of the folder that are gone from it are deleted. When the reload fails, the files stay
        sent, and the old code goes on.
        """
        self._check_own()
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise HearthError(f"There is no folder {root}.", "no_folder")
        files = _files_below(root)
        record = _push_record(self.url, self.workspace, root)
        before = _read_record(record)
        if not files and not before:
            raise HearthError(f"There are no Python files below {root}.", "no_folder")
        # Written down first: whatever happens in between, the next push knows all that may have been sent.
        _write_record(record, before | files.keys())
        sources = {}
        for path, place in files.items():
            data = place.read_bytes()
            sources[path] = _Source(str(place), data.decode("utf-8", "replace"))
            self._write(path, data)
        for path in sorted(before - files.keys()):
            with _expected("file_not_found"):
                self.delete(path)
        _write_record(record, set(files))
        return self._reload(sources)

    def write_tools(self, cell: str, name: str = "") -> Reloaded:
        """Make tools of the functions in a cell, and reload.

        `cell` is the cell with its first line, `%%tool` or a comment, so that its lines keep their numbers. Each
        public function without a decorator becomes a tool; its docstring tells the model what it does. The file is
        `tools/<name>.py`, by the first of these functions if there is no `name`. When the reload fails, the file is
        put back as it was. Raises `cell` or `no_function`, before anything is sent, for what is wrong in the cell.
        """
        self._check_own()
        path, text, source = _tool_file(cell, name)
        before = self._read_if_there(path)
        self._write(path, text.encode())
        try:
            return self._reload({path: source})
        except HearthError as error:
            # Without an answer nobody knows what is live, and the file may well be.
            if error.status is None:
                raise
            try:
                if before is None:
                    self.delete(path)
                else:
                    self._write(path, before)
            except HearthError as second:
                error.message += f" And {path} could not be put back as it was: {second.message}"
            else:
                error.message += f" {path} is as it was before." if before is not None else f" {path} is not kept."
            raise

    def generations(self, limit: int = 20) -> Table[Generation]:
        """What was live when in this workspace, and which files changed each time, the latest first."""
        body = self._json(
            "GET", "/generations", query={"workspace": self.workspace, "limit": min(limit, MOST_LISTED)}
        )
        made: Table[Generation] = Table()
        for one in body["generations"]:
            # Only its latest time is now.
            live = one["generation"] == body["live"] and all(other.generation != body["live"] for other in made)
            made.append(_made(Generation, one, time=_time(one["time"]), live=live))
        return made

    def diff(self, before: str, after: str) -> Diff:
        """What differs between two generations, given by their hashes or the first digits of them."""
        body = self._json("GET", f"/generations/{_quoted(before)}/diff", query={"to": after})
        return Diff(body["from"], body["to"], {one["path"]: one["diff"] for one in body["files"]})

    def rollback(self, generation: str) -> Reloaded:
        """Make an earlier generation live again. The files stay as they are, and the next reload takes them again."""
        return self.reload(generation=generation)

    # The model

    def load_model(
        self,
        model: str | None = None,
        *,
        replace: bool = True,
        load_in_8bit: bool | None = None,
        device_map: str | None = None,
        dtype: str | None = None,
        base_url: str | None = None,
    ) -> Model:
        """Make a model resident, and wait until it is ready, with a bar that shows how far it is.

        `model`: `embedded`, a Hugging Face id, a folder on the server, or one behind an API, like `openai:NAME`,
        which is asked at `base_url`. With `replace` it takes the place of the default, and else it comes beside those
        that are there. What is left out comes from the server's settings.
        """
        wanted = {
            "model": model,
            "replace": replace,
            "load_in_8bit": load_in_8bit,
            "device_map": device_map,
            "dtype": dtype,
            "base_url": base_url,
        }
        bar = _bar("model")
        try:
            with contextlib.closing(self._events("/load_model", _given(wanted))) as events:
                for kind, data in events:
                    if kind == "progress":
                        bar.show(data["stage"], data["done"], data["total"])
        finally:
            bar.close()
        return _made(Model, data["model"])

    # How it is asked

    def _named(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        return {"workspace": self.workspace, **_given(wanted)}

    def _file(self, path: str) -> str:
        return f"/workspaces/{_quoted(self.workspace)}/files/{quote(path)}"

    def _read(self, path: str) -> bytes:
        return self._call("GET", self._file(path)).content

    def _read_if_there(self, path: str) -> bytes | None:
        try:
            return self._read(path)
        except HearthError as error:
            if error.code not in ("file_not_found", "workspace_not_found"):
                raise
            return None

    def _write(self, path: str, data: bytes) -> None:
        self._check_own()
        self._call("PUT", self._file(path), data=data)

    def _check_own(self) -> None:
        if self.workspace == MAIN:
            raise HearthError(
                "main is the server's own code, and everybody's. Connect with a workspace of your own, like "
                f"`%hearth {self.url} --workspace {_user()}` or hearth.connect({self.url!r}, workspace={_user()!r}).",
                "forbidden",
            )

    def _reload(
        self, sources: Mapping[str, _Source], generation: str | None = None, dry_run: bool = False
    ) -> Reloaded:
        """Reload; what is wrong is shown in `sources`, by path, where it is in them, and else in the server's."""
        wanted = self._named({"generation": generation, "dry_run": dry_run or None})
        try:
            body = self._json("POST", "/reload_modules", body=wanted, seconds=None)
        except HearthError as error:
            error.mistakes = [self._placed(one, sources, generation) for one in error.mistakes]
            if error.code == "reload_failed" and error.mistakes:
                # The server's sentence goes on with the first of the mistakes, which is shown below.
                error.message = error.message.partition(". ")[0] + "."
            raise
        tools = body["tools"]
        note = "" if generation is None else "The files stay as they are; the next reload takes them again."
        return _made(
            Reloaded,
            body,
            added=tools["added"],
            removed=tools["removed"],
            changed_tools=tools["changed"],
            dry_run=dry_run,
            note=note,
        )

    def _placed(self, mistake: Mistake, sources: Mapping[str, _Source], generation: str | None) -> Mistake:
        """The mistake where its author sees it."""
        if mistake.file is None:
            return mistake
        path = mistake.file.removeprefix("server/")
        source = sources.get(path)
        if source is None and generation is None:
            # Else it isn't the files that were loaded.
            with contextlib.suppress(HearthError):
                source = _Source(path, self.get(path))
        if source is None:
            return Mistake(path, mistake.line, mistake.type, mistake.message, mistake.traceback)
        line = None if mistake.line is None else source.moved.get(mistake.line, mistake.line)
        return Mistake(source.name, line, mistake.type, mistake.message, mistake.traceback, source.text)

    def _json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        seconds: float | None = READ_SECONDS,
    ) -> dict[str, Any]:
        response = self._call(method, path, body=body, query=query, seconds=seconds)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise HearthError(f"What answers at {self.url} is no Hearth server.", "not_hearth", response.status_code)
        return answer

    def _events(self, path: str, body: Mapping[str, Any]) -> Generator[tuple[str, dict[str, Any]], None, None]:
        """The events of a stream, kind and data, as they come; the last is no `error`, which is raised."""
        kind = ""
        with self._call("POST", path, body=body, stream=True) as response:
            try:
                for line in response.iter_lines(chunk_size=None):  # type: ignore[call-overload]  # as much as has come
                    name, _, value = line.decode().partition(":")
                    if name == "event":
                        kind = value.strip()
                    elif name == "data":
                        data = json.loads(value)
                        if kind == "error":
                            raise _error(data, data["status"])
                        yield kind, data
            except requests.RequestException:
                kind = ""
        if kind not in ("answer", "model"):
            raise HearthError(f"{self.url} broke off before it answered. Did it end?", "no_answer")

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        data: bytes | None = None,
        query: Mapping[str, Any] | None = None,
        seconds: float | None = READ_SECONDS,
        stream: bool = False,
    ) -> requests.Response:
        """The answer, when it is a good one. `seconds`: how long to wait for it, or for each part of a `stream` of
        events; None: as long as it takes."""
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = requests.Session()
            session.auth = self._auth
            # What stays on this machine must not go by way of a proxy.
            session.trust_env = urlsplit(self.url).hostname not in ("localhost", "127.0.0.1", "::1")
        try:
            response = session.request(
                method,
                self.url + path,
                json=body,
                data=data,
                params=query,
                timeout=(CONNECT_SECONDS, seconds),
                headers={"Accept": "text/event-stream"} if stream else None,
                stream=stream,
            )
        except requests.ReadTimeout:
            raise HearthError(f"{self.url} did not answer within {seconds} s.", "no_answer") from None
        except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError) as error:
            if "aborted" in str(error) or isinstance(error, requests.exceptions.ChunkedEncodingError):
                raise HearthError(f"{self.url} broke off before it answered. Did it end?", "no_answer") from None
            raise HearthError(
                f"No server answers at {self.url}. Does it run, and is the address right?", "no_server"
            ) from None
        except requests.RequestException as error:
            raise HearthError(f"{self.url} could not be asked: {error}", "no_answer") from None
        if not response.ok:
            raise self._refused(response)
        return response

    def _refused(self, response: requests.Response) -> HearthError:
        """What the server says that is wrong."""
        try:
            error = response.json()["error"]
            code, message = str(error["type"]), str(error["message"])
        except (ValueError, KeyError, TypeError):
            message = f"{self.url} answers {response.status_code} {response.reason}, and not as a Hearth server does."
            return HearthError(message, "not_hearth", response.status_code)
        if code == "workspace_not_found":
            message = (
                f"There is no workspace {self.workspace} yet. It is made by the first tool in it: "
                "%%tool, or push, or put."
            )
        try:
            retry_after = float(response.headers["Retry-After"])
        except (KeyError, ValueError):
            retry_after = None
        return _error({**error, "message": message}, response.status_code, retry_after)


@contextlib.contextmanager
def _expected(*codes: str) -> Iterator[None]:
    """Passes over errors of these codes."""
    try:
        yield
    except HearthError as error:
        if error.code not in codes:
            raise


# Answers, from JSON


Made = TypeVar("Made")


def _made(kind: type[Made], body: Mapping[str, Any], **values: Any) -> Made:
    """A dataclass of what it knows in `body`: a newer server may say more. `values` go before."""
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in body.items() if name in known} | values)


def _error(body: Mapping[str, Any], status: int, retry_after: float | None = None) -> HearthError:
    """An error as the server sends it."""
    mistakes = [_made(Mistake, one) for one in body.get("errors", [])]
    if body["type"] == "agent_failed":
        message = body.get("reason", body["message"])
        mistakes = [_made(Mistake, body, type=body.get("exception", "Exception"), message=message)]
    elif body["type"] == "worker_crashed" and body.get("file"):
        mistakes = [_made(Mistake, body, type=body.get("signal") or "exit", message="the worker ended here")]
    return HearthError(body["message"], body["type"], status, mistakes, retry_after, body.get("output", ()))


def _answer(body: Mapping[str, Any], question: str) -> Answer:
    return _made(Answer, body, question=question, steps=[_made(Step, one) for one in body["steps"]])


def _run(body: Mapping[str, Any]) -> Run:
    steps = [_made(Step, one) for one in body.get("steps", [])]
    return _made(Run, body, asked=_time(body["asked"]), steps=steps, error=_reason(body))


def _reason(body: Mapping[str, Any]) -> str | None:
    """The error in a body, in one line."""
    error = body.get("error")
    return None if error is None else f"{error['type']}: {error['message']}"


_ROW = ("question", "answer", "error", "function", "steps", "seconds", "generation", "run_id")


def _asked_row(question: str, answer: Answer) -> dict[str, Any]:
    return {name: getattr(answer, name, None) for name in _ROW} | {"question": question}


def _failed_row(question: str, error: HearthError) -> dict[str, Any]:
    return dict.fromkeys(_ROW) | {"question": question, "error": f"{error.code}: {error.message}", "steps": []}


def _given(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if value is not None}


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds)


def _local_time(text: str) -> datetime:
    """The local time of a time in ISO 8601. Python 3.10 doesn't read the Z of UTC."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone().replace(tzinfo=None)


def _user() -> str:
    """A workspace's name for whoever runs this."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name
        name = ""
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-") or "alice"


# Folders that are pushed


_PARTS = ("tools", "agent")


def _files_below(root: Path) -> dict[str, Path]:
    """The Python files to send, by their path in a workspace. Raises `invalid_path` for a name that can't be one."""
    laid_out = (root / "model.py").is_file() or any((root / part).is_dir() for part in _PARTS)
    found: dict[str, Path] = {}
    for place in sorted(root.rglob("*.py")):
        name = place.relative_to(root)
        if not place.is_file() or any(part.startswith(".") or part == "__pycache__" for part in name.parts):
            continue
        if laid_out:
            if name.parts[0] not in _PARTS and name.as_posix() != "model.py":
                continue
            path = name
        else:
            if name.as_posix() == "__init__.py":
                # It would take the place of what finds the tools.
                continue
            path = Path("tools") / name
        if not all(part.isidentifier() for part in (*path.parts[:-1], path.stem)):
            raise HearthError(
                f"{place} can't be imported by its name: use letters, digits and _ only. Nothing was sent.",
                "invalid_path",
            )
        found[path.as_posix()] = place
    return found


def _push_record(url: str, workspace: str, root: Path) -> Path:
    """Where this machine remembers what was pushed from a folder to a workspace."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    key = hashlib.sha256("\n".join((url, workspace, str(root.resolve()))).encode()).hexdigest()[:24]
    return Path(base) / "hearth" / f"pushed-{key}.json"


def _read_record(record: Path) -> set[str]:
    try:
        return set(map(str, json.loads(record.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, TypeError) as error:
        warnings.warn(f"{record} can't be read ({error}): files that are gone stay sent", stacklevel=3)
        return set()


def _write_record(record: Path, paths: set[str]) -> None:
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(sorted(paths)), encoding="utf-8")
    except OSError as error:
        warnings.warn(f"{record} can't be written ({error}): files that are gone will stay sent", stacklevel=3)


# Cells that become tools


ADDED = "_hearth_"
"""Begins the names that are added to a cell."""
BUILD_TOOL = "build_tool"


def _tool_file(cell: str, name: str) -> tuple[str, str, _Source]:
    """The path and the text of the file that a cell becomes, and the cell as its author sees it.

    The magic's line becomes a comment, and all else stays in its line; what makes tools of the functions is added at
    the end. Raises `cell`, `no_function`, `usage`.
    """
    name = name.removesuffix(".py")
    if name and not name.isidentifier():
        raise HearthError(f"{name!r} can't be a file's name: use letters, digits and _ only.", "usage")
    own = cell.rstrip() + "\n"
    text = f"# {own}" if own.startswith("%%") else own
    tree = _parsed(text, own)
    functions = [one for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    public = {one.name: one for one in functions if not one.name.startswith("_")}
    if not public:
        raise HearthError(
            "There is no function in the cell. A tool is a function with a docstring; one whose name begins with _ "
            "is only for the others in the cell.",
            "no_function",
        )
    # The server calls it by that name, for a tool that needs the model.
    public.pop(BUILD_TOOL, None)
    if not public and not name:
        raise HearthError("Give the file a name, like `%%tool my_tool`.", "usage")
    # `fast = tool(slow)` gives the name `fast` to what is a tool already.
    plain = [one for one in public.values() if not one.decorator_list and one.name not in _assigned(tree)]
    for function in plain:
        if not (ast.get_docstring(function) or "").strip():
            message = (
                f"{function.name} needs a docstring, which tells the model what it does. A function that is no tool "
                "has a name that begins with _"
            )
            raise _cell_error(own, function.lineno, "MissingDocstring", message)
    moved: dict[int, int] = {}
    if plain:
        text += f"\n\nfrom langchain_core.tools import tool as {ADDED}tool\n\n"
    for function in plain:
        # Under another name, so that the functions may still call each other.
        text += f"{ADDED}{function.name} = {ADDED}tool({function.name})\n"
        moved[text.count("\n")] = function.lineno
    return f"tools/{name or next(iter(public))}.py", text, _Source("the cell", own, moved)


def _assigned(tree: ast.Module) -> set[str]:
    """The names that a module's own statements give a value to."""
    targets = [target for one in tree.body if isinstance(one, ast.Assign) for target in one.targets]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _parsed(text: str, own: str) -> ast.Module:
    """The cell as a tree. Raises `cell`, showing `own`."""
    try:
        # Some of what is wrong, like a `return` outside of a function, is found only when it is compiled.
        compile(text, "cell", "exec", dont_inherit=True)
        return ast.parse(text)
    except SyntaxError as error:
        raise _cell_error(own, error.lineno, type(error).__name__, error.msg) from None
    except ValueError as error:  # a null character
        raise _cell_error(own, None, "SyntaxError", str(error)) from None


def _cell_error(text: str, line: int | None, kind: str, message: str) -> HearthError:
    mistake = Mistake("the cell", line, kind, message, text=text)
    return HearthError("The cell has a mistake. Nothing was sent.", "cell", mistakes=[mistake])


# Magics


class _Arguments(argparse.ArgumentParser):
    """Raises what is wrong, in place of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise HearthError(f"{message[:1].upper()}{message[1:]}. {self.format_usage().strip()}", "usage")


class _Magics:
    """What the magics do. They share a connection: that of the last `%hearth`, else to the server on this machine."""

    def __init__(self) -> None:
        self._lab: Lab | None = None

    @property
    def lab(self) -> Lab:
        if self._lab is None:
            self._lab = connect()
        return self._lab

    def hearth(self, line: str) -> Lab:
        """`%hearth [url] [--workspace alice]`: connect. It gives the connection: `lab = %hearth ...`."""
        parser = _Arguments(prog="%hearth", add_help=False, allow_abbrev=False)
        parser.add_argument("url", nargs="?")
        parser.add_argument("--workspace", "-w", default=MAIN)
        given = parser.parse_args(_words(line))
        self._lab = connect(given.url, given.workspace)
        return self._lab

    def tool(self, line: str, cell: str) -> Reloaded:
        """`%%tool [name]`: the functions of the cell become tools of the workspace, at once."""
        words = _words(line)
        if len(words) > 1:
            raise HearthError("A cell becomes one file: %%tool [name].", "usage")
        return self.lab.write_tools(f"%%tool {line}".rstrip() + "\n" + cell, *words)

    def ask(self, line: str) -> Answer:
        """`%ask What is 37 * 52?`: ask a question, and show how the answer comes about."""
        if not _in_notebook():
            return self.lab.ask(line)
        view = _CellView()
        try:
            return self.lab._ask_live(self.lab._named({"question": line}), view)
        finally:
            # The answer is shown in its place, or the error.
            view.empty()

    def generations(self, line: str) -> Table[Generation]:
        """`%generations [count]`: what changed when."""
        words = _words(line)
        if len(words) > 1 or not all(word.isdigit() for word in words):
            raise HearthError("How many, as a number: %generations [count].", "usage")
        return self.lab.generations(*map(int, words))

    def rollback(self, line: str) -> Reloaded:
        """`%rollback 3f2a`: bring an earlier generation back, by the first digits of its hash."""
        words = _words(line)
        if len(words) != 1:
            raise HearthError("Which one? %rollback 3f2a; %generations lists them.", "usage")
        return self.lab.rollback(words[0])


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise HearthError(f"{error}: {line}", "usage") from None


_ASKED = re.compile(r"(?P<before>\s*(?:[^\W\d]\w*\s*=\s*)?)%ask[ \t]+(?P<question>.*[^\s\\?].*?)\s*")


def _keep_questions(lines: list[str]) -> list[str]:
    """A cell's lines, each `%ask` made a call: IPython would take a question mark at the end for a call for help."""
    if lines and lines[0].startswith("%%"):
        return lines

    def kept(line: str) -> str:
        asked = _ASKED.fullmatch(line)
        if not asked or line.rstrip().endswith("\\"):
            return line
        return f"{asked['before']}get_ipython().run_line_magic('ask', {asked['question']!r})\n"

    return [kept(line) for line in lines]


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext hearth`."""
    from IPython.core.magic import no_var_expand

    # What is asked is what was typed: braces and dollar signs may stand in a question.
    no_var_expand(_Magics.ask)
    ipython.input_transformers_cleanup.append(_keep_questions)
    magics = _Magics()
    for name in ("hearth", "ask", "generations", "rollback"):
        ipython.register_magic_function(getattr(magics, name), "line", name)
    ipython.register_magic_function(magics.tool, "cell", "tool")


# How things are shown


class _TextView:
    """Writes an answer to standard output as it comes: the text of the model, and what tools gave."""

    def __init__(self) -> None:
        self._line_begun = False

    def show(self, kind: str, data: Mapping[str, Any]) -> None:
        """An event."""
        if kind == "queued" and data["position"] > 1:
            self._write(f"(place {data['position']} in the queue)\n")
        elif kind == "token" and data["tool"] is None:
            self._write(data["text"] if self._line_begun else data["text"].lstrip("\n"))
        elif kind == "step":
            self._end_line()
            self._write(f"Observation: {data['observation']}\n")
        elif kind == "answer":
            self._end_line()

    def _end_line(self) -> None:
        if self._line_begun:
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            self._line_begun = not text.endswith("\n")
            print(text, end="", flush=True)


class _CellView:
    """Shows an answer below a notebook's cell as it comes."""

    def __init__(self) -> None:
        from IPython.display import display

        self._steps: list[Step] = []
        self._text = ""
        self._note = "asked"
        self._answer: Answer | None = None
        self._shown = time.monotonic()
        self._handle: Any = display(self, display_id=True)

    def show(self, kind: str, data: Mapping[str, Any]) -> None:
        """An event."""
        if kind == "queued":
            self._note = f"place {data['position']} in the queue"
        elif kind == "started":
            self._note = "the model reads"
        elif kind == "token" and data["tool"] is None:
            self._text += data["text"]
        elif kind == "token":
            self._note = f"{data['tool']} asks the model"
        elif kind == "step":
            self._steps.append(_made(Step, data))
            self._text = ""
        elif kind == "answer":
            self._answer = _answer(data, "")
        # Not every token: a browser draws each.
        if kind != "token" or time.monotonic() - self._shown >= SHOW_SECONDS:
            self._shown = time.monotonic()
            self._handle.update(self)

    def empty(self) -> None:
        """Show nothing any more."""
        self._handle.update({"text/plain": ""}, raw=True)

    def __repr__(self) -> str:
        if self._answer is not None:
            return repr(self._answer)
        return "\n".join([*map(str, self._steps), self._text.strip() or f"({self._note})"])

    def _repr_markdown_(self) -> str:
        if self._answer is not None:
            return self._answer._repr_markdown_()
        text = self._text.strip()
        coming = _block(text) if text else f"*({_escaped(self._note)})*"
        return "\n\n".join([*(step._repr_markdown_() for step in self._steps), coming])


def _in_notebook() -> bool:
    """Whether this runs in a kernel, whose front end can show something in the place of what it has shown."""
    # Without IPython there is no kernel, and it is not imported only to learn that.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


class _Bar:
    """Shows how far something is, where there is tqdm; else nothing."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._stage: tuple[str, int] | None = None

    def show(self, stage: str, done: int, total: int) -> None:
        """`total` 0: it is not known."""
        if self._shown is None:
            return
        if self._stage != (stage, total):
            self._stage = (stage, total)
            self._shown.reset(total=total or None)
            self._shown.set_description(stage, refresh=False)
        self._shown.n = done
        self._shown.refresh()

    def close(self) -> None:
        """Nothing more will be shown."""
        if self._shown is not None:
            self._shown.close()


def _bar(label: str) -> _Bar:
    try:
        with warnings.catch_warnings():
            # It warns where a notebook has no widgets, and shows text then, which will do.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
    except ImportError:
        return _Bar(None)
    return _Bar(tqdm(desc=label, leave=False))


def _columns(row: Any) -> dict[str, Any]:
    if isinstance(row, Mapping):
        return dict(row)
    columns: dict[str, Any] = row._row()
    return columns


def _cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list):
        return ", ".join(one.action if isinstance(one, Step) else str(one) for one in value)
    return str(value)


def _short(text: str, width: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _escaped(text: str) -> str:
    """Text that markdown shows as it is: it may come from a model or a tool."""
    return re.sub(r"([\\`*_\[\]<>#|~$&!])", r"\\\1", text)


def _code(text: str) -> str:
    """Text as code, in the line if it is one."""
    if "\n" in text:
        return f"\n{_block(text)}"
    ticks = _ticks(text, 1)
    return f"{ticks} {text} {ticks}" if text.strip() else "(empty)"


def _block(text: str, language: str = "") -> str:
    ticks = _ticks(text, 3)
    return f"\n{ticks}{language}\n{text.rstrip()}\n{ticks}\n"


def _ticks(text: str, least: int) -> str:
    """More of them in a row than the text has."""
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])
