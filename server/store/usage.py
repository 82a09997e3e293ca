"""What people have used, by day, and the quotas that limit it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from server.store.database import Database
from server.store.group_writer import Change
from server.store.tables import QUOTA, USAGE

By = Literal["person", "key", "model", "day"]
COUNTED = ("tokens_processed", "tokens_written", "runs", "job_seconds")


@dataclass(frozen=True)
class Used:
    """What a run, a job or a call of a tool has used. `tokens_processed`: written ones, and prompts without their
    cached tokens."""

    person: str
    key: str = ""
    model: str = ""
    tokens_processed: int = 0
    tokens_written: int = 0
    runs: int = 0
    job_seconds: float = 0.0


def adding(used: Used) -> Change:
    """The change that adds `used` to the numbers of today, in UTC."""
    row = {**asdict(used), "day": today()}

    def change(connection: Connection) -> None:
        # Both databases say it in the same words, and SQLAlchemy has a construct for each.
        dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
        sums = {name: USAGE.c[name] + row[name] for name in COUNTED}
        connection.execute(
            dialect.insert(USAGE).values(row).on_conflict_do_update(index_elements=USAGE.primary_key, set_=sums)
        )

    return change


def today() -> str:
    """The day of UTC, like 2026-01-31."""
    return datetime.now(UTC).date().isoformat()


class UsageStore:
    """Reads what was used, and adds what no record says."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, used: Used) -> None:
        """Add to the numbers of today. Raises `StoreError`."""
        self._database.write(adding(used))

    def tokens_today(self, person: str) -> int:
        """The tokens that a person's runs, jobs and calls of tools have processed today. Raises `StoreError`."""
        wanted = select(func.coalesce(func.sum(USAGE.c.tokens_processed), 0))
        with self._database.reading() as connection:
            found = connection.execute(wanted.where(USAGE.c.person == person, USAGE.c.day == today())).scalar_one()
        return int(found)

    def summed(
        self, by: By, person: str | None, since: str | None, limit: int, after: str | None
    ) -> list[dict[str, Any]]:
        """Sums for each value of `by`, in its order: of a person or of all, from the day `since` on. The first
        `limit` values that come after `after`."""
        column = USAGE.c[by]
        wanted = select(column, *(func.sum(USAGE.c[name]).label(name) for name in COUNTED))
        for condition in (
            None if person is None else USAGE.c.person == person,
            None if since is None else USAGE.c.day >= since,
            None if after is None else column > after,
        ):
            if condition is not None:
                wanted = wanted.where(condition)
        with self._database.reading() as connection:
            rows = connection.execute(wanted.group_by(column).order_by(column).limit(limit)).all()
        # PostgreSQL's sum of integers is a decimal number.
        return [
            {by: row[0], **{name: int(row._mapping[name]) for name in COUNTED[:-1]}, "job_seconds": float(row[-1])}
            for row in rows
        ]


class QuotaStore:
    """The limits of roles and people, as JSON objects by their names."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """The limits of those of `names` that have some. Raises `StoreError`."""
        with self._database.reading() as connection:
            rows = connection.execute(select(QUOTA).where(QUOTA.c.name.in_(names)))
            return {row.name: json.loads(row.limits) for row in rows}

    def all(self, limit: int, after: str | None) -> dict[str, dict[str, int]]:
        """The first `limit` ones after the name `after`, by name."""
        wanted = select(QUOTA).order_by(QUOTA.c.name).limit(limit)
        if after is not None:
            wanted = wanted.where(QUOTA.c.name > after)
        with self._database.reading() as connection:
            return {row.name: json.loads(row.limits) for row in connection.execute(wanted)}

    def put(self, name: str, limits: Mapping[str, int]) -> None:
        """Replace the limits of a name; without any, it has none. Raises `StoreError`."""

        def change(connection: Connection) -> None:
            connection.execute(delete(QUOTA).where(QUOTA.c.name == name))
            if limits:
                connection.execute(QUOTA.insert().values(name=name, limits=json.dumps(dict(limits))))

        self._database.write(change)
