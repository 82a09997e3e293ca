"""Records of runs."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select

from server.errors import RunNotFoundError, StoreError
from server.runs.record import summary_of
from server.runs.trace import Line, TracedCall, lines
from server.store.database import Database, storable
from server.store.group_writer import Change
from server.store.ownership import Reader
from server.store.tables import RUN, STEP
from server.store.traces import adding

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFilter:
    """Which runs are listed; None: all. `text`: a part of the question, in any case. `since`: when it was asked at
    the earliest, in seconds since 1970. `before`: only runs that ended before that one."""

    workspace: str | None = None
    state: str | None = None
    agent: str | None = None
    model: str | None = None
    session_id: str | None = None
    text: str | None = None
    since: float | None = None
    before: str | None = None
    reader: Reader | None = None
    """Whose runs they are."""

    def shows(self, owner: str) -> bool:
        """Whether runs of that person are among them."""
        return self.reader is None or self.reader.owns(owner)

    def matches(self, record: dict[str, Any]) -> bool:
        """Whether a run in flight is among them, which ends after all that have ended."""
        wanted = {
            "workspace": self.workspace,
            "state": self.state,
            "agent": self.agent,
            "model": self.model,
            "session_id": self.session_id,
        }
        return (
            all(value is None or record.get(name) == value for name, value in wanted.items())
            and (self.text is None or searched(self.text) in searched(record["question"]))
            and (self.since is None or record["asked"] >= self.since)
            and self.before is None
        )


class RunStore:
    """A record of every run that has ended. A record is a JSON object with `run_id`, `workspace` and `generation`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        record: dict[str, Any],
        owner: str,
        also: Sequence[Change] = (),
        step_lines: Sequence[Line] | None = None,
        calls: Sequence[TracedCall] = (),
    ) -> None:
        """Save a record for its owner, with its model calls, and run `also` in the same transaction. When this
        returns, all are committed. `step_lines`: of the record's steps; default: as they follow from these. Raises
        `StoreError`; then nothing is saved."""
        steps = record.get("steps", [])
        number = select(func.coalesce(func.max(RUN.c.number), 0) + 1).scalar_subquery()
        statement = insert(RUN).values(
            id=record["run_id"],
            number=number,
            workspace=record["workspace"],
            owner=owner,
            generation=record["generation"],
            record=json.dumps({**record, "steps": []} if steps else record),
            summary=json.dumps(summary_of(record)),
            state=record.get("state"),
            agent=storable(record.get("agent")),
            model=storable(record.get("model")),
            session=storable(record.get("session_id")),
            searched=searched(record.get("question", "")),
            asked=record.get("asked"),
        )
        trace = adding(record["run_id"], steps, lines(steps) if step_lines is None else step_lines, calls)

        def change(connection: Connection) -> None:
            connection.execute(statement)
            for other in (trace, *also):
                other(connection)

        self._database.write(change)

    def head(self, run: str) -> dict[str, Any]:
        """The record of a run without its steps, unless an earlier version has saved it. Raises what `get` raises."""
        with self._database.reading() as connection:
            return _found(run, connection.execute(select(RUN.c.record).where(RUN.c.id == storable(run))).scalar())

    def get(self, run: str) -> dict[str, Any]:
        """The record of the run with that id. Raises `RunNotFoundError`, and `StoreError` if it can't be read."""
        with self._database.reading() as connection:
            found = connection.execute(select(RUN.c.record).where(RUN.c.id == run)).scalar()
            steps = connection.execute(select(STEP.c.step).where(STEP.c.run == run).order_by(STEP.c.number)).scalars()
            texts = list(steps)
        record = _found(run, found)
        if texts:
            try:
                record["steps"] = [json.loads(text) for text in texts]
            except ValueError:
                raise StoreError(f"The steps of run {run!r} can't be read.") from None
        return record

    def latest(self, wanted: RunFilter, limit: int) -> list[dict[str, Any]]:
        """Summaries of the last `limit` runs, the latest first. A run that can't be read is left out. Raises
        `RunNotFoundError` if there is no run `before` which they should have ended."""
        shown = func.coalesce(RUN.c.summary, RUN.c.record)
        query = select(RUN.c.id, shown, RUN.c.summary.is_(None)).order_by(RUN.c.number.desc()).limit(limit)
        summaries = []
        with self._database.reading() as connection:
            for run, found, is_record in connection.execute(self._where(connection, query, wanted)):
                if (record := _read(found)) is None:
                    log.warning("the record of run %s can't be read", run)
                else:
                    summaries.append(summary_of(record) if is_record else record)
        return summaries

    def _where(self, connection: Connection, query: Select[Any], wanted: RunFilter) -> Select[Any]:
        columns = {
            RUN.c.workspace: wanted.workspace,
            RUN.c.state: wanted.state,
            RUN.c.agent: wanted.agent,
            RUN.c.model: wanted.model,
            RUN.c.session: wanted.session_id,
        }
        for column, value in columns.items():
            if value is not None:
                query = query.where(column == storable(value))
        if wanted.reader is not None:
            query = query.where(wanted.reader.sees(RUN.c.owner, RUN.c.workspace))
        if wanted.text is not None:
            query = query.where(RUN.c.searched.contains(searched(wanted.text), autoescape=True))
        if wanted.since is not None:
            query = query.where(RUN.c.asked >= wanted.since)
        if wanted.before is not None:
            number = connection.execute(select(RUN.c.number).where(RUN.c.id == storable(wanted.before))).scalar()
            if number is None:
                raise run_not_found(wanted.before)
            query = query.where(RUN.c.number < number)
        return query


def _found(run: str, text: str | None) -> dict[str, Any]:
    if text is None:
        raise run_not_found(run)
    record = _read(text)
    if record is None:
        raise StoreError(f"The record of run {run!r} can't be read.")
    return record


def run_not_found(run: str) -> RunNotFoundError:
    """The error for an id that no run has."""
    return RunNotFoundError(f"There is no run {run!r}. GET /runs lists those that there are.")


def searched(question: str) -> str:
    """A question, or a part of one, in the form in which it is searched."""
    return str(storable(question)).lower()


def _read(text: str) -> dict[str, Any] | None:
    """A record; None for what is none."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "run_id" in record else None
