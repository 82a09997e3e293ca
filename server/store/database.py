"""The database connection: reading and writing transactions."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from server.errors import StoreError, StoreRefusedError
from server.observability.logs import hide, redacted
from server.store.group_writer import GroupWriter
from server.store.schema import bring_to_latest, is_latest

BUSY_SECONDS = 5.0
"""Timeout of a writer that waits for another one, of any process; of waiting for a connection; and of a statement on
PostgreSQL."""
_LOCK = 0x48656172_7468
"""The advisory lock of writers to a PostgreSQL database, so that they write one at a time, as in SQLite."""
_LIMITS = ("lock_timeout", "statement_timeout")


class Database:
    """The file `hearth.db` in a folder, or a PostgreSQL database. An empty one gets its tables. Safe for any number
    of threads, and for several servers on one database.

    Readers see a snapshot of one moment, and never wait for writers.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        """`url`: of a PostgreSQL database, like `postgresql://user:password@host/name`.

        Raises `StoreError` if it can't be used, or if a newer Hearth has written it.
        """
        self.failure: str | None = None
        """Why the last change could not be saved; None if it was. Refused changes do not count."""
        self._one_at_a_time = threading.Lock()
        # One wait for those before, one of one's own, and the work itself.
        self._group = GroupWriter(self.writing, 3 * BUSY_SECONDS)
        if url is None:
            path = folder / "hearth.db"
            self.name, setting = str(path), "HEARTH_DATA_DIR chooses another folder."
            engine = _sqlite(path)
        else:
            parsed = make_url(url)
            hide(parsed.password or "")
            # Nothing but these two: there may be a password in the query as well.
            where = parsed.host or parsed.query.get("host", "this machine")
            self.name = f"The PostgreSQL database {parsed.database!r} at {where}"
            setting = "HEARTH_DATABASE_URL chooses another database."
            engine = _postgresql(parsed)
        self._reading = engine.execution_options(**_READING[engine.dialect.name])
        self._writing = engine.execution_options(hearth_writes=True)
        try:
            if url is None:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._reading.begin() as connection:
                done = is_latest(connection)
            if not done:
                with self._writing.begin() as connection:
                    bring_to_latest(connection, self.name)
        except (OSError, SQLAlchemyError) as error:
            raise StoreError(f"{self.name} can't be used: {_reason(error)}. {setting}") from error
        finally:
            # It may be that nobody will close it.
            engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees the database as it is now. Raises `StoreError` if it can't be read."""
        try:
            with self._reading.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._as_store_error(error) from error

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: committed at the end of the context, or rolled back if it raises. Nothing else writes
        meanwhile.

        Raises `StoreError` if it can't be committed, or if other writers take too long.
        """
        if not self._one_at_a_time.acquire(timeout=BUSY_SECONDS):
            raise StoreError(f"{self.name} has been written to by others for {BUSY_SECONDS:g} s. Try again.")
        try:
            with self._writing.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            failure = self._as_store_error(error)
            if isinstance(error, IntegrityError | DataError):
                raise StoreRefusedError(failure.message) from error
            self.failure = failure.message
            raise failure from error
        else:
            self.failure = None
        finally:
            self._one_at_a_time.release()

    def write(self, change: Callable[[Connection], None]) -> None:
        """Run `change` on another thread, in a transaction shared with other changes, and wait for the commit.

        Raises `StoreError` if it can't be committed, or if it takes too long.
        """
        try:
            self._group.write(change)
        except StoreRefusedError:
            raise
        except StoreError as error:
            self.failure = error.message
            raise

    def close(self) -> None:
        """Commit running changes and close the database. Nothing may be written afterwards."""
        self._group.close()
        self._writing.dispose()

    def _as_store_error(self, error: SQLAlchemyError) -> StoreError:
        return StoreError(f"{self.name} can't be read or written: {_reason(error)}.")


_READING: dict[str, dict[str, Any]] = {
    # In SQLite each transaction sees one moment anyway.
    "sqlite": {},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}


def _sqlite(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS}, pool_timeout=BUSY_SECONDS
    )

    def connect(connection: Any, _: object) -> None:
        # The transactions are those that `begin` says, and none that the driver makes up.
        connection.isolation_level = None
        # A text that a broken disk has made no UTF-8 must not hide the rows beside it.
        connection.text_factory = lambda data: data.decode(errors="replace")
        for setting in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            _set(connection, setting)

    def begin(connection: Connection) -> None:
        # Writers wait here, because a transaction that has read can't wait any more.
        writes = connection.get_execution_options().get("hearth_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
    return engine


def _set(connection: sqlite3.Connection, setting: str) -> None:
    # Of two that make a file's first WAL at once, SQLite has one fail at once and not wait.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute(f"PRAGMA {setting}").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _postgresql(url: URL) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": int(BUSY_SECONDS), "tcp_user_timeout": int(1000 * BUSY_SECONDS)},
        pool_timeout=BUSY_SECONDS,
        # A server that was started anew has broken those that wait in the pool.
        pool_pre_ping=True,
    )

    def begin(connection: Connection) -> None:
        # Readers wait for nobody of ours, but somebody may have locked a table.
        limits = ", ".join(f"set_config('{one}', '{BUSY_SECONDS:g}s', true)" for one in _LIMITS)
        connection.exec_driver_sql(f"SELECT {limits}")
        if connection.get_execution_options().get("hearth_writes"):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    event.listen(engine, "begin", begin)
    return engine


def storable(text: str | None) -> str | None:
    """`text` without the characters for which PostgreSQL has no place. Texts that must come back exactly are saved as
    JSON instead."""
    return None if text is None else text.replace("\0", "").encode(errors="replace").decode()


def _reason(error: OSError | SQLAlchemyError) -> str:
    """The error message, without the statement and its values."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return redacted(" ".join(str(cause).split()).removesuffix("."))
