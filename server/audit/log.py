"""The audit log: who did what to what."""

import json
import logging

log = logging.getLogger(__name__)


class AuditLog:
    """Records acts. Safe for any number of threads."""

    def record(self, actor: str, act: str, target: str = "", **details: object) -> None:
        """Record that `actor` did `act`, like `login.succeeded`, to `target`. `details` are JSON values without
        secrets."""
        # As JSON, because a name that somebody typed may contain a line break.
        log.info("%s %s %s %s", json.dumps(actor), act, json.dumps(target), json.dumps(details, default=str))
