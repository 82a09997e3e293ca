"""The SQLite file that everything is kept in."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import StoreError

VERSION = 1
_BUSY_SECONDS = 10.0
"""How long one server waits for another that writes to the same file."""

_SCHEMA = """
CREATE TABLE blob (
    digest TEXT PRIMARY KEY,                 -- SHA-256 of the data, hexadecimal
    data BLOB NOT NULL
);
CREATE TABLE generation (
    hash TEXT PRIMARY KEY                    -- as Snapshot.hash has it
);
CREATE TABLE file (
    generation TEXT NOT NULL REFERENCES generation ON DELETE CASCADE,
    path BLOB NOT NULL,                      -- bytes, since a file's name may be no text
    digest TEXT NOT NULL REFERENCES blob,
    PRIMARY KEY (generation, path)
) WITHOUT ROWID;
CREATE INDEX file_digest ON file (digest);
CREATE TABLE take_over (                     -- when a generation became the live one of a workspace
    id INTEGER PRIMARY KEY,
    workspace TEXT NOT NULL,
    generation TEXT NOT NULL REFERENCES generation ON DELETE CASCADE,
    time REAL NOT NULL                       -- seconds since 1970
);
CREATE INDEX take_over_workspace ON take_over (workspace, id);
CREATE INDEX take_over_generation ON take_over (generation);
CREATE TABLE run (
    id TEXT PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,          -- the order of their ends
    workspace TEXT NOT NULL,
    generation TEXT REFERENCES generation,   -- NULL: it ended before any code was pinned
    record TEXT NOT NULL                     -- JSON
);
CREATE INDEX run_workspace ON run (workspace, number);
CREATE INDEX run_generation ON run (generation);
"""


class Database:
    """The file `hearth.db` in `folder`, made when it is not there. Safe for any number of threads, and for several
    servers on one folder."""

    def __init__(self, folder: Path) -> None:
        """Raises `StoreError` when the folder can't be used, or a newer Hearth has written the file."""
        self.path = folder / "hearth.db"
        self._one_at_a_time = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;"
            )
            with self.transaction() as connection:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version > VERSION:
                    raise StoreError(
                        f"{self.path} was written by a newer Hearth (format {version}, this one knows {VERSION}). "
                        "Start that one, or set HEARTH_DATA_DIR to another folder."
                    )
                if version == 0:
                    for statement in _SCHEMA.split(";"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={VERSION}")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self.path} can't be used: {error}. HEARTH_DATA_DIR chooses another folder."
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is done within it is kept whole at its end, or, when it raises, not at all.

        Raises `StoreError` when the disk does not take it.
        """
        with self._one_at_a_time:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    # After some failures, a full disk among them, SQLite has rolled back already.
                    with contextlib.suppress(sqlite3.OperationalError):
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"{self.path} can't be read or written: {error}.") from error

    def close(self) -> None:
        """Give the file back. Nothing may be asked of the database after."""
        with self._one_at_a_time:
            self._connection.close()
