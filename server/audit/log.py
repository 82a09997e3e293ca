"""Recording events, and checking that they are as they were recorded."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from server.errors import StoreError
from server.observability import metrics
from server.store.audit import AuditRow, AuditStore
from server.store.database import Database

log = logging.getLogger(__name__)

FIRST = "0" * 64
"""What stands before the hash of the first event."""
LONGEST_NAME = 1000


@dataclass(frozen=True)
class Checked:
    """What `AuditLog.verify` has found. `count`: events that are intact, from the first one on; `last_hash`: of the
    last one of these. `broken`: the number of the first event that is not, with the `reason`; None if all are."""

    count: int
    last_hash: str
    broken: int | None = None
    reason: str = ""


class AuditLog:
    """The audit log of a database. Safe for any number of threads and servers."""

    def __init__(self, database: Database) -> None:
        self._store = AuditStore(database)

    def record(self, actor: str, act: str, target: str = "", **details: Any) -> None:
        """Save that `actor` did `act`, like `generation.deleted`, to `target`. `details`: JSON values.

        What was done is done: if it can't be saved, nothing is raised. Then the event is logged as an error, counted
        in `hearth_audit_failures_total`, and `/health` has a `store_error`.
        """
        try:
            self._store.append(time.time(), _text(actor), _text(act), _text(target), details, hash_of, FIRST)
        except StoreError as error:
            metrics.AUDIT_FAILURES.inc()
            shown = json.dumps({"actor": actor, "act": act, "target": target, "details": details})
            log.error("an event is not in the audit log: %s %s", error.message, shown)

    def latest(
        self, limit: int, before: int | None = None, actor: str | None = None, act: str | None = None
    ) -> list[dict[str, Any]]:
        """The last events as the routes show them, the latest first. Raises `StoreError`."""
        return [_shown(row) for row in self._store.latest(limit, before, actor, act)]

    def verify(self) -> Checked:
        """Compare all events with their hashes. Raises `StoreError`.

        It can't see that the last events were removed: for that, note count and last hash elsewhere, and look whether
        a later check still has them.
        """
        before, count = FIRST, 0
        with closing(self._store.all()) as rows:
            for row in rows:
                reason = ""
                if row.number != count + 1:
                    reason = f"event {count + 1} is missing"
                elif row.hash != hash_of(row, before):
                    reason = "its hash does not fit: it, or the one before, was changed"
                if reason:
                    return Checked(count, before, row.number, reason)
                before, count = row.hash, count + 1
        return Checked(count, before)


def hash_of(row: AuditRow, before: str) -> str:
    """The hash of an event, in hexadecimal: of the hash before and the event as canonical JSON."""
    event = json.dumps(
        [row.number, row.time, row.actor, row.act, row.target, row.details], separators=(",", ":"), ensure_ascii=True
    )
    return hashlib.sha256(f"{before}\n{event}".encode("ascii")).hexdigest()


def _text(text: str) -> str:
    """A name as every database can store it."""
    return text[:LONGEST_NAME].encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _shown(row: AuditRow) -> dict[str, Any]:
    details: Mapping[str, Any] = json.loads(row.details)
    return {
        "number": row.number,
        "recorded_at": datetime.fromtimestamp(row.time, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z"),
        "actor": row.actor,
        "act": row.act,
        "target": json.loads(row.target),
        "details": details,
        "hash": row.hash,
    }
