"""Which question of a session is next, and what it knows of those before it."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from server.errors import SessionBusyError
from server.runs import Run
from server.sessions.entry import entry_of
from server.store import SessionStore, Turn
from server.store.group_writer import Change

NOTICE_SECONDS = 0.1
"""How soon it is noticed that a run that waits was stopped."""
MOST_TURNS = 2000
"""How far back a session reaches."""


class Sessions:
    """Answers a session's questions one after the other. Safe for any number of threads."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._lines: dict[tuple[str, str], deque[Run]] = {}
        self._changed = threading.Condition()

    @contextmanager
    def joined(self, run: Run) -> Iterator[None]:
        """Let the run have its place in the line of its session, if it has one; where this raises, it has none."""
        if run.session_id is not None:
            with self._changed:
                self._lines.setdefault((run.workspace, run.session_id), deque()).append(run)
        try:
            yield
        except BaseException:
            self.leave(run)
            raise

    def wait_for(self, run: Run) -> None:
        """Wait until no earlier question of its session is being answered.

        Raises `RunCancelledError` when it is stopped meanwhile.
        """
        if run.session_id is None:
            return
        with self._changed:
            line = self._lines[run.workspace, run.session_id]
            while line[0] is not run:
                run.check()
                run.wait_at(line.index(run))
                self._changed.wait(NOTICE_SECONDS)

    def leave(self, run: Run) -> None:
        """It has ended, and what is kept of it is kept: the next one may go on."""
        if run.session_id is None:
            return
        key = (run.workspace, run.session_id)
        with self._changed:
            line = self._lines.get(key, deque())
            if run in line:
                line.remove(run)
            if not line:
                self._lines.pop(key, None)
            self._changed.notify_all()

    def turns(self, run: Run) -> list[dict[str, Any]]:
        """The exchanges of the run's session before it, the latest last; none where it has no session."""
        if run.session_id is None:
            return []
        return [asdict(turn) for turn in self._store.turns(run.workspace, run.session_id, MOST_TURNS)]

    def adding(self, run: Run, record: dict[str, Any]) -> Change | None:
        """The change that adds what came of a run to its session; None if it has none, or no answer."""
        if run.session_id is None or run.answer is None:
            return None
        turn = Turn(0, run.question, run.answer["answer"], run.id, time.time(), entry_of(record))
        return self._store.adding(run.workspace, run.session_id, turn)

    def delete(self, workspace: str, session: str) -> None:
        """Forget a session. Raises `SessionNotFoundError`, and `SessionBusyError` while it is being asked."""
        with self._changed:
            line = self._lines.get((workspace, session))
            if line:
                raise SessionBusyError(
                    f"Run {line[0].id} is answering a question of the session {session!r}. Wait for it, or cancel it "
                    f"with DELETE /runs/{line[0].id}."
                )
        self._store.delete(workspace, session)
