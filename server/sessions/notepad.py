"""The notepad of a session: an entry for each exchange, copied from its run, to which a model adds later."""

import json
import logging
import queue
import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from server.errors import HearthError
from server.observability import semantic_conventions as names
from server.observability import tracing
from server.reload import Workspaces
from server.store import SessionStore

log = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Maximum number of waiting entries. The model adds nothing to entries beyond that."""
NOTE_SECONDS = 600.0
"""Time limit for a note, waiting included."""
LONGEST = {"title": 200, "found": 2000}
"""Maximum length of the model's texts in an entry, in characters."""
LONGEST_TEXT = 300
"""Maximum length of a question or an answer, in characters."""
_LONGEST_CALL = 160
_MOST = 20
_QUOTED = re.compile(r"""(["'])([^"'\n]+)\1""")
_FILE = re.compile(r"[\w./~-]*\w\.[a-zA-Z][a-zA-Z0-9]{0,7}")
_VARIABLE = re.compile(r"^[ \t]*([^\W\d]\w*)[ \t]*=(?!=)", re.MULTILINE)


def entry_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a finished run: its question, calls and answer, and the names of files and variables in its tool
    calls. A model writes the `title` later."""
    inputs = [text for step in record["steps"] for text in _texts(step["input"])]
    return {
        "title": None,
        "asked": shortened(record["question"], LONGEST_TEXT),
        "done": [shortened(_call(step), _LONGEST_CALL) for step in record["steps"][:_MOST]],
        "found": shortened(record["answer"], LONGEST_TEXT),
        "files": _distinct(name for text in inputs for name in _quoted(text) if _FILE.fullmatch(name)),
        "variables": _distinct(name for text in inputs for name in _VARIABLE.findall(text)),
    }


def shortened(text: str, characters: int) -> str:
    """`text` in one line, truncated to so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"


def _call(step: Mapping[str, Any]) -> str:
    # A custom agent may report anything as input.
    given = step["input"] if isinstance(step["input"], Mapping) else {"input": step["input"]}
    shown = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items())
    return f"{step['tool']}({shown})"


def _quoted(text: str) -> list[str]:
    """`text`, and everything in it that is in quotation marks, like file names in code."""
    return [text, *(found[1] for found in _QUOTED.findall(text))]


def _texts(value: Any) -> list[str]:
    """Every string within a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else []


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))[:_MOST]


class NoteTaker:
    """A background thread, in which a model adds to one entry after the other, in the order of their exchanges.

    Nothing waits for it. If it fails, the
    entry stays as it is."""

    def __init__(self, store: SessionStore, workspaces: Workspaces) -> None:
        """The live code of a run's workspace writes the note, with the background model."""
        self._store = store
        self._workspaces = workspaces
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(MOST_WAITING)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def add(self, record: dict[str, Any]) -> None:
        """The exchange of that run was saved: improve its entry."""
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="notes", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    log.warning("nothing is added to the note of run %s: %s", record["run_id"], error)
                    return
                self._thread = thread
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            log.warning(
                "%d notes wait to be written; nothing is added to that of run %s", MOST_WAITING, record["run_id"]
            )

    def close(self) -> None:
        """Start no more entries."""
        self._closing.set()

    def _work(self) -> None:
        while True:
            record = self._waiting.get()
            if self._closing.is_set():
                return
            try:
                self._improve(record)
            except HearthError as error:
                log.info("nothing is added to the note of run %s: %s", record["run_id"], error.message)
            except Exception:  # boundary: the thread's end
                log.warning("nothing is added to the note of run %s", record["run_id"], exc_info=True)

    def _improve(self, record: dict[str, Any]) -> None:
        with (
            tracing.span("write note", {names.RUN: record["run_id"], names.WORKSPACE: record["workspace"]}),
            self._workspaces.get(record["workspace"]).pin(with_tools=False) as code,
        ):
            written = code.write_note(record, NOTE_SECONDS)
        entry = entry_of(record)
        self._store.improve_entry(record["run_id"], entry, {**entry, **_checked(written)})


def _checked(written: Any) -> dict[str, str]:
    """The result of reloadable code, reduced to what an entry accepts."""
    if not isinstance(written, Mapping):
        raise TypeError(f"a note is a dict with {', '.join(LONGEST)}, and not {type(written).__name__}")
    fits = {name: str(written[name])[:longest] for name, longest in LONGEST.items() if written.get(name)}
    return {name: " ".join(text.split()) for name, text in fits.items()}
