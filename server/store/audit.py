"""The rows of the audit log."""

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from server.store.database import Database
from server.store.tables import AUDIT

BATCH = 500
"""Rows that are in memory at once when all are read."""


@dataclass(frozen=True)
class AuditRow:
    """An event. `time`: seconds since 1970. `target` and `details` as the database has them: JSON."""

    number: int
    time: float
    actor: str
    act: str
    target: str
    details: str
    hash: str


Hasher = Callable[[AuditRow, str], str]
"""The hash of a row, whose `hash` is ignored, given the one of the row before."""


class AuditStore:
    """Appends rows and reads them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(
        self, time: float, actor: str, act: str, target: str, details: Mapping[str, Any], hash_of: Hasher, first: str
    ) -> None:
        """Add an event after the last one. `first`: what stands before the first row's hash. Raises `StoreError`."""
        target, shown = json.dumps(target), json.dumps(details, sort_keys=True)

        def change(connection: Connection) -> None:
            # Writers to a database wait for each other, so nobody else comes in between.
            last = connection.execute(
                select(AUDIT.c.number, AUDIT.c.hash).order_by(AUDIT.c.number.desc()).limit(1)
            ).one_or_none()
            number, before = (1, first) if last is None else (last.number + 1, last.hash)
            row = AuditRow(number, time, actor, act, target, shown, "")
            connection.execute(insert(AUDIT).values({**vars(row), "hash": hash_of(row, before)}))

        self._database.write(change)

    def latest(self, limit: int, before: int | None, actor: str | None, act: str | None) -> list[AuditRow]:
        """The last `limit` events, the latest first: those before number `before`, of that actor and of that act."""
        wanted = select(AUDIT).order_by(AUDIT.c.number.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(AUDIT.c.number < before)
        if actor is not None:
            wanted = wanted.where(AUDIT.c.actor == actor)
        if act is not None:
            wanted = wanted.where(AUDIT.c.act == act)
        with self._database.reading() as connection:
            return [_as_row(row) for row in connection.execute(wanted)]

    def all(self) -> Generator[AuditRow, None, None]:
        """All events of one moment, the first one first."""
        wanted, last = select(AUDIT).order_by(AUDIT.c.number).limit(BATCH), None
        with self._database.reading() as connection:
            while rows := connection.execute(wanted if last is None else wanted.where(AUDIT.c.number > last)).all():
                yield from map(_as_row, rows)
                last = rows[-1].number


def _as_row(row: Row[Any]) -> AuditRow:
    return AuditRow(**row._mapping)
