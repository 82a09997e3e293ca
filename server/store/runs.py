"""Records of runs on disk."""

import json
from typing import Any

from server.errors import RunNotFoundError
from server.store.database import Database


class RunStore:
    """A record of every run that has ended. A record is a JSON object with `run_id`, `workspace` and `generation`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record. Raises `StoreError`."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO run SELECT ?, coalesce(max(number), 0) + 1, ?, ?, ? FROM run",
                [record["run_id"], record["workspace"], record["generation"], json.dumps(record)],
            )

    def get(self, run: str) -> dict[str, Any]:
        """The record of the run with that id. Raises `RunNotFoundError`."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT record FROM run WHERE id=?", [run]).fetchone()
        if row is None:
            raise RunNotFoundError(f"There is no run {run!r}. GET /runs lists those that there are.")
        record: dict[str, Any] = json.loads(row[0])
        return record

    def latest(self, workspace: str | None, limit: int) -> list[dict[str, Any]]:
        """The records of the last `limit` runs, of a workspace or of all, the latest first."""
        where, values = ("WHERE workspace=?", [workspace]) if workspace is not None else ("", [])
        with self._database.transaction() as connection:
            rows = connection.execute(
                f"SELECT record FROM run {where} ORDER BY number DESC LIMIT ?", [*values, limit]
            ).fetchall()
        return [json.loads(row[0]) for row in rows]
