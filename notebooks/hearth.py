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
    %jobs
    %upload sales.csv
    %docs add paper.pdf
    %docs search warpage after cooling

    %%sandbox
    import pandas as pd
    pd.read_csv("sales.csv").plot()

In Python:

    import hearth
    lab = hearth.connect("http://gpubox:5001", workspace="alice")
    lab.ask("What is 37 * 52?")

Every error is a `HearthError`.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import getpass
import hashlib
import html
import json
import math
import os
import re
import secrets
import shlex
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar, overload
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

import requests
import requests.auth

__all__ = ["HearthError", "Lab", "connect"]

MAIN = "main"
CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
SHOW_SECONDS = 0.1
"""Minimum interval between updates of an answer in a notebook."""
CHUNK_BYTES = 256 * 1024
COLLECTION = "documents"
"""The collection of documents, where none is named."""
MOST_LISTED = 1000
MOST_SHOWN_ROWS = 50
"""Of a comparison in a notebook; the frame has all."""
RETRY_SECONDS = 1.0
"""How long to wait when the queue is full and the server does not say for how long."""

Item = TypeVar("Item")


# Errors


@dataclass(frozen=True)
class Mistake:
    """An error in a person's code. `file` and `line` are None if they are unknown."""

    file: str | None
    line: int | None
    type: str
    message: str
    traceback: str = ""
    text: str | None = None
    """The text of the file, if it is known."""

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
    """An error of the server or of the client.

    `message`: what happened, and what to do. `code`: the server's, like `reload_failed`, or one of the client's own:
    `no_server`, `several_servers`, `no_answer`, `not_hearth`, `usage`, `no_function`, `cell`, `no_folder`. `status`:
    the HTTP status; None without a response of the server. `mistakes`: errors in code, with file and line.
    `retry_after`: seconds after which to try again; None if unknown. `output`: the last lines that a crashed worker
    wrote.
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
        # IPython shows this instead of a traceback, which would only have lines of this file.
        return [
            f"\x1b[31mHearthError\x1b[0m ({self.code}): {self.message}",
            *(f"\n{one}" for one in self._evidence()),
        ]


# Results


class Table(list[Item], Generic[Item]):
    """A list that a notebook shows as a table. `table["name"]` is a column, as in a data frame."""

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
    """One tool call: the model's thought, the tool and its input, and the observation that the model read."""

    thought: str
    tool: str
    input: dict[str, Any]
    observation: str
    error: str | None = None
    traceback: str | None = None
    """Where the tool raised an unexpected error."""

    @property
    def action(self) -> str:
        """The call, in Python's notation."""
        return f"{self.tool}({', '.join(f'{name}={value!r}' for name, value in self.input.items())})"

    def __str__(self) -> str:
        return f"Thought: {self.thought}\nAction: {self.action}\nObservation: {self.observation}"

    def _repr_markdown_(self) -> str:
        return (
            f"*Thought:* {_escaped(self.thought)}  \n*Action:* {_code(self.action)}  \n"
            f"*Observation:* {_code(self.observation)}"
        )


@dataclass(frozen=True)
class Citation:
    """Words of a document that a sentence of an answer rests on: `quote` is what stands in the document's text from
    `start` to `end`, in characters. As text (`str`, `print`) it is document, printed page, and quote."""

    document: str
    document_id: str
    page: int
    """The index of the page, from 0."""
    page_label: str | None
    """The page as printed; None: the document has no pages."""
    quote: str
    start: int
    end: int
    score: float = 0.0
    at: int = 0
    """The characters of the answer up to the end of the sentence that the quote belongs to."""

    def __str__(self) -> str:
        page = "" if self.page_label is None else f", p. {self.page_label}"
        return f'{self.document}{page}: "{" ".join(self.quote.split())}"'


@dataclass(frozen=True, repr=False)
class Answer:
    """An answer, with its steps and its origin. As text (`str`, `print`) it is only the answer."""

    answer: str
    function: str | None
    """The last tool that was called."""
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
    """What some agents report in addition: `plan_execute` its `plan`, `auto` its `choice`."""
    forked_from: dict[str, Any] | None = None
    """The run that this one continues: `run_id`, `step`, `edited`, `same_prompt`."""
    citations: list[Citation] = field(default_factory=list)
    """What the answer of the agent `documents` rests on."""
    tools_shown: list[str] | None = None
    """The tools that the model was shown; None: all of them."""
    replay_of: str | None = None
    same_answer: bool | None = None
    """For a replay: whether the answer equals that of the first run."""
    not_reloaded: dict[str, Any] | None = None
    """Why the changed code on disk could not be loaded: `message` and `errors`."""
    not_recorded: dict[str, Any] | None = None
    """Why the run could not be saved: `message`."""

    def __str__(self) -> str:
        return self.answer

    def __repr__(self) -> str:
        cited = [f"- {one}" for one in self.citations]
        origin = f"({self._origin()})"
        return "\n".join([*map(str, self.steps), f"Answer: {self.answer}", *cited, origin, *self._warnings()])

    def _repr_markdown_(self) -> str:
        parts = [step._repr_markdown_() for step in self.steps]
        parts.append(f"**{_escaped(self.answer) or '(empty)'}**")
        if self.citations:
            parts.append("\n".join(f"- {_escaped(str(one))}" for one in self.citations))
        parts.append(f"*{_escaped(self._origin())}*")
        return "\n\n".join([*parts, *map(_escaped, self._warnings())])

    def _warnings(self) -> list[str]:
        warnings = (("Older code answered.", self.not_reloaded), ("The run was not saved.", self.not_recorded))
        return [f"{warning} {reason['message']}" for warning, reason in warnings if reason is not None]

    def _origin(self) -> str:
        same = {None: "", True: ", the same answer", False: ", another answer"}[self.same_answer]
        return f"{self.workspace}, generation {self.generation}, {self.seconds:.1f} s{same}"


@dataclass(frozen=True)
class Token:
    """A token that a model wrote. `logprob`: at temperature 1, among all tokens. `top`: the likeliest ones there,
    each with its text and logprob."""

    text: str
    logprob: float | None
    forced: bool
    """Whether the grammar allowed nothing else."""
    top: list[tuple[str, float]]

    def _row(self) -> dict[str, Any]:
        probability = "" if self.logprob is None else f"{math.exp(self.logprob):.3f}"
        others = ", ".join(f"{text!r} {math.exp(logprob):.3f}" for text, logprob in self.top)
        forced = "forced" if self.forced else ""
        return {"token": repr(self.text), "probability": probability, "likeliest": others, "": forced}


@dataclass(frozen=True)
class Run:
    """A question in any state. `answer`, `function` and `steps` are set when it is done, `error` when it failed.

    Steps are numbered from 1; the answer is the step after the last one.
    """

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
    """Its position in the queue while it waits; 1 is next."""
    forked_from: dict[str, Any] | None = None
    """The run that this one continues."""
    lab: Lab | None = field(default=None, repr=False, compare=False)

    def step(self, number: int) -> dict[str, Any]:
        """A step with its `model_calls`: each has `prompt`, `written`, and the `diff` to the prompt before."""
        return self._lab._json("GET", f"/runs/{_quoted(self.run_id)}/steps/{number}")

    def prompt(self, number: int) -> str:
        """The prompt of a step's first model call by the agent; empty if there is none."""
        calls = self.step(number)["model_calls"]
        return next((call["prompt"] or "" for call in calls if call["tool"] is None), "")

    def tokens(self, number: int) -> Table[Token]:
        """The first 1,000 tokens of that model call. The run's model has to be loaded."""
        body = self._lab._json("GET", f"/runs/{_quoted(self.run_id)}/tokens", query={"step": number})
        return Table(
            _made(Token, one, top=[(other["text"], other["logprob"]) for other in one["top"]])
            for one in body["tokens"]
        )

    def fork(self, step: int | None = None, **changes: Any) -> Answer:
        """Continue this run from `step` with something changed: `observation`, `rerun_tool`, `thought`, `input` (of
        the step before), `question`, `history`, `agent`, `workspace`, `generation`, `sampling`, `continue_from`."""
        path, body = f"/runs/{_quoted(self.run_id)}/fork", _given({"step": step, **changes})
        question = changes.get("question", self.question)
        return _answer(self._lab._json("POST", path, body, seconds=None), question)

    @property
    def _lab(self) -> Lab:
        if self.lab is None:
            raise HearthError("This run is of no server. lab.run(run_id) gives it.", "usage")
        return self.lab

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
    """A session, in which a question knows the earlier ones: `ask(..., session=...)`. `turns`: answered questions."""

    session: str
    title: str
    turns: int
    created: datetime
    used: datetime

    def _row(self) -> dict[str, Any]:
        return {"session": self.session, "title": self.title, "turns": self.turns, "used": self.used}


@dataclass(frozen=True)
class Job:
    """A tool that runs in the background. `state`: queued, running, succeeded, failed, cancelled or lost."""

    job: str
    tool: str
    input: dict[str, Any]
    state: str
    created: datetime
    progress: dict[str, Any] | None = None
    """`done`, and perhaps `total` and `message`."""
    result: str | None = None
    error: str | None = None
    session: str | None = None

    def _row(self) -> dict[str, Any]:
        given = ", ".join(f"{name}={value!r}" for name, value in self.input.items())
        done = self.progress or {}
        parts = [
            f"{done['done']:g}" if "done" in done else "",
            f" of {done['total']:g}" if "total" in done else "",
            f" ({done['message']})" if "message" in done else "",
        ]
        outcome = self.result or self.error or "".join(parts)
        return {"job": self.job, "call": f"{self.tool}({given})", "state": self.state, "": outcome}


@dataclass(frozen=True)
class Tool:
    """A tool that the model may call."""

    name: str
    description: str
    args_schema: dict[str, Any]

    def _row(self) -> dict[str, Any]:
        arguments = ", ".join(self.args_schema.get("properties", {}))
        return {"tool": f"{self.name}({arguments})", "description": self.description}


@dataclass(frozen=True)
class Generation:
    """A generation, and when it became live. `changed`: the files that differ from the generation before."""

    generation: str
    time: datetime
    runs: int
    live: bool
    changed: list[str] | None = None
    """None: it is the first generation."""

    def _row(self) -> dict[str, Any]:
        changed = "" if self.changed is None else ", ".join(self.changed) or "nothing"
        now = "live" if self.live else ""
        return {"generation": self.generation, "since": self.time, "changed": changed, "runs": self.runs, "": now}


@dataclass(frozen=True, repr=False)
class Reloaded:
    """The result of a reload, or of a dry run. `added`, `removed` and `changed_tools` are names of tools, `changed`
    those of modules."""

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
    warnings: list[dict[str, str]] = field(default_factory=list)
    """What may not be what its author meant: each a `file` and a `message`."""
    dry_run: bool = False
    note: str = ""

    def __repr__(self) -> str:
        is_live = "would be live" if self.dry_run else "is live"
        if self.generation == self.previous:
            text = f"{self.workspace}: nothing changed, generation {self.generation} is live"
        else:
            before = f", in place of {self.previous}" if self.previous else ""
            text = f"{self.workspace}: generation {self.generation} {is_live}{before}"
        # In the first generation all tools are new, and most of them are the common ones.
        added = "added" if self.previous else ""
        kinds = ((added, self.added), ("changed", self.changed_tools), ("removed", self.removed))
        tools = "; ".join(f"{kind} {', '.join(names)}".strip() for kind, names in kinds if names)
        rebuilt = self.rebuilt and f"can't be saved, so each worker builds its own: {', '.join(self.rebuilt)}"
        warned = [f"{one['file']}: {one['message']}" for one in self.warnings]
        parts = (text, tools and f"tools: {tools}", self.note, rebuilt, *warned)
        return "\n".join(part for part in parts if part)


@dataclass(frozen=True, repr=False)
class Diff:
    """The differences of two generations: `files` has a unified diff for each path."""

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
class SessionFile:
    """A file of a session. `name`: how the session's code opens it. `modified`: local time."""

    name: str
    bytes: int
    type: str
    modified: datetime

    def _row(self) -> dict[str, Any]:
        return {"name": self.name, "bytes": self.bytes, "type": self.type, "modified": self.modified}


@dataclass(frozen=True)
class Uploaded:
    """A file after its upload. `name`: how the session's code opens it; it has a number if the session has another
    file of the name `uploaded_as`."""

    name: str
    bytes: int
    sha256: str
    type: str
    uploaded_as: str
    session: str

    def _row(self) -> dict[str, Any]:
        return {"name": self.name, "bytes": self.bytes, "type": self.type, "session": self.session}


@dataclass(frozen=True)
class Document:
    """A document of a collection. `state`: `embedding`, `ready` or `words_only`; then `error` says why. `skipped`:
    what could not be read."""

    document_id: str
    name: str
    state: str
    error: str | None
    kind: str
    pages: int
    chunks: int
    vectors: int
    skipped: list[str]
    date: str | None
    collection: str

    def _row(self) -> dict[str, Any]:
        names = ("name", "state", "pages", "chunks", "vectors")
        return {name: getattr(self, name) for name in names} | {"skipped": " ".join(self.skipped)}


@dataclass(frozen=True)
class Passage:
    """A passage that a search has found. `page`: from 0; `page_label`: as it is printed, None where there are no
    pages. `start`, `end`: its place in the document's text."""

    id: str
    document: str
    document_id: str
    page: int
    page_label: str | None
    text: str
    start: int
    end: int
    score: float
    last_page: int
    collection: str
    ranks: dict[str, int] = field(default_factory=dict)

    def _row(self) -> dict[str, Any]:
        return {"document": self.document, "page": self.page_label or "", "text": self.text}


@dataclass(frozen=True, repr=False)
class CellResult:
    """A cell of code that has run in a session's sandbox."""

    output: str
    result: dict[str, Any] | None
    """What the value of its last line looks like: `type`, `text`, and for a frame a `table`."""
    error: dict[str, Any] | None
    """`type`, `message`, `traceback`, `line`; None: it succeeded."""
    session: str
    seconds: float
    number: int | None = None
    figures: list[dict[str, str]] = field(default_factory=list)
    """The names of files of the session: `png` and `svg`."""
    files: list[str] = field(default_factory=list)
    variables: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    """The figures, as PNG."""

    def __repr__(self) -> str:
        lines = [self.output.rstrip("\n"), "" if self.result is None else self.result["text"]]
        lines += [f"(figure: {name})" for one in self.figures for name in [one.get("png")] if name]
        lines += [self._failure()]
        return "\n".join(line for line in lines if line) or "(no output)"

    def _repr_html_(self) -> str:
        parts = [_preformatted(self.output)]
        if self.result is not None:
            table = self.result.get("table")
            parts.append(_preformatted(self.result["text"]) if table is None else _html_table(table))
            if "png" in self.result:
                parts.append(f'<img src="data:image/png;base64,{html.escape(self.result["png"])}">')
        for picture in self.pictures:
            parts.append(f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}">')
        return "\n".join([*parts, _preformatted(self._failure())])

    def _failure(self) -> str:
        if self.error is None:
            return ""
        return str(self.error["traceback"]).rstrip() or f"{self.error['type']}: {self.error['message']}"


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """Two sides that were asked the same questions."""

    comparison_id: str
    state: str
    """`running`, `done`, `cancelled`, `interrupted`, or `failed`: see `error`."""
    name: str
    a: dict[str, Any]
    """`workspace`, `generation`, `model`, `agent`, `max_steps`, `instructions`."""
    b: dict[str, Any]
    check: dict[str, Any] | None
    summary: dict[str, Any]
    """Counts: `questions`, `answered`, `changed`, `failed`, `judged`, `correct`; medians: `tokens`, `seconds`."""
    rows: Any
    """A row for each question, the changed ones first: a pandas `DataFrame` if pandas is installed, otherwise a
    `Table` of dicts."""
    created: datetime
    error: str | None = None
    _export: Callable[[], bytes] = field(default=bytes, compare=False)

    @property
    def p(self) -> float | None:
        """The exact p-value of McNemar's test: how probable such a difference is if both sides are equally good.
        None: nothing was judged."""
        found: float | None = self.summary["p"]
        return found

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Save all rows as a CSV file. Returns its path."""
        place = Path(path)
        try:
            place.write_bytes(self._export())
        except OSError as error:
            raise HearthError(f"{place} can't be written: {error.strerror}.", "file_error") from None
        return place

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        rows = self.rows if isinstance(self.rows, list) else self.rows.to_dict("records")
        names = ("question", "expected", "a", "b")
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(
            f"<tr>{''.join(_html_cell(row, name) for name in names)}</tr>" for row in rows[:MOST_SHOWN_ROWS]
        )
        more = f"<p>and {len(rows) - MOST_SHOWN_ROWS} more</p>" if len(rows) > MOST_SHOWN_ROWS else ""
        lines = "".join(f"<div>{html.escape(line)}</div>" for line in self._lines())
        return f"{lines}<table><tr>{head}</tr>{body}</table>{more}"

    def _lines(self) -> list[str]:
        counts, tokens, seconds = self.summary, self.summary["tokens"], self.summary["seconds"]
        lines = [
            f"Comparison {self.comparison_id}: {self.state}, {counts['answered']} of {counts['questions']} answered, "
            f"{counts['changed']} changed",
            *([] if self.error is None else [self.error]),
            f"a: {_side_line(self.a)}, {counts['failed']['a']} failed",
            f"b: {_side_line(self.b)}, {counts['failed']['b']} failed",
        ]
        if counts["judged"]:
            lines.append(
                f"correct: a {counts['correct']['a']}, b {counts['correct']['b']} of {counts['judged']}; "
                f"only a {counts['only_a_correct']}, only b {counts['only_b_correct']}; p = {counts['p']:.3g}"
            )
        if seconds["median_a"] is not None:
            lines.append(
                f"median: tokens a {tokens['median_a']:g}, b {tokens['median_b']:g}; "
                f"seconds a {seconds['median_a']:.2f}, b {seconds['median_b']:.2f}"
            )
        return lines


@dataclass(frozen=True)
class Progress:
    """The progress of loading a model."""

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
    takes_images: bool | None = None
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
    """The state of the server. `model`: None if there is none. `tools`: the number of tools in main; None until they
    are built."""

    status: str
    version: str
    model: Model | None
    tools: int | None
    workers: Table[Worker] = field(default_factory=Table)
    """The worker processes."""
    autoload_error: str | None = None
    store_error: str | None = None
    """Why the last run could not be saved."""


# Finding the server


@dataclass(frozen=True)
class _Found:
    url: str
    token: str = field(repr=False)


def connect(url: str | None = None, workspace: str = MAIN, token: str | None = None) -> Lab:
    """Connect to the server at `url`, as one workspace of it.

    Without `url`: to your own server on this machine. Without `token`, the token is taken from `url` (the link that
    the server prints) or from your own server on this machine; otherwise the user is asked for it. Raises
    `HearthError`: `no_server`, `several_servers`, `not_hearth`, `unauthorized`.
    """
    if url is None:
        found = _running()
        if not found:
            raise HearthError(
                "You have no server running on this machine. Start one (`make run`), or give the address of one, "
                "like http://gpubox:5001.",
                "no_server",
            )
        if len(found) > 1:
            urls = ", ".join(one.url for one in found)
            raise HearthError(
                f"You have several servers running on this machine: {urls}. Give the address of one.",
                "several_servers",
            )
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
    """The address in a URL that was typed or copied, and the token in it."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("no address")
    except ValueError:
        raise HearthError(f"{url} is not an address like http://gpubox:5001.", "usage") from None
    token = parse_qs(parts.query).get("token", [""])[0]
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", "")), token


def _running() -> list[_Found]:
    """This user's servers on this machine. Each one has a runtime file while it runs."""
    for folder in _runtime_folders():
        found = [one for file in sorted(folder.glob("hearth-*.json")) if (one := _read_runtime_file(file))]
        if found:
            return found
    return []


def _runtime_folders() -> list[Path]:
    """The folders where the server may write its runtime file (it uses platformdirs), the likeliest first."""
    if not hasattr(os, "geteuid"):
        return []
    bases = [os.environ.get("XDG_RUNTIME_DIR", "")]
    if sys.platform == "darwin":
        bases.append(os.path.expanduser("~/Library/Caches/TemporaryItems"))
    else:
        bases += [f"/run/user/{os.geteuid()}", os.path.join(tempfile.gettempdir(), f"runtime-{os.geteuid()}")]
    return [Path(base) / "hearth" for base in bases if base]


def _read_runtime_file(file: Path) -> _Found | None:
    """The content of a runtime file; None if its server has ended, or if the file belongs to another user."""
    try:
        # Any user may create this folder in /tmp, and would then get the requests with the token.
        if file.stat().st_uid != os.geteuid():
            return None
        body = json.loads(file.read_text(encoding="utf-8"))
        os.kill(int(body["pid"]), 0)
        return _Found(str(body["url"]), str(body["token"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _same_place(one: str, other: str) -> bool:
    """Whether two URLs lead to the same port of the same machine, judged by their names."""
    here = {"localhost", "127.0.0.1", "::1", socket.gethostname().lower()}
    a, b = urlsplit(one), urlsplit(other)
    return a.port == b.port and (a.hostname == b.hostname or {a.hostname, b.hostname} <= here)


def _ask_for_token(url: str) -> str | None:
    """Ask the user for the token; None if nobody can be asked."""
    # A kernel replaces getpass by a function that asks in the notebook.
    plain = getattr(getpass.getpass, "__module__", "") == "getpass"
    if plain and not (sys.stdin and sys.stdin.isatty()):
        return None
    try:
        return getpass.getpass(f"The token of {url}: ").strip() or None
    except (EOFError, NotImplementedError):  # NotImplementedError: a kernel without a frontend
        return None


# The connection


class _Bearer(requests.auth.AuthBase):
    """Sends the token. It is an `auth` and not a header, because a ~/.netrc would replace a header."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@dataclass(frozen=True)
class _Source:
    """A file as its author wrote it. `moved`: maps lines that the client added to the author's lines."""

    name: str
    text: str
    moved: Mapping[int, int] = field(default_factory=dict)


class Lab:
    """A connection to one workspace of a server. Safe for any number of threads.

    Every method raises `HearthError`.
    """

    def __init__(self, url: str, workspace: str = MAIN, token: str | None = None) -> None:
        """Use `connect`, which finds URL and token, and checks them."""
        self.url = url
        self.workspace = workspace
        self._auth = _Bearer(token)
        # A session of `requests` is not thread-safe.
        self._threads = threading.local()

    def __repr__(self) -> str:
        return f"Hearth at {self.url}, workspace {self.workspace}"

    def check(self) -> None:
        """Check that a Hearth server answers and accepts the token."""
        body = self._json("GET", "/")
        if body.get("name") != "hearth":
            raise HearthError(f"The server at {self.url} is not a Hearth server.", "not_hearth")

    def health(self) -> Health:
        """The state of the server."""
        body = self._json("GET", "/health")
        model, tools = body.get("model"), body.get("tools")
        if model is not None:
            progress = model.get("progress")
            model = _made(Model, model, progress=progress and _made(Progress, progress), error=_reason(model))
        autoload, store = body.get("autoload_error"), body.get("store_error")
        return _made(
            Health,
            body,
            model=model,
            tools=None if tools is None else tools["count"],
            workers=Table(
                _made(Worker, one, started_at=_local_time(one["started_at"])) for one in body.get("workers") or ()
            ),
            autoload_error=None if autoload is None else autoload["message"],
            store_error=None if store is None else store["message"],
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
        """Ask a question, and wait for the answer without a time limit. An interrupt cancels the run.

        `agent`: like `plan_execute`; default: `react`. `session`: the name of the session that the question continues
        or begins. `generation`: the code that answers instead of the live generation: its hash, or the first digits
        of it. `model`: the name of a loaded model; default: the server's. `max_steps`: maximum number of tool calls.
        `priority`: with `batch`, interactive questions go first. `stream`: show thoughts, actions, observations and
        the answer as they come: below the cell in a notebook, otherwise on standard output.
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
        view: _CellView | _TextView | None = None
        if stream:
            view = _CellView() if _in_notebook() else _TextView()
        return self._ask(wanted, view)

    def _ask(self, wanted: Mapping[str, Any], view: _CellView | _TextView | None) -> Answer:
        """The answer, shown in `view` while it is streamed."""
        try:
            if view is None:
                data = self._json("POST", "/run_script", body=wanted, seconds=None)
            else:
                with contextlib.closing(self._events("/run_script", wanted)) as events:
                    for kind, data in events:
                        view.show(kind, data)
        except HearthError as error:
            error.mistakes = [self._placed(one, {}, wanted.get("generation")) for one in error.mistakes]
            raise
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
        """Ask many questions, up to `at_once` at a time, and wait for all of them. For other parameters see `ask`.

        Returns a row for each question, in the same order: a pandas `DataFrame` if pandas is installed, otherwise a
        `Table` of dicts. The row of a question that fails has its `error`. When the server's queue is full, the
        question is sent again later.
        """
        listed = list(questions)
        rows: list[dict[str, Any]] = [{} for _ in listed]
        interrupted = threading.Event()

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
                    if error.status == 429 and not interrupted.wait(error.retry_after or RETRY_SECONDS):
                        continue
                return

        bar = _bar("questions")
        pool = ThreadPoolExecutor(max(1, at_once), thread_name_prefix="ask")
        try:
            for count, done in enumerate(as_completed([pool.submit(answer, place) for place in range(len(listed))])):
                done.result()
                bar.show("questions", count + 1, len(listed))
        finally:
            # After an interrupt, do not wait for the other answers.
            interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            bar.close()
        return _frame(rows, _ROW)

    # Comparing

    def compare(
        self,
        questions: Iterable[str | tuple[str, str] | Mapping[str, Any]] | str | os.PathLike[str] = (),
        a: str | Mapping[str, Any] | None = None,
        b: str | Mapping[str, Any] | None = None,
        *,
        check: str | Mapping[str, Any] | None = None,
        runs: Iterable[str] = (),
        name: str | None = None,
        at_once: int | None = None,
    ) -> Comparison:
        """Ask two sides the same questions, and wait for all answers. Interactive questions go first. An interrupt
        cancels the comparison; its answers stay.

        `questions`: each a text, a pair of question and expected answer, or a dict with `question`, `expected` and
        `history`; or the path of a CSV or JSON Lines file with the columns `question` and `expected`. `runs`: ids of
        runs whose questions are asked instead. `a`, `b`: a generation's hash, or a dict with some of `workspace`,
        `generation`, `model`, `agent`, `max_steps`, `instructions`; default: the live code.
        `check`: `equal` or `contains`, which compare with the expected answer; `model`, which asks the model; or
        `{"tool": NAME}`, a tool of side a that takes `answer`, and perhaps `question` and `expected`, and returns
        true, false or a number.
        """
        wanted = self._named(
            {
                "runs": list(runs) or None,
                "a": _compared_side(a),
                "b": _compared_side(b),
                "check": _compared_check(check),
                "name": name,
                "at_once": at_once,
            }
        )
        if isinstance(questions, str | os.PathLike):
            boundary = secrets.token_hex(16)
            started = self._json(
                "POST",
                "/comparisons",
                data=_form([Path(questions).expanduser()], boundary, {"request": json.dumps(wanted)}),
                content_type=f"multipart/form-data; boundary={boundary}",
                seconds=None,
            )
        else:
            asked = [_compared_question(one) for one in questions]
            body = {**wanted, **_given({"questions": asked or None})}
            started = self._json("POST", "/comparisons", body=body, seconds=None)
        path = f"/comparisons/{_quoted(started['comparison_id'])}"
        bar = _bar("answers")
        try:
            with contextlib.closing(self._events(f"{path}/events", None, "GET")) as events:
                for kind, data in events:
                    if kind == "progress":
                        bar.show("answers", data["done"], data["total"])
        except KeyboardInterrupt:
            with contextlib.suppress(HearthError):
                self._json("POST", f"{path}/cancel")
            raise
        finally:
            bar.close()
        return self.comparison(started["comparison_id"])

    def comparison(self, comparison_id: str) -> Comparison:
        """A comparison as it is now, with its rows."""
        path = f"/comparisons/{_quoted(comparison_id)}"
        body = self._json("GET", path)
        rows: list[dict[str, Any]] = []
        query: dict[str, Any] | None = {"limit": MOST_LISTED}
        while query is not None:
            part = self._json("GET", f"{path}/rows", query=query)
            rows += map(_compared_row, part["rows"])
            query = None if part["next"] is None else {"limit": MOST_LISTED, "after": part["next"]}
        return _made(
            Comparison,
            body,
            rows=_frame(rows, _COMPARED_ROW),
            created=_local_time(body["created_at"]),
            error=_reason(body),
            _export=lambda: self._call("GET", f"{path}/export", seconds=None).content,
        )

    def resume_comparison(self, comparison_id: str) -> None:
        """Continue a comparison that was cancelled or interrupted. It does not wait for the end."""
        self._json("POST", f"/comparisons/{_quoted(comparison_id)}/resume", seconds=None)

    def comparisons(self, limit: int = 20) -> Table[dict[str, Any]]:
        """The comparisons of this workspace, the latest first."""
        body = self._json("GET", "/comparisons", query={"workspace": self.workspace, "limit": limit})
        names = ("comparison_id", "name", "state", "questions", "answered", "created_at")
        return Table({name: one[name] for name in names} for one in body["comparisons"])

    def sessions(self, limit: int = 20) -> Table[Conversation]:
        """The sessions of this workspace, the last used first."""
        body = self._json("GET", "/sessions", query={"workspace": self.workspace, "limit": limit})
        return Table(
            _made(
                Conversation, one, session=one["session_id"], created=_time(one["created"]), used=_time(one["used"])
            )
            for one in body["sessions"]
        )

    def runs(self, limit: int = 20) -> Table[Run]:
        """The runs of this workspace, the latest first."""
        body = self._json("GET", "/runs", query={"workspace": self.workspace, "limit": limit})
        return Table(_run(one, self) for one in body["runs"])

    def run(self, run_id: str) -> Run:
        """A run by its id."""
        return _run(self._json("GET", f"/runs/{_quoted(run_id)}"), self)

    def replay(self, run_id: str) -> Answer:
        """Ask the question of an earlier run again, with the same code."""
        question = self.run(run_id).question
        return _answer(self._json("POST", f"/runs/{_quoted(run_id)}/replay", seconds=None), question)

    def cancel(self, run_id: str) -> None:
        """Cancel a run that is waiting or running."""
        self._json("DELETE", f"/runs/{_quoted(run_id)}")

    # Jobs

    def jobs(self, limit: int = 20, *, state: str | None = None) -> Table[Job]:
        """The jobs of this workspace, the latest first."""
        body = self._json("GET", "/jobs", query=_given({"workspace": self.workspace, "limit": limit, "state": state}))
        return Table(_job(one) for one in body["jobs"])

    def start_job(
        self,
        tool: str,
        given: Mapping[str, Any] | None = None,
        *,
        session: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> Job:
        """Run a tool in the background. `given`: its arguments. `session`: the session that is woken at its end.
        `priority`: among your own jobs; the higher number is next. `timeout`: seconds."""
        wanted = {"tool": tool, "input": dict(given or {}), "session_id": session, "priority": priority}
        body = self._json("POST", "/jobs", body=self._named(_given({**wanted, "timeout": timeout})))
        return self.job(body["job_id"])

    def job(self, name: str) -> Job:
        """A job by its name."""
        return _job(self._json("GET", f"/jobs/{_quoted(name)}"))

    def wait_for_job(self, name: str) -> Job:
        """A job, after it has ended."""
        with contextlib.closing(self._events(f"/jobs/{_quoted(name)}/events", None, "GET")) as events:
            return next(_job(data) for kind, data in events if kind == "end")

    def cancel_job(self, name: str) -> Job:
        """Cancel a job. Returns when nothing of it is left."""
        return _job(self._json("DELETE", f"/jobs/{_quoted(name)}", seconds=None))

    def retry_job(self, name: str) -> Job:
        """Start an ended job again, as a new one."""
        return self.job(self._json("POST", f"/jobs/{_quoted(name)}/retry")["job_id"])

    def job_log(self, name: str) -> str:
        """What a job has printed."""
        return self._call("GET", f"/jobs/{_quoted(name)}/log").text

    # Files of sessions

    def upload(self, *paths: str | os.PathLike[str], session: str) -> Table[Uploaded]:
        """Upload files of this machine into a session, which may be new: all of them, or none."""
        if not paths:
            raise HearthError("Name at least one file to upload.", "usage")
        boundary = secrets.token_hex(16)
        body = self._json(
            "POST",
            self._session_files(session),
            data=_form([Path(path).expanduser() for path in paths], boundary),
            query={"workspace": self.workspace},
            content_type=f"multipart/form-data; boundary={boundary}",
            seconds=None,
        )
        return Table(_made(Uploaded, one, session=session) for one in body["files"])

    def download(
        self, name: str, session: str, to: str | os.PathLike[str] | None = None, *, overwrite: bool = False
    ) -> Path:
        """Save a file of a session on this machine. `to`: its place; default: its name, in the current folder.
        Returns the place."""
        place = Path(to or name.rpartition("/")[2]).expanduser()
        if place.exists() and not overwrite:
            raise HearthError(
                f"{place} exists. Choose another place with `to`, or set overwrite=True.", "file_exists"
            )
        draft = place.with_name(f".{place.name[:100]}.{secrets.token_hex(4)}")
        path = f"{self._session_files(session)}/{quote(name)}"
        try:
            with self._call("GET", path, query={"workspace": self.workspace}, stream=True) as response:
                expected = int(response.headers["Content-Length"])
                with draft.open("xb") as file:
                    for chunk in response.iter_content(CHUNK_BYTES):
                        file.write(chunk)
                    if file.tell() != expected:
                        raise HearthError(f"{name} changed while it was sent. Download it again.", "no_answer")
            draft.replace(place)
        except requests.RequestException as error:
            raise HearthError(f"{self.url} did not send all of {name}: {error}", "no_answer") from None
        except OSError as error:
            raise HearthError(f"{place} can't be written: {error.strerror}.", "file_error") from None
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()
        return place

    def delete_file(self, name: str, session: str) -> None:
        """Delete a file of a session."""
        path = f"{self._session_files(session)}/{quote(name)}"
        self._json("DELETE", path, query={"workspace": self.workspace})

    def analyse(self, name: str, session: str) -> dict[str, Any]:
        """What is in a file of a session: `kind`, `summary`, `details`, `how_to_read`, `skipped`."""
        path = f"{self._session_files(session)}/{quote(name)}/analysis"
        return self._json("GET", path, query={"workspace": self.workspace}, seconds=None)

    def run_code(self, code: str, session: str, timeout: float | None = None) -> CellResult:
        """Run Python in a session's sandbox, with the variables of the cells before. An error in the code is in the
        result. Ctrl-C interrupts the cell."""
        path = f"/sessions/{_quoted(session)}/code"
        body = _given({"code": code, "workspace": self.workspace, "timeout": timeout})
        try:
            ran = self._json("POST", path, body=body, seconds=None)
        except KeyboardInterrupt:
            with contextlib.suppress(HearthError):
                self._json("DELETE", path, query={"workspace": self.workspace})
            raise
        names = [one["png"] for one in ran["figures"] if "png" in one]
        return replace(
            _made(CellResult, ran, session=session), pictures=[self._picture(one, session) for one in names]
        )

    def _picture(self, name: str, session: str) -> bytes:
        path = f"{self._session_files(session)}/{quote(name)}"
        return self._call("GET", path, query={"workspace": self.workspace}).content

    # Documents

    def add_documents(
        self,
        *paths: str | os.PathLike[str],
        collection: str = COLLECTION,
        text: str | None = None,
        url: str | None = None,
        name: str | None = None,
        date: str | None = None,
        session: str | None = None,
    ) -> Table[Document]:
        """Add files of this machine to a collection, or a `text` with a `name`, or what a `url` names. They are found
        by words at once, and by meaning when they are `ready`. `date`: of their content, like 2024-05-31. `session`:
        the collection belongs to it. Files that the server refuses are a warning; if it refuses all, an error."""
        given: dict[str, Any] = {"query": self._of_session(session), "seconds": None}
        path = f"/collections/{_quoted(collection)}/documents"
        if text is not None or url is not None:
            body = _given({"text": text, "url": url, "name": name, "date": date})
            answer = self._json("POST", path, body=body, **given)
        elif paths:
            boundary = secrets.token_hex(16)
            answer = self._json(
                "POST",
                path,
                data=_form([Path(one).expanduser() for one in paths], boundary, _given({"date": date})),
                content_type=f"multipart/form-data; boundary={boundary}",
                **given,
            )
        else:
            raise HearthError("Name at least one file to add, or give a text or a url.", "usage")
        for refused in answer["failed"]:
            warnings.warn(f"{refused['name']}: {refused['error']['message']}", stacklevel=2)
        return Table(_made(Document, one, collection=collection) for one in answer["documents"])

    def documents(self, collection: str = COLLECTION, *, session: str | None = None) -> Table[Document]:
        """The documents of a collection."""
        return Table(self._documents(collection, session))

    def collections(self, *, session: str | None = None) -> Table[dict[str, Any]]:
        """The collections that an agent reads here: the session's, the workspace's, and those of main."""
        query = self._of_session(session) | {"limit": 1000}
        return Table(self._json("GET", "/collections", query=query)["collections"])

    def wait_for_documents(self, collection: str = COLLECTION, *, session: str | None = None) -> Table[Document]:
        """The documents of a collection, when all are found by meaning too, or say why they are not."""
        path, query = f"/collections/{_quoted(collection)}/events", self._of_session(session)
        with contextlib.closing(self._events(f"{path}?{urlencode(query)}", None, "GET")) as events:
            while True:
                found = self.documents(collection, session=session)
                if all(one.state != "embedding" for one in found):
                    return found
                next(kind for kind, _ in events if kind in ("state", "end"))

    def search(
        self,
        query: str,
        collection: str = COLLECTION,
        *,
        limit: int = 8,
        document: str | None = None,
        page: str | None = None,
        after: str | None = None,
        rerank: bool = False,
        session: str | None = None,
    ) -> Table[Passage]:
        """The best passages of a collection. `document`: the id of the only one to search, and `page` one of its
        pages, as printed. `after`: only documents with a later date."""
        filters = {"document": document, "page": page, "after": after, "rerank": "true" if rerank else None}
        asked = self._of_session(session) | _given(filters) | {"query": query, "limit": limit}
        body = self._json("GET", f"/collections/{_quoted(collection)}/search", query=asked, seconds=None)
        return Table(_made(Passage, one) for one in body["passages"])

    def delete_document(self, document_id: str, collection: str = COLLECTION, *, session: str | None = None) -> None:
        """Delete a document: the next search does not find it."""
        path = f"/collections/{_quoted(collection)}/documents/{_quoted(document_id)}"
        self._json("DELETE", path, query=self._of_session(session))

    def delete_collection(self, collection: str, *, session: str | None = None) -> None:
        """Delete a collection with its documents."""
        self._json("DELETE", f"/collections/{_quoted(collection)}", query=self._of_session(session))

    def _documents(self, collection: str, session: str | None) -> Iterator[Document]:
        query: dict[str, Any] = self._of_session(session) | {"limit": 1000}
        while True:
            body = self._json("GET", f"/collections/{_quoted(collection)}/documents", query=query)
            for one in body["documents"]:
                yield _made(Document, one, collection=collection)
            if body["next"] is None:
                return
            query["after"] = body["next"]

    def _of_session(self, session: str | None) -> dict[str, Any]:
        return _given({"workspace": self.workspace, "session": session})

    # Code

    def tools(self) -> Table[Tool]:
        """The tools of this workspace. Builds them first if needed."""
        body = self._json("POST", "/load_tools", body=self._named({}), seconds=None)
        return Table(_made(Tool, one) for one in body["tools"])

    @overload
    def files(self) -> Table[File]: ...

    @overload
    def files(self, session: str) -> Table[SessionFile]: ...

    def files(self, session: str | None = None) -> Table[File] | Table[SessionFile]:
        """The files of a session; without one, the workspace's own code files, without the common code."""
        if session is not None:
            return Table(self._listed(session))
        body = self._json("GET", f"/workspaces/{_quoted(self.workspace)}/files")
        return Table(_made(File, one) for one in body["files"])

    def get(self, path: str) -> str:
        """The text of a file of this workspace, like `tools/shout.py`."""
        return self._read(path).decode("utf-8", "replace")

    def put(self, path: str, text: str) -> None:
        """Create or replace a file, and create the workspace if it is new. Takes effect at the next reload."""
        self._write(path, text.encode())

    def delete(self, path: str) -> None:
        """Delete a file. Takes effect at the next reload."""
        self._check_own()
        self._call("DELETE", self._file(path))

    def reload(self, *, generation: str | None = None, dry_run: bool = False) -> Reloaded:
        """Load the workspace's files: all of them, or none.

        `generation`: make an earlier generation live instead. `dry_run`: only report what would change. Raises
        `reload_failed` with files and lines.
        """
        return self._reload({}, generation, dry_run)

    def push(self, folder: str | os.PathLike[str]) -> Reloaded:
        """Send the Python files below a folder on this machine, and reload.

        The files are written to `tools/`. If the folder contains `tools/`, `agent/` or `model.py`, only these are
        sent, with their own paths. Files of an earlier push that the folder no longer has are deleted. Files that
        can't be imported by their names are not sent, and are listed in `warnings`. When the reload fails, the new
        files stay in the workspace, and the old code continues to answer.
        """
        self._check_own()
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise HearthError(f"There is no folder {root}.", "no_folder")
        files, ignored = _files_below(root)
        record = _push_record(self.url, self.workspace, root)
        before = _read_record(record)
        if not files and not before:
            raise HearthError(f"There are no Python files below {root}.", "no_folder")
        # Saved first: if this push is interrupted, the next one still knows all files that may have been sent.
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
        reloaded = self._reload(sources)
        return replace(reloaded, warnings=[*ignored, *reloaded.warnings])

    def write_tools(self, cell: str, name: str = "") -> Reloaded:
        """Make tools of the functions in a cell, and reload.

        `cell` includes its first line, `%%tool` or a comment, so that line numbers stay right. Each public function
        without a decorator becomes a tool; its docstring is the description that the model reads. The file is
        `tools/<name>.py`; the default for `name` is the first of these functions. When the reload fails, the file is
        restored. Raises `cell` or `no_function` for an error in the cell, before anything is sent.
        """
        self._check_own()
        path, text, source = _tool_file(cell, name)
        before = self._read_if_there(path)
        self._write(path, text.encode())
        try:
            return self._reload({path: source})
        except HearthError as error:
            # Without a response it is unknown whether the new code became live.
            if error.status is None:
                raise
            try:
                if before is None:
                    self.delete(path)
                else:
                    self._write(path, before)
            except HearthError as second:
                error.message += f" Also, {path} could not be restored: {second.message}"
            else:
                error.message += f" {path} was {'deleted again' if before is None else 'restored'}."
            raise

    def generations(self, limit: int = 20) -> Table[Generation]:
        """The generations of this workspace with the time and the changed files of each, the latest first."""
        body = self._json(
            "GET", "/generations", query={"workspace": self.workspace, "limit": min(limit, MOST_LISTED)}
        )
        made: Table[Generation] = Table()
        for one in body["generations"]:
            # It may be listed several times; only its latest time is live.
            live = one["generation"] == body["live"] and all(other.generation != body["live"] for other in made)
            made.append(_made(Generation, one, time=_time(one["time"]), live=live))
        return made

    def diff(self, before: str, after: str) -> Diff:
        """The differences of two generations, named by their hashes or the first digits of them."""
        body = self._json("GET", f"/generations/{_quoted(before)}/diff", query={"to": after})
        return Diff(body["from"], body["to"], {one["path"]: one["diff"] for one in body["files"]})

    def rollback(self, generation: str) -> Reloaded:
        """Make an earlier generation live again. The files do not change, and the next reload loads them again."""
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
        """Load a model, and wait until it is ready, with a progress bar.

        `model`: `embedded`, a Hugging Face id, a folder on the server, or a remote model, like `openai:NAME`, with
        its API at `base_url`. With `replace` it replaces the default model; otherwise it is loaded in addition. The
        defaults of the others are the server's settings.
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

    # Requests

    def _named(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        return {"workspace": self.workspace, **_given(wanted)}

    def _session_files(self, session: str) -> str:
        return f"/sessions/{_quoted(session)}/files"

    def _listed(self, session: str) -> Iterator[SessionFile]:
        after, has_more = "", True
        while has_more:
            query = {"workspace": self.workspace, "limit": 1000, "after": after}
            body = self._json("GET", self._session_files(session), query=query)
            for one in body["files"]:
                yield _made(SessionFile, one, modified=_local_time(one["modified_at"]))
                after = one["name"]
            has_more = body["has_more"]

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
        """Reload. Errors show the text in `sources`, by path, or else the server's file."""
        wanted = self._named({"generation": generation, "dry_run": dry_run or None})
        try:
            body = self._json("POST", "/reload_modules", body=wanted, seconds=None)
        except HearthError as error:
            error.mistakes = [self._placed(one, sources, generation) for one in error.mistakes]
            if error.code == "reload_failed" and error.mistakes:
                # The rest of the server's message is the first error, which is shown below.
                error.message = error.message.partition(". ")[0] + "."
            raise
        tools = body["tools"]
        note = "" if generation is None else "The files did not change; the next reload loads them again."
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
        """The mistake with the file and line that its author knows."""
        if mistake.file is None:
            return mistake
        path = mistake.file.removeprefix("server/")
        source = sources.get(path)
        if source is None and generation is None:
            # Otherwise the loaded code differs from the files.
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
        data: Iterable[bytes] | None = None,
        content_type: str | None = None,
    ) -> dict[str, Any]:
        response = self._call(
            method, path, body=body, data=data, query=query, seconds=seconds, content_type=content_type
        )
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise HearthError(f"The server at {self.url} is not a Hearth server.", "not_hearth", response.status_code)
        return answer

    def _events(
        self, path: str, body: Mapping[str, Any] | None, method: str = "POST"
    ) -> Generator[tuple[str, dict[str, Any]], None, None]:
        """The events of a stream as they come: kind and data. The event `error` is raised."""
        kind = ""
        with self._call(method, path, body=body, stream=True) as response:
            try:
                for line in response.iter_lines(chunk_size=None):  # type: ignore[call-overload]  # None: what has arrived
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
        if kind not in ("answer", "model", "end"):
            raise HearthError(f"{self.url} closed the connection before it answered. Was it stopped?", "no_answer")

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        data: bytes | Iterable[bytes] | None = None,
        query: Mapping[str, Any] | None = None,
        seconds: float | None = READ_SECONDS,
        stream: bool = False,
        content_type: str | None = None,
    ) -> requests.Response:
        """The response; an error response is raised. `seconds`: time limit for the response, or for each part of a
        `stream` of events; None: no limit."""
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = requests.Session()
            session.auth = self._auth
            # Requests to this machine must not use a proxy.
            session.trust_env = urlsplit(self.url).hostname not in ("localhost", "127.0.0.1", "::1")
        try:
            response = session.request(
                method,
                self.url + path,
                json=body,
                data=data,
                params=query,
                timeout=(CONNECT_SECONDS, seconds),
                headers=_given({"Accept": "text/event-stream" if stream else None, "Content-Type": content_type}),
                stream=stream,
            )
        except requests.ReadTimeout:
            raise HearthError(f"{self.url} did not answer within {seconds} s.", "no_answer") from None
        except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError) as error:
            if "aborted" in str(error) or isinstance(error, requests.exceptions.ChunkedEncodingError):
                raise HearthError(
                    f"{self.url} closed the connection before it answered. Was it stopped?", "no_answer"
                ) from None
            raise HearthError(
                f"No server answers at {self.url}. Check that it is running, and the address.", "no_server"
            ) from None
        except requests.RequestException as error:
            raise HearthError(f"The request to {self.url} failed: {error}", "no_answer") from None
        if not response.ok:
            raise self._refused(response)
        return response

    def _refused(self, response: requests.Response) -> HearthError:
        """The error in a response."""
        try:
            error = response.json()["error"]
            code, message = str(error["type"]), str(error["message"])
        except (ValueError, KeyError, TypeError):
            message = f"{self.url} answers {response.status_code} {response.reason}; it is not a Hearth server."
            return HearthError(message, "not_hearth", response.status_code)
        if code == "workspace_not_found":
            message = (
                f"There is no workspace {self.workspace} yet. Create it with its first file: %%tool, push or put."
            )
        try:
            retry_after = float(response.headers["Retry-After"])
        except (KeyError, ValueError):
            retry_after = None
        return _error({**error, "message": message}, response.status_code, retry_after)


@contextlib.contextmanager
def _expected(*codes: str) -> Iterator[None]:
    """Ignores errors with these codes."""
    try:
        yield
    except HearthError as error:
        if error.code not in codes:
            raise


# Results from JSON


Made = TypeVar("Made")


def _made(kind: type[Made], body: Mapping[str, Any], **values: Any) -> Made:
    """A dataclass from the fields that it has in common with `body`; a newer server may send more. `values` take
    precedence."""
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
    steps = [_made(Step, one) for one in body["steps"]]
    citations = [_made(Citation, one) for one in body.get("citations", ())]
    return _made(Answer, body, question=question, steps=steps, citations=citations)


def _run(body: Mapping[str, Any], lab: Lab) -> Run:
    steps = [_made(Step, one) for one in body.get("steps", [])]
    return _made(Run, body, asked=_time(body["asked"]), steps=steps, error=_reason(body), lab=lab)


def _job(body: Mapping[str, Any]) -> Job:
    return _made(
        Job,
        body,
        job=body["job_id"],
        created=_local_time(body["created_at"]),
        error=_reason(body),
        session=body.get("session_id"),
    )


def _reason(body: Mapping[str, Any]) -> str | None:
    """The error in a body, in one line."""
    error = body.get("error")
    return None if error is None else f"{error['type']}: {error['message']}"


_ROW = ("question", "answer", "error", "function", "steps", "seconds", "generation", "run_id")


def _asked_row(question: str, answer: Answer) -> dict[str, Any]:
    return {name: getattr(answer, name, None) for name in _ROW} | {"question": question}


def _failed_row(question: str, error: HearthError) -> dict[str, Any]:
    return dict.fromkeys(_ROW) | {"question": question, "error": f"{error.code}: {error.message}", "steps": []}


def _frame(rows: list[dict[str, Any]], columns: Iterable[str]) -> Any:
    """A pandas `DataFrame` if pandas is installed, otherwise a `Table`."""
    try:
        import pandas
    except ImportError:
        return Table(rows)
    return pandas.DataFrame(rows, columns=list(columns))


_OF_A_SIDE = ("correct", "error", "check_error", "tokens", "seconds", "run_id")
_COMPARED_ROW = (
    "number",
    "question",
    "expected",
    "changed",
    "a",
    "b",
    *(f"{side}_{name}" for side in "ab" for name in _OF_A_SIDE),
)


def _compared_row(body: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: body[name] for name in ("number", "question", "expected", "changed")}
    for side in "ab":
        cell = body[side] or {}
        row[side] = cell.get("answer")
        row |= {f"{side}_{name}": cell.get(name) for name in _OF_A_SIDE}
        for name in ("error", "check_error"):
            if row[f"{side}_{name}"] is not None:
                row[f"{side}_{name}"] = f"{cell[name]['type']}: {cell[name]['message']}"
    return row


def _compared_question(given: str | tuple[str, str] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(given, str):
        return {"question": given}
    if isinstance(given, Mapping):
        return dict(given)
    question, expected = given
    return {"question": question, "expected": expected}


def _compared_side(given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(given, str):
        return {"generation": given}
    return dict(given or {})


def _compared_check(given: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    return {"kind": given} if isinstance(given, str) else {"kind": "tool", **given}


def _side_line(side: Mapping[str, Any]) -> str:
    text = f"{side['workspace']}, generation {side['generation']}, {side['model']}, {side['agent']}"
    return text if not side["instructions"] else f"{text}, with instructions"


def _html_cell(row: Mapping[str, Any], name: str) -> str:
    """A cell of a comparison: an answer or an error, and the verdict on it."""
    value, verdict = row[name], row.get(f"{name}_correct")
    if name in ("a", "b") and not isinstance(value, str):
        value = row[f"{name}_error"]
    text = html.escape(_short(value, 200)) if isinstance(value, str) else ""
    mark = {True: " &#x2713;", False: " &#x2717;"}.get(verdict, "") if isinstance(verdict, bool) else ""
    return f"<td>{text}{mark}</td>"


def _form(paths: list[Path], boundary: str, texts: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """A form with texts and files, read while it is sent. Raises `HearthError` for a file that can't be read."""
    for field_name, value in (texts or {}).items():
        yield f'--{boundary}\r\nContent-Disposition: form-data; name="{field_name}"\r\n\r\n{value}\r\n'.encode()
    for path in paths:
        name = path.name.replace("\\", "\\\\").replace('"', '\\"').replace("\r", " ").replace("\n", " ")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        yield head.encode("utf-8", "replace")
        try:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise HearthError(f"{path} can't be read: {error.strerror}.", "file_error") from None
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


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
    """A name for the user's workspace."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name
        name = ""
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-") or "alice"


# Folders that are pushed


_PARTS = ("tools", "agent")


def _files_below(root: Path) -> tuple[dict[str, Path], list[dict[str, str]]]:
    """The Python files to send, by their path in a workspace; and a warning for each that can't be imported."""
    laid_out = (root / "model.py").is_file() or any((root / part).is_dir() for part in _PARTS)
    found: dict[str, Path] = {}
    ignored: list[dict[str, str]] = []
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
                # It would replace the module that finds the tools.
                continue
            path = Path("tools") / name
        if not all(part.isidentifier() for part in (*path.parts[:-1], path.stem)):
            message = "it is ignored, because its name can't be imported: use letters, digits and _ only"
            ignored.append({"file": str(place), "message": message})
            continue
        found[path.as_posix()] = place
    return found, ignored


def _push_record(url: str, workspace: str, root: Path) -> Path:
    """The file that records what was pushed from a folder to a workspace."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    key = hashlib.sha256("\n".join((url, workspace, str(root.resolve()))).encode()).hexdigest()[:24]
    return Path(base) / "hearth" / f"pushed-{key}.json"


def _read_record(record: Path) -> set[str]:
    try:
        return set(map(str, json.loads(record.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, TypeError) as error:
        warnings.warn(
            f"{record} can't be read ({error}): files that were deleted here stay in the workspace", stacklevel=3
        )
        return set()


def _write_record(record: Path, paths: set[str]) -> None:
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(sorted(paths)), encoding="utf-8")
    except OSError as error:
        warnings.warn(
            f"{record} can't be written ({error}): files that are deleted here will stay in the workspace",
            stacklevel=3,
        )


# Cells that become tools


ADDED = "_hearth_"
"""Prefix of the names that are added to a cell."""
BUILD_TOOL = "build_tool"


def _tool_file(cell: str, name: str) -> tuple[str, str, _Source]:
    """The path and the text of the file for a cell, and the cell as its author sees it.

    The line of the magic becomes a comment, and all other lines keep their numbers. The code that makes tools of the
    functions is added at the end. Raises `cell`, `no_function`, `usage`.
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
            "There is no function in the cell. A tool is a function with a docstring. A function whose name begins "
            "with _ does not become a tool.",
            "no_function",
        )
    # The server calls this function to build a tool that needs the model.
    public.pop(BUILD_TOOL, None)
    if not public and not name:
        raise HearthError("Give the file a name, like `%%tool my_tool`.", "usage")
    # After `fast = tool(slow)`, `fast` is a tool already.
    plain = [one for one in public.values() if not one.decorator_list and one.name not in _assigned(tree)]
    for function in plain:
        if not (ast.get_docstring(function) or "").strip():
            message = (
                f"{function.name} needs a docstring, which tells the model what it does. If it is not a tool, begin "
                "its name with _"
            )
            raise _cell_error(own, function.lineno, "MissingDocstring", message)
    moved: dict[int, int] = {}
    if plain:
        text += f"\n\nfrom langchain_core.tools import tool as {ADDED}tool\n\n"
    for function in plain:
        # With another name, so that the functions can still call each other.
        text += f"{ADDED}{function.name} = {ADDED}tool({function.name})\n"
        moved[text.count("\n")] = function.lineno
    return f"tools/{name or next(iter(public))}.py", text, _Source("the cell", own, moved)


def _assigned(tree: ast.Module) -> set[str]:
    """The names that are assigned at the top level of a module."""
    targets = [target for one in tree.body if isinstance(one, ast.Assign) for target in one.targets]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _parsed(text: str, own: str) -> ast.Module:
    """The syntax tree of the cell. Raises `cell` with the text `own`."""
    try:
        # Only compiling finds some errors, such as a `return` outside of a function.
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
    """Raises an error instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise HearthError(f"{message[:1].upper()}{message[1:]}. {self.format_usage().strip()}", "usage")


class _Magics:
    """The magics. They share a connection: that of the last `%hearth`, or to the user's server on this machine."""

    def __init__(self) -> None:
        self._lab: Lab | None = None
        self._session: str | None = None

    @property
    def lab(self) -> Lab:
        if self._lab is None:
            self._lab = connect()
        return self._lab

    def hearth(self, line: str) -> Lab:
        """`%hearth [url] [--workspace alice]`: connect. Returns the connection: `lab = %hearth ...`."""
        parser = _Arguments(prog="%hearth", add_help=False, allow_abbrev=False)
        parser.add_argument("url", nargs="?")
        parser.add_argument("--workspace", "-w", default=MAIN)
        given = parser.parse_args(_words(line))
        self._lab = connect(given.url, given.workspace)
        self._session = None
        return self._lab

    def tool(self, line: str, cell: str) -> Reloaded:
        """`%%tool [name]`: make the functions of the cell tools of the workspace."""
        words = _words(line)
        if len(words) > 1:
            raise HearthError("Give at most one name: %%tool [name].", "usage")
        return self.lab.write_tools(f"%%tool {line}".rstrip() + "\n" + cell, *words)

    def ask(self, line: str) -> Answer:
        """`%ask What is 37 * 52?`: ask a question, and show the steps to the answer. After an `%upload`, it
        belongs to the session that has the files."""
        if not _in_notebook():
            return self.lab.ask(line, session=self._session)
        view = _CellView()
        try:
            return self.lab._ask(self.lab._named({"question": line, "session_id": self._session}), view)
        finally:
            # The cell's own result, or its error, is shown instead.
            view.empty()

    def generations(self, line: str) -> Table[Generation]:
        """`%generations [count]`: list the generations."""
        words = _words(line)
        if len(words) > 1 or not all(word.isdigit() for word in words):
            raise HearthError("The count is a number: %generations [count].", "usage")
        return self.lab.generations(*map(int, words))

    def jobs(self, line: str) -> Table[Job]:
        """`%jobs [count]`: list the jobs."""
        words = _words(line)
        if len(words) > 1 or not all(word.isdigit() for word in words):
            raise HearthError("The count is a number: %jobs [count].", "usage")
        return self.lab.jobs(*map(int, words))

    def upload(self, line: str) -> Table[Uploaded]:
        """`%upload sales.csv [--session monday]`: upload files. From now on `%ask` asks in that session; without a
        name, in one of this notebook's."""
        parser = _Arguments(prog="%upload", add_help=False, allow_abbrev=False)
        parser.add_argument("files", nargs="+")
        parser.add_argument("--session", "-s")
        given = parser.parse_args(_words(line))
        session = given.session or self._session or f"notebook-{secrets.token_hex(4)}"
        uploaded = self.lab.upload(*given.files, session=session)
        self._session = session
        return uploaded

    def docs(self, line: str) -> Table[Document] | Table[Passage]:
        """`%docs`: the documents of a collection. `%docs add paper.pdf ...`: add files. `%docs search words`: find
        passages. Each takes `--collection papers` and `--session monday`."""
        parser = _Arguments(prog="%docs", add_help=False, allow_abbrev=False)
        parser.add_argument("what", nargs="?", choices=("list", "add", "search"), default="list")
        parser.add_argument("words", nargs="*")
        parser.add_argument("--collection", "-c", default=COLLECTION)
        parser.add_argument("--session", "-s")
        given = parser.parse_args(_words(line))
        if given.what == "add":
            return self.lab.add_documents(*given.words, collection=given.collection, session=given.session)
        if given.what == "search":
            return self.lab.search(" ".join(given.words), given.collection, session=given.session)
        return self.lab.documents(given.collection, session=given.session)

    def sandbox(self, line: str, cell: str) -> CellResult:
        """`%%sandbox [--session monday]`: run the cell in a session's sandbox: the one of `%upload`, or a new one."""
        parser = _Arguments(prog="%%sandbox", add_help=False, allow_abbrev=False)
        parser.add_argument("--session", "-s")
        given = parser.parse_args(_words(line))
        self._session = given.session or self._session or f"notebook-{secrets.token_hex(4)}"
        return self.lab.run_code(cell, self._session)

    def rollback(self, line: str) -> Reloaded:
        """`%rollback 3f2a`: make an earlier generation live again, by the first digits of its hash."""
        words = _words(line)
        if len(words) != 1:
            raise HearthError("Give one generation, like %rollback 3f2a. %generations lists them.", "usage")
        return self.lab.rollback(words[0])


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise HearthError(f"{error}: {line}", "usage") from None


_ASKED = re.compile(r"(?P<before>\s*(?:[^\W\d]\w*\s*=\s*)?)%ask[ \t]+(?P<question>.*[^\s\\?].*?)\s*")


def _protect_questions(lines: list[str]) -> list[str]:
    """A cell's lines, with each `%ask` turned into a call: IPython treats a final question mark as a request for
    help."""
    if lines and lines[0].startswith("%%"):
        return lines

    def protected(line: str) -> str:
        asked = _ASKED.fullmatch(line)
        if not asked or line.rstrip().endswith("\\"):
            return line
        return f"{asked['before']}get_ipython().run_line_magic('ask', {asked['question']!r})\n"

    return [protected(line) for line in lines]


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext hearth`."""
    from IPython.core.magic import no_var_expand

    # A question is sent as it was typed: IPython must not expand braces and dollar signs.
    no_var_expand(_Magics.ask)
    ipython.input_transformers_cleanup.append(_protect_questions)
    magics = _Magics()
    for name in ("hearth", "ask", "generations", "rollback", "jobs", "upload", "docs"):
        ipython.register_magic_function(getattr(magics, name), "line", name)
    ipython.register_magic_function(magics.tool, "cell", "tool")
    ipython.register_magic_function(magics.sandbox, "cell", "sandbox")


# Display


class _TextView:
    """Writes an answer to standard output as it is streamed: the model's text, and the observations."""

    def __init__(self) -> None:
        self._line_begun = False

    def show(self, kind: str, data: Mapping[str, Any]) -> None:
        """Show an event of the stream."""
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
    """Shows an answer below a notebook's cell as it is streamed."""

    def __init__(self) -> None:
        from IPython.display import display

        self._steps: list[Step] = []
        self._text = ""
        self._note = "sent"
        self._answer: Answer | None = None
        self._shown = time.monotonic()
        self._handle: Any = display(self, display_id=True)

    def show(self, kind: str, data: Mapping[str, Any]) -> None:
        """Show an event of the stream."""
        if kind == "queued":
            self._note = f"place {data['position']} in the queue"
        elif kind == "started":
            self._note = "the model reads the question"
        elif kind == "token" and data["tool"] is None:
            self._text += data["text"]
        elif kind == "token":
            self._note = f"{data['tool']} asks the model"
        elif kind == "step":
            self._steps.append(_made(Step, data))
            self._text = ""
        elif kind == "answer":
            self._answer = _answer(data, "")
        # Not every token, because the browser redraws each time.
        if kind != "token" or time.monotonic() - self._shown >= SHOW_SECONDS:
            self._shown = time.monotonic()
            self._handle.update(self)

    def empty(self) -> None:
        """Clear the display."""
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
    """Whether this runs in a kernel, whose frontend can update what it shows."""
    # Do not import IPython only for this check: in a kernel it is imported already.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


class _Bar:
    """A progress bar, if tqdm is installed."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._stage: tuple[str, int] | None = None

    def show(self, stage: str, done: int, total: int) -> None:
        """Update the bar. `total`: 0 if unknown."""
        if self._shown is None:
            return
        if self._stage != (stage, total):
            self._stage = (stage, total)
            self._shown.reset(total=total or None)
            self._shown.set_description(stage, refresh=False)
        self._shown.n = done
        self._shown.refresh()

    def close(self) -> None:
        """Remove the bar."""
        if self._shown is not None:
            self._shown.close()


def _bar(label: str) -> _Bar:
    try:
        with warnings.catch_warnings():
            # Without widgets it warns and shows text, which is good enough.
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


def _preformatted(text: str) -> str:
    return f"<pre>{html.escape(text.rstrip())}</pre>" if text.strip() else ""


def _html_table(table: Mapping[str, Any]) -> str:
    """A frame's first and last rows. All of it is text, whatever it contains."""

    def row(cells: Iterable[str], tag: str, label: str) -> str:
        return (
            f"<tr><th>{html.escape(label)}</th>{''.join(f'<{tag}>{html.escape(one)}</{tag}>' for one in cells)}</tr>"
        )

    rows = [row(table["columns"], "th", "")]
    half = len(table["rows"]) // 2
    for number, (label, cells) in enumerate(zip(table["index"], table["rows"], strict=True)):
        if table["row_count"] > len(table["rows"]) and number == half:
            rows.append(row(["…"] * len(cells), "td", "…"))
        rows.append(row(cells, "td", label))
    shape = f"{table['row_count']} rows, {table['column_count']} columns"
    return f"<table>{''.join(rows)}</table><p>{shape}</p>"


def _escaped(text: str) -> str:
    """Text from a model or a tool, escaped for Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|~$&!])", r"\\\1", text)


def _code(text: str) -> str:
    """Text as inline code, or as a block if it has several lines."""
    if "\n" in text:
        return f"\n{_block(text)}"
    ticks = _ticks(text, 1)
    return f"{ticks} {text} {ticks}" if text.strip() else "(empty)"


def _block(text: str, language: str = "") -> str:
    ticks = _ticks(text, 3)
    return f"\n{ticks}{language}\n{text.rstrip()}\n{ticks}\n"


def _ticks(text: str, least: int) -> str:
    """A longer row of backticks than any in the text, and at least `least`."""
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])
