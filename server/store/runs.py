"""Records of runs."""

import json
from typing import Any

from sqlalchemy import Connection, func, insert, select

from server.errors import RunNotFoundError
from server.store.database import Database
from server.store.group_writer import Change
from server.store.tables import RUN


class RunStore:
    """A record of every run that has ended. A record is a JSON object with `run_id`, `workspace` and `generation`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: dict[str, Any], also: Change | None = None) -> None:
        """Save a record, and run `also` in the same transaction; both are committed when this returns. Raises
        `StoreError`; then neither is saved."""
        number = select(func.coalesce(func.max(RUN.c.number), 0) + 1).scalar_subquery()
        statement = insert(RUN).values(
            id=record["run_id"],
            number=number,
            workspace=record["workspace"],
            generation=record["generation"],
            record=json.dumps(record),
        )

        def change(connection: Connection) -> None:
            connection.execute(statement)
            if also is not None:
                also(connection)

        self._database.write(change)

    def get(self, run: str) -> dict[str, Any]:
        """The record of the run with that id. Raises `RunNotFoundError`."""
        with self._database.reading() as connection:
            found = connection.execute(select(RUN.c.record).where(RUN.c.id == run)).scalar()
        if found is None:
            raise RunNotFoundError(f"There is no run {run!r}. GET /runs lists those that there are.")
        record: dict[str, Any] = json.loads(found)
        return record

    def latest(self, workspace: str | None, limit: int) -> list[dict[str, Any]]:
        """The records of the last `limit` runs, of one workspace or of all, the latest first."""
        wanted = select(RUN.c.record).order_by(RUN.c.number.desc()).limit(limit)
        if workspace is not None:
            wanted = wanted.where(RUN.c.workspace == workspace)
        with self._database.reading() as connection:
            return [json.loads(found) for found in connection.execute(wanted).scalars()]
