"""Records of runs."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select

from server.errors import RunNotFoundError, StoreError
from server.runs.record import summary_of
from server.store.database import Database
from server.store.group_writer import Change
from server.store.ownership import Reader
from server.store.tables import RUN

log = logging.getLogger(__name__)


class RunStore:
    """A record of every run that has ended. A record is a JSON object with `run_id`, `workspace` and `generation`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: dict[str, Any], owner: str, also: Sequence[Change] = ()) -> None:
        """Save a record for its owner, and run `also` in the same transaction. All are committed when this returns.
        Raises `StoreError`; then nothing is saved."""
        number = select(func.coalesce(func.max(RUN.c.number), 0) + 1).scalar_subquery()
        statement = insert(RUN).values(
            id=record["run_id"],
            number=number,
            workspace=record["workspace"],
            owner=owner,
            generation=record["generation"],
            record=json.dumps(record),
            summary=json.dumps(summary_of(record)),
        )

        def change(connection: Connection) -> None:
            connection.execute(statement)
            for other in also:
                other(connection)

        self._database.write(change)

    def get(self, run: str) -> dict[str, Any]:
        """The record of the run with that id. Raises `RunNotFoundError`, and `StoreError` if it can't be read."""
        with self._database.reading() as connection:
            found = connection.execute(select(RUN.c.record).where(RUN.c.id == run)).scalar()
        if found is None:
            raise RunNotFoundError(f"There is no run {run!r}. GET /runs lists those that there are.")
        record = _read(found)
        if record is None:
            raise StoreError(f"The record of run {run!r} can't be read.")
        return record

    def latest(self, workspace: str | None, limit: int, reader: Reader | None = None) -> list[dict[str, Any]]:
        """Summaries of the last `limit` runs, of one workspace or of all, the latest first; only those of `reader`.
        A run that can't be read is left out."""
        shown = func.coalesce(RUN.c.summary, RUN.c.record)
        wanted = select(RUN.c.id, shown, RUN.c.summary.is_(None)).order_by(RUN.c.number.desc()).limit(limit)
        if workspace is not None:
            wanted = wanted.where(RUN.c.workspace == workspace)
        if reader is not None:
            wanted = wanted.where(reader.sees(RUN.c.owner, RUN.c.workspace))
        summaries = []
        with self._database.reading() as connection:
            for run, found, is_record in connection.execute(wanted):
                if (record := _read(found)) is None:
                    log.warning("the record of run %s can't be read", run)
                else:
                    summaries.append(summary_of(record) if is_record else record)
        return summaries


def _read(text: str) -> dict[str, Any] | None:
    """A record; None for what is none."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "run_id" in record else None
