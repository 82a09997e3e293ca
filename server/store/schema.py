"""The format of a database: detecting it, and migrating it to the current one."""

import logging

from sqlalchemy import Connection, inspect, text

from server.errors import StoreError

log = logging.getLogger(__name__)

LATEST = "11"
"""The last script in `migrations/versions/`."""


def is_latest(connection: Connection) -> bool:
    """Whether no migration is needed."""
    return _format(connection) == LATEST


def bring_to_latest(connection: Connection, name: str) -> None:
    """Make the tables, or change those that are there, within the connection's transaction. `name`: what the database
    is called in messages.

    Raises `StoreError` when a newer Hearth has written it.
    """
    # Late: it is needed once for each format, and takes a tenth of a second to import.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "server.store:migrations")
    was = _format(connection)
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if was is not None and was not in known:
        raise StoreError(
            f"{name} was written by a newer Hearth (format {was}, this one knows {LATEST}). Start that one, or "
            "choose another place with HEARTH_DATA_DIR or HEARTH_DATABASE_URL."
        )
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # it takes as long as the tables are large
    if was is None and _was_made_before_alembic(connection):
        command.stamp(config, "1")
    command.upgrade(config, LATEST)
    log.info("%s has format %s now; it had %s", name, LATEST, was or "none")


def _was_made_before_alembic(connection: Connection) -> bool:
    """Whether it is a file with the tables of format 1 that no migration has made."""
    is_file = connection.dialect.name == "sqlite"
    return is_file and connection.execute(text("PRAGMA user_version")).scalar() == 1


def _format(connection: Connection) -> str | None:
    """The script that was run last; None before the first."""
    if not inspect(connection).has_table("hearth_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM hearth_version")).scalar()
    return found
