"""Generations, by content, and when each became live."""

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, exists, func, insert, or_, select

from server.errors import FileNotInGenerationError, GenerationInUseError, GenerationNotFoundError
from server.store.database import Database
from server.store.tables import BLOB, COMPARISON, FILE, GENERATION, JOB, RUN, TAKE_OVER

_SHORTEST_PREFIX = 4
_MOST_CANDIDATES = 5


@dataclass(frozen=True)
class WentLive:
    """A generation became the live one of a workspace. `time`: seconds since 1970. `runs`: how many recorded runs of
    any workspace it answered. `changed`: the paths of the files that differ from those that were live before it; None
    for the first of a workspace."""

    generation: str
    time: float
    runs: int
    changed: list[str] | None


class GenerationStore:
    """The files of every generation that was ever live."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_live(self, workspace: str, generation: str, files: Mapping[str, bytes]) -> None:
        """Save the files of `generation`, and that it becomes live in `workspace`. No file is saved twice.

        Raises `StoreError`.
        """
        with self._database.writing() as connection:
            known = select(GENERATION.c.hash).where(GENERATION.c.hash == generation)
            if connection.execute(known).scalar() is None:
                _add(connection, generation, files)
            if _latest(connection, workspace) != generation:
                row = {"workspace": workspace, "generation": generation, "time": time.time()}
                connection.execute(insert(TAKE_OVER).values(row))

    def find(self, prefix: str) -> str:
        """The hash that begins with `prefix`, of at least 4 digits. Raises `GenerationNotFoundError` when there is
        none, or more than one."""
        begins_so = func.substr(GENERATION.c.hash, 1, len(prefix)) == prefix
        wanted = select(GENERATION.c.hash).where(begins_so).order_by(GENERATION.c.hash).limit(_MOST_CANDIDATES)
        with self._database.reading() as connection:
            found = list(connection.execute(wanted).scalars())
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
        """The files of a generation, which `find` finds, by their path below `server/`. Raises
        `GenerationNotFoundError`."""
        wanted = select(FILE.c.path, BLOB.c.data).join(BLOB).where(FILE.c.generation == self.find(generation))
        with self._database.reading() as connection:
            return {os.fsdecode(path): data for path, data in connection.execute(wanted)}

    def sizes(self, generation: str) -> dict[str, int]:
        """The paths of a generation's files in order, each with its bytes. Raises `GenerationNotFoundError`."""
        wanted = select(FILE.c.path, func.length(BLOB.c.data)).join(BLOB)
        with self._database.reading() as connection:
            rows = connection.execute(wanted.where(FILE.c.generation == self.find(generation))).all()
        return dict(sorted((os.fsdecode(path), size) for path, size in rows))

    def file(self, generation: str, path: str) -> bytes:
        """A file of a generation. Raises `GenerationNotFoundError`, `FileNotInGenerationError`."""
        found = self.find(generation)
        wanted = select(BLOB.c.data).join(FILE).where(FILE.c.generation == found)
        with self._database.reading() as connection:
            data = connection.execute(wanted.where(FILE.c.path == os.fsencode(path))).scalar()
        if data is None:
            raise FileNotInGenerationError(f"Generation {found} has no file {path!r}.")
        one: bytes = data
        return one

    def history(self, workspace: str, limit: int) -> list[WentLive]:
        """The last `limit` times that a generation became live in a workspace, the latest first."""
        wanted = (
            select(TAKE_OVER.c.generation, TAKE_OVER.c.time)
            .where(TAKE_OVER.c.workspace == workspace)
            .order_by(TAKE_OVER.c.id.desc())
            .limit(limit + 1)
        )
        with self._database.reading() as connection:
            rows = connection.execute(wanted).all()
            named = {row[0] for row in rows}
            files: dict[str, set[tuple[bytes, str]]] = {generation: set() for generation in named}
            for generation, path, digest in connection.execute(
                select(FILE.c.generation, FILE.c.path, FILE.c.digest).where(FILE.c.generation.in_(named))
            ):
                files[generation].add((path, digest))
            counted = select(RUN.c.generation, func.count()).where(RUN.c.generation.in_(named))
            runs = {generation: count for generation, count in connection.execute(counted.group_by(RUN.c.generation))}
        found: list[WentLive] = []
        for row, before in zip(rows[:limit], [*rows[1:], None], strict=False):
            generation, since = row
            changed = None
            if before is not None:
                changed = sorted({os.fsdecode(path) for path, _ in files[generation] ^ files[before[0]]})
            found.append(WentLive(generation, since, runs.get(generation, 0), changed))
        return found

    def delete(self, generation: str) -> None:
        """Delete a generation and the files that only it has. Raises `GenerationInUseError` if a recorded run,
        a job or a comparison names it, or if it was the last live one of a workspace: it may be live in another
        server with this database."""
        with self._database.writing() as connection:
            runs = connection.execute(select(func.count()).where(RUN.c.generation == generation)).scalar_one()
            if runs:
                raise GenerationInUseError(
                    f"{runs} recorded runs were answered by generation {generation}. It can't be deleted."
                )
            jobs = connection.execute(select(func.count()).where(JOB.c.generation == generation)).scalar_one()
            if jobs:
                raise GenerationInUseError(f"{jobs} jobs belong to generation {generation}. It can't be deleted.")
            compared = or_(COMPARISON.c.generation_a == generation, COMPARISON.c.generation_b == generation)
            if count := connection.execute(select(func.count()).where(compared)).scalar_one():
                raise GenerationInUseError(
                    f"{count} comparisons are of generation {generation}. It can't be deleted."
                )
            last = select(func.max(TAKE_OVER.c.id)).group_by(TAKE_OVER.c.workspace)
            is_last = TAKE_OVER.c.id.in_(last), TAKE_OVER.c.generation == generation
            if workspace := connection.execute(select(TAKE_OVER.c.workspace).where(*is_last)).scalar():
                raise GenerationInUseError(
                    f"Generation {generation} was the last live one of {workspace}, here or in another server. It "
                    "can't be deleted."
                )
            connection.execute(delete(GENERATION).where(GENERATION.c.hash == generation))
            connection.execute(delete(BLOB).where(~exists().where(FILE.c.digest == BLOB.c.digest)))


def _add(connection: Connection, generation: str, files: Mapping[str, bytes]) -> None:
    connection.execute(insert(GENERATION).values(hash=generation))
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    data = {digests[path]: files[path] for path in files}
    kept = set(connection.execute(select(BLOB.c.digest).where(BLOB.c.digest.in_(data))).scalars())
    new = [{"digest": digest, "data": data[digest]} for digest in data if digest not in kept]
    if new:
        connection.execute(insert(BLOB), new)
    if files:
        rows = [{"generation": generation, "path": os.fsencode(path), "digest": digests[path]} for path in files]
        connection.execute(insert(FILE), rows)


def _latest(connection: Connection, workspace: str) -> str | None:
    wanted = select(TAKE_OVER.c.generation).where(TAKE_OVER.c.workspace == workspace)
    return connection.execute(wanted.order_by(TAKE_OVER.c.id.desc()).limit(1)).scalar()
