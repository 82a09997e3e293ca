"""Generations on disk, by content, and when each became live."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from server.errors import GenerationInUseError, GenerationNotFoundError
from server.store.database import Database

_SHORTEST_PREFIX = 4
_MOST_CANDIDATES = 5


@dataclass(frozen=True)
class TakeOver:
    """A generation became the live one of a workspace. `time`: seconds since 1970. `runs`: how many recorded runs of
    any workspace it answered. `changed`: the paths of the files that differ from those that were live before it; None
    for the first of a workspace."""

    workspace: str
    generation: str
    time: float
    runs: int
    changed: list[str] | None


class GenerationStore:
    """The files of every generation that was ever live."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take_over(self, workspace: str, generation: str, files: Mapping[str, bytes]) -> None:
        """Keep the files of `generation`, and that it becomes live in `workspace`. Nothing is kept twice.

        Raises `StoreError`.
        """
        digests = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        with self._database.transaction() as connection:
            if connection.execute("SELECT 1 FROM generation WHERE hash=?", [generation]).fetchone() is None:
                connection.execute("INSERT INTO generation VALUES (?)", [generation])
                connection.executemany(
                    "INSERT OR IGNORE INTO blob VALUES (?, ?)", [(digests[path], files[path]) for path in files]
                )
                connection.executemany(
                    "INSERT INTO file VALUES (?, ?, ?)",
                    [(generation, os.fsencode(path), digests[path]) for path in files],
                )
            if _latest(connection, workspace) != generation:
                connection.execute(
                    "INSERT INTO take_over (workspace, generation, time) VALUES (?, ?, ?)",
                    [workspace, generation, time.time()],
                )

    def find(self, prefix: str) -> str:
        """The hash that begins with `prefix`, of at least 4 digits. Raises `GenerationNotFoundError` when there is
        none, or more than one."""
        with self._database.transaction() as connection:
            found = [
                row[0]
                for row in connection.execute(
                    "SELECT hash FROM generation WHERE substr(hash, 1, ?)=? ORDER BY hash LIMIT ?",
                    [len(prefix), prefix, _MOST_CANDIDATES],
                )
            ]
        if prefix in found:
            return prefix
        if len(prefix) < _SHORTEST_PREFIX or not found:
            raise GenerationNotFoundError(
                f"There is no generation {prefix!r}. GET /generations lists those that there are."
            )
        if len(found) > 1:
            raise GenerationNotFoundError(f"More than one generation begins with {prefix!r}: {', '.join(found)}.")
        one: str = found[0]
        return one

    def files(self, generation: str) -> dict[str, bytes]:
        """The files of a generation, by their path below `server/`. Raises `GenerationNotFoundError`."""
        found = self.find(generation)
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT path, data FROM file JOIN blob USING (digest) WHERE generation=?", [found]
            ).fetchall()
        return {os.fsdecode(path): data for path, data in rows}

    def history(self, workspace: str, limit: int) -> list[TakeOver]:
        """The last `limit` times that a generation became live in a workspace, the latest first."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT workspace, generation, time, "
                "(SELECT count(*) FROM run WHERE run.generation=take_over.generation) "
                "FROM take_over WHERE workspace=? ORDER BY id DESC LIMIT ?",
                [workspace, limit + 1],
            ).fetchall()
            files = {
                generation: set(connection.execute("SELECT path, digest FROM file WHERE generation=?", [generation]))
                for generation in {row[1] for row in rows}
            }
        told: list[TakeOver] = []
        for row, before in zip(rows[:limit], [*rows[1:], None], strict=False):
            changed = None
            if before is not None:
                changed = sorted({os.fsdecode(path) for path, _ in files[row[1]] ^ files[before[1]]})
            told.append(TakeOver(row[0], row[1], row[2], row[3], changed))
        return told

    def delete(self, generation: str) -> None:
        """Forget a generation and whatever only it holds. Raises `GenerationInUseError` when a recorded run names
        it."""
        with self._database.transaction() as connection:
            runs = connection.execute("SELECT count(*) FROM run WHERE generation=?", [generation]).fetchone()[0]
            if runs:
                raise GenerationInUseError(
                    f"{runs} recorded runs were answered by generation {generation}, and name it. It is kept."
                )
            connection.execute("DELETE FROM generation WHERE hash=?", [generation])
            connection.execute("DELETE FROM blob WHERE NOT EXISTS (SELECT 1 FROM file WHERE file.digest=blob.digest)")


def _latest(connection: sqlite3.Connection, workspace: str) -> str | None:
    row = connection.execute(
        "SELECT generation FROM take_over WHERE workspace=? ORDER BY id DESC LIMIT 1", [workspace]
    ).fetchone()
    return row[0] if row else None
