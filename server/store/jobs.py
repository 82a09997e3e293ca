"""Jobs, the wakes that their ends leave, and the values that a session shares."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from server.errors import JobNotFoundError
from server.jobs.job import ENDED, Job, State
from server.store.database import Database
from server.store.group_writer import Change
from server.store.ownership import Reader
from server.store.tables import JOB, WAKE

_COLUMNS = ("id", "workspace", "owner", "generation", "state", "tries", "created", "started", "ended")
_DETAILS = (
    "tool", "input", "timeout", "wakes", "agent", "model", "priority", "idempotent", "retry_of", "traceparent",
)  # fmt: skip


class JobStore:
    """All jobs. Each change names the state that it expects, so that the first one counts."""

    def __init__(self, database: Database, server: str) -> None:
        """`server`: what names this server among those that share the database, also after a restart."""
        self._database = database
        self._server = server

    def add(self, job: Job) -> None:
        """Save a new job. Raises `StoreRefusedError` if there is one of its name, or if its generation is gone;
        `StoreError`."""
        values = asdict(job)
        row = {
            **{name: values[name] for name in _COLUMNS},
            "number": select(func.coalesce(func.max(JOB.c.number), 0) + 1).scalar_subquery(),
            "server": self._server,
            "session": job.session_id,
            "run": job.run_id,
            "details": json.dumps({name: values[name] for name in _DETAILS}),
        }
        self._database.write(lambda connection: _execute(connection, insert(JOB).values(row)))

    def start(self, job: str) -> bool:
        """From queued to running. Returns False if it isn't queued. Raises `StoreError`."""
        values = {"state": "running", "started": time.time(), "tries": JOB.c.tries + 1}
        return self._change(job, ["queued"], values)

    def requeue(self, job: str) -> bool:
        """From running to queued, since its server ends. Returns False if it isn't running. Raises `StoreError`."""
        return self._change(job, ["running"], {"state": "queued", "started": None, "progress": None})

    def end(
        self,
        job: Job,
        expected: Sequence[State],
        state: State,
        *,
        result: str | None = None,
        error: Mapping[str, Any] | None = None,
        log: str | None = None,
        progress: Mapping[str, Any] | None = None,
        also: Sequence[Change] = (),
    ) -> bool:
        """End a job whose state is one of `expected`, leave a wake if it wakes its session, and run `also` in the
        same transaction. Returns False if it has another state; then nothing changes. Raises `StoreError`."""
        values: dict[str, Any] = {"state": state, "ended": time.time()}
        values["outcome"] = json.dumps({"result": result, "error": error})
        if log is not None:
            values["log"] = json.dumps(log)
        if progress is not None:
            values["progress"] = json.dumps(progress)
        wake = None
        if job.wakes and job.session_id is not None:
            wake = {"job": job.id, "workspace": job.workspace, "session": job.session_id}
        return self._change(job.id, expected, values, wake, also)

    def _change(
        self,
        job: str,
        expected: Sequence[State],
        values: Mapping[str, Any],
        wake: Mapping[str, Any] | None = None,
        also: Sequence[Change] = (),
    ) -> bool:
        changed = False

        def change(connection: Connection) -> None:
            nonlocal changed
            wanted = update(JOB).where(JOB.c.id == job, JOB.c.state.in_(list(expected))).values(**values)
            changed = connection.execute(wanted).rowcount == 1
            if changed and wake is not None:
                connection.execute(insert(WAKE).values(wake))
            if changed:
                for other in also:
                    other(connection)

        self._database.write(change)
        return changed

    def note(self, states: Mapping[str, tuple[Mapping[str, Any] | None, str]]) -> None:
        """Save progress and log of running jobs, by their names. Raises `StoreError`."""

        def change(connection: Connection) -> None:
            for job, (progress, log) in states.items():
                values = {"log": json.dumps(log), "progress": None if progress is None else json.dumps(progress)}
                connection.execute(update(JOB).where(JOB.c.id == job, JOB.c.state == "running").values(**values))

        self._database.write(change)

    def get(self, job: str) -> Job:
        """The job of that name. Raises `JobNotFoundError`, `StoreError`."""
        with self._database.reading() as connection:
            row = connection.execute(select(JOB).where(JOB.c.id == job)).one_or_none()
        if row is None:
            raise JobNotFoundError(f"There is no job {job!r}. GET /jobs lists those that there are.")
        return _as_job(row)

    def log(self, job: str) -> str:
        """What a job has printed, as far as it is saved. Raises `JobNotFoundError`."""
        with self._database.reading() as connection:
            row = connection.execute(select(JOB.c.log).where(JOB.c.id == job)).one_or_none()
        if row is None:
            raise JobNotFoundError(f"There is no job {job!r}. GET /jobs lists those that there are.")
        return "" if row.log is None else str(json.loads(row.log))

    def latest(
        self,
        limit: int,
        *,
        states: Sequence[State] = (),
        session_id: str | None = None,
        workspace: str | None = None,
        run_id: str | None = None,
        before: str | None = None,
        reader: Reader | None = None,
    ) -> list[Job]:
        """The last `limit` jobs, the latest first; those that came before the job `before`; only those that `reader`
        sees."""
        wanted = select(JOB).order_by(JOB.c.number.desc()).limit(limit)
        if states:
            wanted = wanted.where(JOB.c.state.in_(list(states)))
        if session_id is not None:
            wanted = wanted.where(JOB.c.session == session_id)
        if workspace is not None:
            wanted = wanted.where(JOB.c.workspace == workspace)
        if run_id is not None:
            wanted = wanted.where(JOB.c.run == run_id)
        if reader is not None:
            wanted = wanted.where(reader.sees(JOB.c.owner, JOB.c.workspace, JOB.c.session))
        if before is not None:
            wanted = wanted.where(JOB.c.number < select(JOB.c.number).where(JOB.c.id == before).scalar_subquery())
        with self._database.reading() as connection:
            return [_as_job(row) for row in connection.execute(wanted)]

    def left_over(self) -> list[Job]:
        """The jobs of this server that have not ended, in the order of their arrival."""
        wanted = select(JOB).where(JOB.c.server == self._server, JOB.c.state.not_in(ENDED)).order_by(JOB.c.number)
        with self._database.reading() as connection:
            return [_as_job(row) for row in connection.execute(wanted)]

    # Wakes

    def to_wake(self) -> list[tuple[str, str]]:
        """Workspace and name of the sessions that this server is to wake."""
        wanted = select(WAKE.c.workspace, WAKE.c.session).join(JOB, JOB.c.id == WAKE.c.job)
        with self._database.reading() as connection:
            rows = connection.execute(wanted.where(JOB.c.server == self._server).distinct())
            return [(row.workspace, row.session) for row in rows]

    def unreported(self, workspace: str, session: str) -> list[Job]:
        """The ended jobs that were not reported in a session, in the order of their arrival."""
        wanted = select(JOB).join(WAKE, WAKE.c.job == JOB.c.id).order_by(JOB.c.number)
        with self._database.reading() as connection:
            found = connection.execute(wanted.where(WAKE.c.workspace == workspace, WAKE.c.session == session))
            return [_as_job(row) for row in found]


def reported(jobs: Collection[str]) -> Change:
    """The change by which these jobs wake nobody any more."""

    def change(connection: Connection) -> None:
        connection.execute(delete(WAKE).where(WAKE.c.job.in_(list(jobs))))

    return change


def _execute(connection: Connection, statement: Any) -> None:
    connection.execute(statement)


def _as_job(row: Row[Any]) -> Job:
    outcome = json.loads(row.outcome) if row.outcome is not None else {}
    return Job(
        **{name: getattr(row, name) for name in _COLUMNS},
        **json.loads(row.details),
        session_id=row.session,
        run_id=row.run,
        progress=None if row.progress is None else json.loads(row.progress),
        result=outcome.get("result"),
        error=outcome.get("error"),
    )
