"""`python -m server.audit`: check the audit log of the database that the settings name. The server may run
meanwhile."""

import sys

from constants import SettingsError, read_settings
from server.audit.log import AuditLog
from server.errors import StoreError
from server.store.database import Database

BROKEN = 1
UNREADABLE = 2


def main() -> int:
    """Print what was found. Returns 0 if the log is intact, `BROKEN` or `UNREADABLE`."""
    try:
        settings = read_settings()
        file = settings.DATA_DIR / "hearth.db"
        if settings.DATABASE_URL is None and not file.exists():
            # Opening it would make one.
            print(f"There is no {file}. HEARTH_DATA_DIR names the folder.", file=sys.stderr)
            return UNREADABLE
        database = Database(settings.DATA_DIR, settings.DATABASE_URL)
        try:
            checked = AuditLog(database).verify()
        finally:
            database.close()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return UNREADABLE
    except StoreError as error:
        print(error.message, file=sys.stderr)
        return UNREADABLE
    if checked.broken is not None:
        print(f"Event {checked.broken} is broken: {checked.reason}. The {checked.count} before it are intact.")
        return BROKEN
    print(f"{checked.count} events are intact. The last one has the hash {checked.last_hash}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
