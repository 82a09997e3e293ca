"""The order of a session's questions, and their earlier exchanges."""

import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import accumulate
from typing import Any, Literal

from server.bounds import characters
from server.errors import SessionBusyError
from server.runs import Run
from server.sessions.notepad import entry_of
from server.store import Exchange, SessionStore
from server.store.group_writer import Change

NOTICE_SECONDS = 0.1
"""Interval of the checks whether a waiting run was stopped."""
MAX_EXCHANGES = 2000
"""Maximum number of earlier exchanges that a question gets."""
MAX_CHARACTERS = 4_000_000
"""Maximum length of their texts, far more than any model reads; the latest one comes in any case."""


class Sessions:
    """Answers a session's questions one after the other. Safe for any number of threads."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._lines: dict[tuple[str, str], deque[Run]] = {}
        self._changed = threading.Condition()

    @contextmanager
    def joined(self, run: Run) -> Iterator[None]:
        """Add the run to the line of its session, if it has one. If the body raises, the run is removed again."""
        if run.session_id is not None:
            with self._changed:
                self._lines.setdefault((run.workspace, run.session_id), deque()).append(run)
        try:
            yield
        except BaseException:
            self.leave(run)
            raise

    def wait_for(self, run: Run) -> None:
        """Wait for the earlier questions of its session.

        Raises `RunCancelledError` if it is stopped meanwhile.
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
        """Remove a run that has ended and was saved, so that the next one continues."""
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

    def exchanges(self, run: Run) -> list[dict[str, Any]]:
        """The earlier exchanges of the run's session, the latest last; none without a session."""
        if run.session_id is None:
            return []
        found = [asdict(one) for one in self._store.exchanges(run.workspace, run.session_id, MAX_EXCHANGES)]
        length = list(accumulate(characters(one) for one in reversed(found)))
        return found[-max(1, bisect_right(length, MAX_CHARACTERS)) :]

    def adding(self, run: Run, record: dict[str, Any]) -> Change | None:
        """The change that adds a run's exchange to its session; None without a session or an answer."""
        if run.session_id is None or run.answer is None:
            return None
        asker: Literal["user", "system"] = "user" if run.wake is None else "system"
        exchange = Exchange(0, run.question, run.answer["answer"], run.id, time.time(), entry_of(record), asker)
        return self._store.adding(run.workspace, run.session_id, run.owner, exchange)

    def delete(self, workspace: str, session: str) -> None:
        """Delete a session. Raises `SessionNotFoundError`, and `SessionBusyError` while one of its runs is in
        flight."""
        with self._changed:
            line = self._lines.get((workspace, session))
            if line:
                raise SessionBusyError(
                    f"Run {line[0].id} is answering a question of the session {session!r}. Wait for it, or cancel it "
                    f"with DELETE /runs/{line[0].id}."
                )
        self._store.delete(workspace, session)
