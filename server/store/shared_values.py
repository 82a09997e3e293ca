"""The dictionary that the tools and jobs of a session share."""

import json
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from server.errors import InvalidRequestError
from server.store.database import Database
from server.store.tables import SHARED_VALUE

MOST_KEYS = 256
"""Maximum number of values of a session."""
MOST_CHARACTERS = 200_000
"""Maximum length of a value as JSON."""


class SharedValues:
    """JSON values by workspace, session and key. Each change is atomic. A value that is None does not exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, workspace: str, session: str, key: str) -> Any:
        """The value. Raises `StoreError`."""
        with self._database.reading() as connection:
            return _value(connection, workspace, session, key)

    def set(self, workspace: str, session: str, key: str, value: Any) -> None:
        """Set a value. Raises `InvalidRequestError` if it is too long, or one too many; `StoreError`."""
        text = _as_text(key, value)
        self._database.write(lambda connection: _set(connection, workspace, session, key, text))

    def increment(self, workspace: str, session: str, key: str, by: float) -> float:
        """Add to a number, which is 0 at first, and return the sum. Raises `InvalidRequestError` if the value is no
        number."""
        total: float = 0

        def change(connection: Connection) -> None:
            nonlocal total
            was = _value(connection, workspace, session, key)
            if isinstance(was, bool) or not isinstance(was, int | float | None):
                raise InvalidRequestError(f"The shared value {key!r} is no number: {str(was)[:100]!r}.")
            total = (was or 0) + by
            _set(connection, workspace, session, key, _as_text(key, total))

        self._database.write(change)
        return total

    def replace(self, workspace: str, session: str, key: str, was: Any, value: Any) -> bool:
        """Set a value if it is still `was`. Returns whether it was."""
        replaced, text = False, _as_text(key, value)

        def change(connection: Connection) -> None:
            nonlocal replaced
            replaced = _value(connection, workspace, session, key) == was
            if replaced:
                _set(connection, workspace, session, key, text)

        self._database.write(change)
        return replaced


def _where(workspace: str, session: str, key: str) -> tuple[Any, ...]:
    table = SHARED_VALUE.c
    return table.workspace == workspace, table.session == session, table.key == key


def _value(connection: Connection, workspace: str, session: str, key: str) -> Any:
    text = connection.execute(select(SHARED_VALUE.c.value).where(*_where(workspace, session, key))).scalar()
    return None if text is None else json.loads(text)


def _as_text(key: str, value: Any) -> str | None:
    text = json.dumps(value)
    if len(text) > MOST_CHARACTERS:
        raise InvalidRequestError(
            f"The shared value {key!r} has {len(text):,} characters as JSON; {MOST_CHARACTERS:,} are the maximum. "
            "Write it to a file, and share the file's name."
        )
    return None if value is None else text


def _set(connection: Connection, workspace: str, session: str, key: str, text: str | None) -> None:
    where = _where(workspace, session, key)
    if text is None:
        connection.execute(delete(SHARED_VALUE).where(*where))
        return
    if connection.execute(update(SHARED_VALUE).where(*where).values(value=text)).rowcount:
        return
    table = SHARED_VALUE.c
    counted = select(func.count()).where(table.workspace == workspace, table.session == session)
    if connection.execute(counted).scalar_one() >= MOST_KEYS:
        raise InvalidRequestError(f"The session has {MOST_KEYS} shared values, the maximum. Set one to None first.")
    connection.execute(insert(SHARED_VALUE).values(workspace=workspace, session=session, key=key, value=text))
