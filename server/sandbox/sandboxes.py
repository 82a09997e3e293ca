"""The sandboxes of all sessions: one interpreter for each that is in use."""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from constants import Settings
from server.errors import NotFoundError, QueueFullError, SandboxUnavailableError
from server.files.beneath import open_regular, open_root, opened
from server.files.folders import SessionFolder, SessionFolders
from server.files.media_types import SAMPLE_BYTES, media_type
from server.files.session_files import OpenFile
from server.observability import metrics, tracing
from server.observability import semantic_conventions as names
from server.sandbox.cell_run import AFTER_SECONDS, run_cell
from server.sandbox.cells import CellError, CellResult, OfVariable, Output, Shown, Variable
from server.sandbox.inside import exports
from server.sandbox.opening import DamagedVariablesError, open_session
from server.sandbox.pool import Pool
from server.sandbox.process import NoReplyError, SandboxEndedError, SandboxProcess
from server.sandbox.watch import Watched, Watcher, out_of_memory

log = logging.getLogger(__name__)

ANALYSIS_SECONDS = 10.0
TEXTS_SECONDS = 60.0
"""For the whole text of a document."""
PAGE_SECONDS = 20.0
"""For reading a page of the web."""
TIDY_SECONDS = 30.0
"""Interval at which idle interpreters are ended."""


class _Session:
    """A session with its interpreter, if it has one. `lock`: one cell at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.watched: Watched | None = None
        self.has_place = False
        """Whether it counts among those that have an interpreter."""
        self.variables: list[Variable] = []
        self.used = time.monotonic()
        self.is_interrupted = False
        self.is_forgotten = False
        """Whether the session was deleted."""
        self.is_replaced = False
        """Whether another object stands for the session, since this one was of no use any more."""


class Sandboxes:
    """Runs code of sessions. Idle until the first call. Safe for any number of threads."""

    def __init__(self, settings: Settings, folders: SessionFolders) -> None:
        self._settings = settings
        self._folders = folders
        self._pool = Pool(settings, folders.root)
        self._lock = threading.Lock()
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._watcher = Watcher(self._pool.limits, self._all_watched)
        self._closed = threading.Event()
        self._tidying: threading.Thread | None = None

    def run(
        self,
        workspace: str,
        session: str,
        code: str,
        timeout: float,
        on_text: Callable[[str], None] = lambda text: None,
        name: str = "cell",
        should_stop: Callable[[], bool] = lambda: False,
    ) -> CellResult:
        """Run a cell in the session's interpreter, after those that were sent before. It has `timeout` seconds.
        `on_text` gets what it prints. `name`: of the file in which its code is saved. `should_stop` is asked now and
        then: whether to interrupt it.

        Raises `SandboxUnavailableError`, and `QueueFullError` if all sandboxes are in use.
        """
        about = {names.WORKSPACE: workspace, names.SESSION: session}
        with tracing.span("run cell", about) as span, self._locked(workspace, session) as found:
            began = time.monotonic()
            output = Output(on_text)
            found.is_interrupted = False
            try:
                watched = self._interpreter(workspace, session, found)
                watched.is_running = True
                try:
                    reply = run_cell(
                        watched.process,
                        code,
                        name,
                        timeout,
                        output,
                        lambda: found.is_interrupted or should_stop(),
                    )
                    error = reply.error
                finally:
                    watched.is_running = False
            except SandboxEndedError as ended:
                reply, error = None, self._ended(found, ended)
            finally:
                found.used = time.monotonic()
            if reply is not None:
                found.variables = reply.variables
            seconds = time.monotonic() - began
            metrics.CELL_SECONDS.labels(_outcome(error)).observe(seconds)
            tracing.put(span, {names.ISOLATION: self._pool.separated_by, names.CELL: reply and reply.number})
            if error is not None:
                tracing.fail(span, error.type)
            return CellResult(
                number=None if reply is None else reply.number,
                output=output.text,
                result=None if reply is None else reply.result,
                error=error,
                figures=[] if reply is None else reply.figures,
                files=[] if reply is None else reply.files,
                variables=found.variables,
                seconds=seconds,
                isolation=self._pool.separated_by,
            )

    def interrupt(self, workspace: str, session: str) -> bool:
        """Raise KeyboardInterrupt in the session's cell; if it has not ended after 2 s, its interpreter is ended.
        Returns whether a cell was running."""
        with self._lock:
            found = self._sessions.get((workspace, session))
        if found is None or found.watched is None or not found.watched.is_running:
            return False
        found.is_interrupted = True
        found.watched.process.interrupt()
        return True

    def variables(self, workspace: str, session: str) -> list[Variable]:
        """The variables of a session; starts an interpreter that has a look, if there is none. Raises what `run`
        raises."""
        with self._locked(workspace, session) as found:
            self._live(workspace, session, found)
            return found.variables

    def has_state(self, workspace: str, session: str) -> bool:
        """Whether code has run in the session."""
        return any(self._folders.of(workspace, session).state.glob("*"))

    def preview(self, workspace: str, session: str, name: str) -> Shown:
        """What a variable looks like. Raises `NotFoundError`, and what `run` raises."""
        reply = self._ask_about(workspace, session, name, "preview")
        if reply.shown is None:
            raise _not_shown(name, reply)
        return reply.shown

    def export(self, workspace: str, session: str, name: str) -> tuple[str, OpenFile]:
        """A variable as an open file, and its name: CSV, .npy, text or JSON. The caller closes it. Raises
        `NotFoundError`, and what `run` raises."""
        reply = self._ask_about(workspace, session, name, "export")
        if reply.file is None:
            raise _not_shown(name, reply)
        try:
            with opened(open_root(self._folders.of(workspace, session).state)) as root:
                descriptor, status = open_regular(root, f"{exports.FOLDER}/{reply.file}")
        except OSError as error:
            raise NotFoundError(f"The variable {name!r} can't be downloaded: {error.strerror}.") from error
        head = os.pread(descriptor, SAMPLE_BYTES, 0)
        return reply.file, OpenFile(descriptor, status, media_type(head, b"", reply.file))

    def _ask_about(self, workspace: str, session: str, name: str, what: str) -> OfVariable:
        with self._locked(workspace, session) as found:
            watched = self._live(workspace, session, found)
            try:
                reply = watched.process.ask({"do": what, "name": name}, AFTER_SECONDS, lambda data: None)
                return OfVariable.model_validate(reply)
            except SandboxEndedError as error:
                why = str(error)
            except NoReplyError:
                why = f"it takes longer than {AFTER_SECONDS:g} s"
            except ValidationError:
                why = "code of the session has made its interpreter send nonsense"
            self._drop(found)
            raise SandboxUnavailableError(f"The variable {name!r} can't be shown: {why}.")

    def analyse(self, workspace: str, session: str, name: str) -> dict[str, Any]:
        """What the sandbox says of a file: `analysis` and `profile`, or `refused`. It has a process of its own.
        Raises `SandboxUnavailableError`."""
        folder = self._folders.make(workspace, session)
        return self.ask_alone(folder.files.parent.name, {"do": "analyse", "file": name}, ANALYSIS_SECONDS)

    def write_texts(self, folder: SessionFolder, name: str) -> dict[str, Any]:
        """Write the text of a file in `folder` into its state, as `TEXTS`. Returns `kind`, `pages` and `skipped`, or
        `refused`. It has a process of its own. Raises `SandboxUnavailableError`."""
        return self.ask_alone(folder.files.parent.name, {"do": "texts", "file": name}, TEXTS_SECONDS)

    def read_page(self, folder: str, name: str, kind: str, charset: str | None) -> dict[str, Any]:
        """What the sandbox says of a page of the web, a file in a folder beside those of the sessions: `page`, or
        `refused`. It has a process of its own. Raises `SandboxUnavailableError`."""
        asked = {"do": "read_page", "file": name, "kind": kind, "charset": charset}
        return self.ask_alone(folder, asked, PAGE_SECONDS)

    def ask_alone(self, folder: str, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The reply to a message, of a process that does nothing else; `refused` if it has ended, or has not replied
        in time. `folder`: the name of its folder below the one of all sessions. Raises `SandboxUnavailableError`."""
        process = None
        try:
            process = self.start_alone(folder)
            return process.ask(message, seconds, lambda data: None)
        except NoReplyError:
            return {"refused": f"it takes longer than {seconds:g} s."}
        except SandboxEndedError as ended:
            return {"refused": f"{ended}."}
        finally:
            if process is not None:
                process.close()

    def start_alone(self, folder: str) -> SandboxProcess:
        """A process with the folder of that name. It is no session's; the caller closes it. Raises
        `SandboxUnavailableError`, `SandboxEndedError`, `NoReplyError`."""
        process = self._pool.take()
        try:
            process.open(folder)
        except BaseException:
            process.close()
            raise
        return process

    def forget(self, workspace: str, session: str) -> None:
        """End the session's interpreter, before its folder is removed."""
        with self._lock:
            found = self._sessions.pop((workspace, session), None)
        if found is not None:
            found.is_forgotten = True
            if found.watched is not None:
                found.watched.process.kill("its session was deleted")
            with found.lock:
                self._drop(found)

    def health(self) -> dict[str, Any]:
        """What `/health` says."""
        with self._lock:
            live = [one for one in self._sessions.values() if one.watched is not None]
        return {
            "isolation": self._pool.separated_by or None,  # not known before the first one
            "memory_limit": self._pool.limits.held_by,
            "interpreters": len(live),
            "running": sum(one.watched is not None and one.watched.is_running for one in live),
        }

    def open(self) -> None:
        """Make spare sandboxes now, in the background."""
        self._pool.open()

    def close(self) -> None:
        """End all of them."""
        self._closed.set()
        self._watcher.close()
        with self._lock:
            sessions = list(self._sessions.values())
            self._sessions.clear()
        for found in sessions:
            found.is_forgotten = True
            if found.watched is not None:
                found.watched.process.kill("the server is ending")
        self._pool.close()

    # Interpreters

    @contextmanager
    def _locked(self, workspace: str, session: str) -> Iterator[_Session]:
        """The session, with its lock held."""
        while True:
            with self._lock:
                found = self._sessions.setdefault((workspace, session), _Session())
            with found.lock:
                if not found.is_replaced:
                    yield found
                    return

    def _interpreter(self, workspace: str, session: str, found: _Session) -> Watched:
        """The session's interpreter. With the session's lock held."""
        if found.watched is not None and found.watched.process.is_alive:
            return found.watched
        self._drop(found)
        self._take_place(found)
        try:
            watched = self._started(workspace, session, found)
        except BaseException:
            found.has_place = False
            raise
        with self._lock:
            if found.is_forgotten or self._closed.is_set():
                watched.process.close()
                found.has_place = False
                raise SandboxUnavailableError("The session was deleted, or the server is ending.")
            found.watched = watched
            self._watcher.open()
            if self._tidying is None:
                self._tidying = threading.Thread(target=self._tidy, name="sandbox tidying", daemon=True)
                self._tidying.start()
        return watched

    def _started(self, workspace: str, session: str, found: _Session) -> Watched:
        folder = self._folders.make(workspace, session)
        process, found.variables = open_session(self._pool, folder.files.parent.name)
        return Watched(process, [folder.files, folder.state], self._settings.SESSION_FILES_BYTES)

    def _live(self, workspace: str, session: str, found: _Session) -> Watched:
        try:
            return self._interpreter(workspace, session, found)
        except SandboxEndedError as error:
            raise SandboxUnavailableError(f"The session's interpreter can't be started: {error}.") from None

    def _drop(self, found: _Session) -> None:
        """End the session's interpreter. With the session's lock held."""
        watched, found.watched = found.watched, None
        if watched is not None:
            watched.process.close()
        found.has_place = False

    def _all_watched(self) -> list[Watched]:
        with self._lock:
            return [one.watched for one in self._sessions.values() if one.watched is not None]

    def _take_place(self, found: _Session) -> None:
        """Count the session among those with an interpreter. If there are too many, the one that was idle for longest
        is ended. Raises `QueueFullError`."""
        most = self._settings.MAX_SANDBOXES
        while True:
            with self._lock:
                placed = [one for one in self._sessions.values() if one.has_place]
                if len(placed) < most:
                    found.has_place = True
                    return
            if not any(self._drop_if_idle(one) for one in sorted(placed, key=lambda one: one.used)):
                raise QueueFullError(
                    f"All {most} sandboxes are running code (HEARTH_MAX_SANDBOXES). Try again later.", retry_after=5
                )

    def _drop_if_idle(self, found: _Session, unused_since: float = math.inf) -> bool:
        """End the session's interpreter, unless it is in use or was used after that time. Returns whether it was
        ended."""
        if not found.lock.acquire(blocking=False):
            return False
        try:
            if found.watched is None or found.used > unused_since:
                return False
            self._drop(found)
            return True
        finally:
            found.lock.release()

    def _forget_if_idle(self, key: tuple[str, str], found: _Session, unused_since: float) -> None:
        """Forget a session without an interpreter: what is to be known of it is on the disk."""
        if found.lock.acquire(blocking=False):
            with self._lock:
                if found.watched is None and found.used <= unused_since:
                    found.is_replaced = True
                    self._sessions.pop(key, None)
            found.lock.release()

    def _tidy(self) -> None:
        while not self._closed.wait(min(TIDY_SECONDS, self._settings.SANDBOX_IDLE / 4)):
            limit = time.monotonic() - self._settings.SANDBOX_IDLE
            with self._lock:
                sessions = list(self._sessions.items())
            for key, one in sessions:
                self._drop_if_idle(one, limit)
                self._forget_if_idle(key, one, limit)

    def _ended(self, found: _Session, ended: SandboxEndedError) -> CellError:
        """The error of a cell whose interpreter is gone."""
        if isinstance(ended, DamagedVariablesError):
            return CellError(type="VariablesDamaged", message=str(ended))
        watched = found.watched
        reason = str(ended)
        if watched is not None and watched.process.ran_out_of_memory:
            reason = out_of_memory(self._pool.limits)
        self._drop(found)
        return CellError(
            type="InterpreterEnded",
            message=f"The interpreter was ended: {reason}. The next cell starts a new one, with the variables that "
            "were saved after the last cell that ended by itself.",
        )


def _not_shown(name: str, reply: OfVariable) -> NotFoundError:
    if reply.failed is not None:
        return NotFoundError(f"The variable {name!r} can't be shown: {reply.failed}.")
    return NotFoundError(f"The session has no variable {name!r}. GET /sessions/<id>/variables lists them.")


def _outcome(error: CellError | None) -> str:
    """A label for metrics: whatever the code raised is one."""
    if error is None:
        return "succeeded"
    return {"InterpreterEnded": "ended", "TimeoutError": "timed_out"}.get(error.type, "failed")
