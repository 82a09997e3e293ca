"""Which question of a session is next, and what it knows of those before it."""

import inspect
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from server.errors import NoHistoryError, PromptTooLongError, SessionBusyError
from server.reload import Generation
from server.runs import AgentResult, Run
from server.runs.agent_call import NOTICE_SECONDS
from server.sessions.entry import entry_of
from server.store import SessionStore, Turn
from server.store.group_writer import Change

SHARES = (1 / 4, 1 / 8, 1 / 16, 0)
"""Of the model's window, what the history takes at most; less where question and tools leave no room for it."""
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

    def ask(self, run: Run, agent: Callable[..., AgentResult], code: Generation, model: Any) -> AgentResult:
        """What `agent` gives for the run's question, and for what was said before it, where there is any.

        The history that a run brings itself comes before its session's. Raises `NoHistoryError`, and what the agent
        raises.
        """
        turns = self._store.turns(run.workspace, run.session_id, MOST_TURNS) if run.session_id is not None else []
        if not turns:
            return _call(agent, run)
        notes = notes_of(code)
        told = [asdict(turn) for turn in turns]
        for share in SHARES:
            # As plain values: what is kept must not hold reloadable code in memory.
            run.recalled = json.loads(json.dumps(notes.recall(model, run.question, told, share))) if share else ()
            try:
                return _call(agent, run)
            except PromptTooLongError:
                if run.steps or not run.recalled:
                    raise
        raise AssertionError("without a history it was answered, or raised")

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


def _call(agent: Callable[..., AgentResult], run: Run) -> AgentResult:
    history = [*run.history, *run.recalled]
    if not history:
        return agent(run.question)
    try:
        inspect.signature(agent).bind(run.question, history)
    except TypeError:
        raise NoHistoryError(
            f"The agent {run.agent!r} takes a question alone, and can't know what was said before it. Let its "
            "__call__ take a history as well, as in server/agent/agent.py, or ask without a session."
        ) from None
    return agent(run.question, history)


def notes_of(code: Generation) -> Any:
    """The module of `code` that says what is remembered, and how. Raises `NoHistoryError` when it has none."""
    try:
        return code.module("agent.notes")
    except KeyError:
        raise NoHistoryError(
            f"Generation {code.hash} has no server/agent/notes.py, which says what of a session a question is shown. "
            "Ask code that has one, or without a session."
        ) from None
