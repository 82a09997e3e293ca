"""Waking a session whose jobs have ended: its agent gets a question about them.

A wake is a row of the database; see docs/design/jobs.md. So it survives the run that started the job, and the server.
"""

import json
import logging
import math
import threading
import time

from constants import Settings
from server.bounds import shortened
from server.errors import HearthError, RunCancelledError
from server.jobs.job import Job
from server.runs.questions import Questions
from server.runs.run import Run
from server.store.jobs import JobStore

log = logging.getLogger(__name__)

COLLECT_SECONDS = 0.02
"""Jobs that end within this time wake their session once."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Exponential backoff in seconds after a run that could not tell."""
MOST_TRIES = 8
"""After so many failures in a row a session waits for its next ended job, or for the server's next start."""
LONGEST_RESULT = 4_000
"""Maximum length of a result in the question, in characters."""
QUESTION = "(Not from the user.) These background jobs have ended:\n{jobs}\nTell the user."

Session = tuple[str, str]
"""Workspace and name."""


class Waker:
    """Wakes sessions, on a thread of its own."""

    def __init__(self, settings: Settings, store: JobStore, questions: Questions) -> None:
        self._settings = settings
        self._store = store
        self._questions = questions
        self._runs: dict[Session, Run] = {}
        """The last wake of each session that has unreported jobs."""
        self._failures: dict[Session, tuple[int, float]] = {}
        """How often in a row a wake has failed, and when the next one may begin."""
        self._has_news = False
        self._with_news: set[Session] = set()
        """Sessions with a job that has just ended: what failed before is tried again at once."""
        self._closing = False
        self._changed = threading.Condition()

    def open(self) -> None:
        """Deliver what an earlier server has left, and what comes."""
        self._has_news = True
        threading.Thread(target=self._work, name="wakes", daemon=True).start()

    def notice(self, job: Job) -> None:
        """A job has changed. Returns at once."""
        if job.has_ended and job.wakes:
            with self._changed:
                self._has_news = True
                self._with_news.add((job.workspace, job.session_id or ""))
                self._changed.notify_all()

    def close(self) -> None:
        """Start no more wakes."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._has_news or self._closing, self._pause())
                if self._closing:
                    return
                if self._changed.wait_for(lambda: self._closing, COLLECT_SECONDS):
                    return
                self._has_news = False
            try:
                self._deliver()
            except Exception:  # boundary: the thread's end
                log.exception("sessions can't be woken")
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, FIRST_PAUSE)

    def _pause(self) -> float | None:
        """Seconds until a wake may be over, or may be tried again; None: nothing is left to do."""
        if self._runs:
            return 0.25
        next_try = min((when for _, when in self._failures.values()), default=math.inf)
        return None if next_try == math.inf else max(next_try - time.monotonic(), 0.0)

    def _deliver(self) -> None:
        with self._changed:
            with_news, self._with_news = self._with_news, set()
        for session in with_news:
            self._failures.pop(session, None)
        for session, run in list(self._runs.items()):
            if run.ended.is_set():
                del self._runs[session]
                if run.state != "done":
                    self._failed(session, run.error)
        wanted = self._store.to_wake()
        for session in list(self._failures.keys() - set(wanted)):
            del self._failures[session]
        for session in wanted:
            if session in self._runs or self._failures.get(session, (0, 0.0))[1] > time.monotonic():
                continue
            jobs = self._store.unreported(*session)
            if jobs:
                # Its model may not be there any more.
                self._wake(session, jobs[-1], jobs[-1].model if session not in self._failures else None)

    def _wake(self, session: Session, last: Job, model: str | None) -> None:
        run = Run("(jobs have ended)", session[0], self._settings.MAX_STEPS, last.agent, session_id=session[1])
        run.owner = last.owner
        run.max_tokens, run.timeout = self._settings.MAX_TOKENS, self._settings.RUN_TIMEOUT

        def question() -> str:
            jobs = self._store.unreported(*session)
            if not jobs:
                raise RunCancelledError(
                    "Somebody has asked for the jobs' results meanwhile: there is nothing to tell."
                )
            run.reported_jobs.update(job.id for job in jobs)
            return question_about(jobs)

        run.wake = question
        try:
            self._questions.start(run, model=model)
        except HearthError as error:
            self._failed(session, error)
        else:
            self._runs[session] = run

    def _failed(self, session: Session, error: HearthError | None) -> None:
        count = self._failures.get(session, (0, 0.0))[0] + 1
        pause = min(FIRST_PAUSE * 2 ** (count - 1), LONGEST_PAUSE) if count < MOST_TRIES else math.inf
        self._failures[session] = count, time.monotonic() + pause
        reason = "" if error is None else error.message
        log.warning("the session %s of %s could not be woken, try %d: %s", session[1], session[0], count, reason)


def question_about(jobs: list[Job]) -> str:
    """What the agent reads about ended jobs."""
    return QUESTION.format(jobs="\n".join(f"- {_line(job)}" for job in jobs))


def _line(job: Job) -> str:
    called = f"{job.id}: {job.tool}({', '.join(f'{name}={_short(value)}' for name, value in job.input.items())})"
    if job.state == "succeeded":
        return f"{called} gave {shortened(job.result or '', LONGEST_RESULT)}"
    reason = "" if job.error is None else f": {shortened(str(job.error['message']), LONGEST_RESULT)}"
    return f"{called} {job.state if job.state != 'lost' else 'was lost'}{reason}"


def _short(value: object) -> str:
    return shortened(json.dumps(value, ensure_ascii=False), 200)
