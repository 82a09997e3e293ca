"""SQLite databases, read without executing anything that is stored in them."""

import sqlite3
from typing import Any
from urllib.parse import quote

from .result import Analysis, Deadline, File, Refused, counted, cut, listed

_MAX_TABLES = 40
_MAX_COLUMNS = 100
_SECONDS = 1.2
_PROGRESS = 1_000
"""Steps of SQLite's machine between two looks at the clock."""


def analyse(file: File, kind: str) -> Analysis:
    """Tables with columns, row counts and five rows. Views and triggers are named, and never executed."""
    deadline = Deadline(_SECONDS)
    connection = _open(file, deadline)
    try:
        try:
            entries = connection.execute(
                "SELECT type, name, substr(sql, 1, 500) FROM sqlite_master LIMIT 2000"
            ).fetchall()
        except sqlite3.DatabaseError as error:
            raise Refused(f"The database is damaged or cut off: {error}.") from error
        skipped: list[str] = []
        tables = []
        names = [
            (str(name), str(sql or ""))
            for type_, name, sql in entries
            if type_ == "table" and not str(name).startswith("sqlite_")
        ]
        for index, (name, sql) in enumerate(names):
            if index == _MAX_TABLES or deadline.passed():
                skipped.append(
                    f"{counted(len(names) - index, 'table')} not read: {listed(rest for rest, _ in names[index:])}."
                )
                break
            if sql.lstrip().upper().startswith("CREATE VIRTUAL"):
                skipped.append(f"The virtual table {name!r} was not read: reading it executes code.")
                continue
            tables.append(_describe(connection, name, skipped))
        others = {
            plural: [str(name) for type_, name, _ in entries if type_ == single]
            for single, plural in (("view", "views"), ("trigger", "triggers"))
        }
    finally:
        connection.close()
    if others["views"]:
        skipped.append(f"Views were not executed: {listed(others['views'])}.")
    main = max(tables, key=lambda table: table["rows"] or 0)["name"] if tables else None
    code = ["import sqlite3", "", "import pandas as pd", ""]
    code.append(f"connection = sqlite3.connect({'file:' + quote(file.name) + '?mode=ro'!r}, uri=True)")
    if main is not None:
        escaped = main.replace('"', '""')
        query = f'SELECT * FROM "{escaped}"'
        code.append(f"df = pd.read_sql_query({query!r}, connection)")
    shown = ", ".join(
        f"{table['name']} ({table['rows']:,} rows)" for table in tables[:6] if table["rows"] is not None
    )
    summary = f"SQLite database with {counted(len(names), 'table')}{': ' + shown if shown else ''}"
    return Analysis("sqlite", summary, {"tables": tables, **others}, "\n".join(code), skipped)


def _open(file: File, deadline: Deadline) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(file.path))}?mode=ro&immutable=1", uri=True)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 8 * 1024 * 1024)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 100_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 50)
    for pragma in (
        "trusted_schema=OFF",
        "cell_size_check=ON",
        "mmap_size=0",
        "query_only=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.set_progress_handler(deadline.passed, _PROGRESS)
    return connection


def _describe(connection: sqlite3.Connection, name: str, skipped: list[str]) -> dict[str, Any]:
    quoted = '"' + name.replace('"', '""') + '"'
    described: dict[str, Any] = {"name": name, "rows": None}
    try:
        information = connection.execute(f"PRAGMA table_xinfo({quoted})").fetchall()
        described["column_count"] = len(information)
        # A generated column is an expression, which may do anything: `hidden` is 2 or 3.
        plain = [row for row in information if row[6] == 0]
        if len(plain) < len(information):
            skipped.append(f"Generated columns of the table {name!r} were not computed.")
        described["columns"] = [
            {"name": str(row[1]), "type": str(row[2]).lower() or "any", **({"key": True} if row[5] else {})}
            for row in plain[:_MAX_COLUMNS]
        ]
        if plain:
            chosen = ", ".join('"' + str(row[1]).replace('"', '""') + '"' for row in plain[:_MAX_COLUMNS])
            rows = connection.execute(f"SELECT {chosen} FROM {quoted} LIMIT 5").fetchall()
            described["first_rows"] = [
                [cut(value, 100) if isinstance(value, str) else value for value in row] for row in rows
            ]
        described["rows"] = connection.execute(f"SELECT count(*) FROM {quoted} NOT INDEXED").fetchone()[0]
    except sqlite3.Error as error:
        reason = "for lack of time" if "interrupted" in str(error) else str(error)
        skipped.append(f"The table {name!r} was not read completely: {cut(reason, 100)}.")
    return described
