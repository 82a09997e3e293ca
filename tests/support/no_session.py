"""Workers without a server: there are no jobs, and there is no sandbox."""

from collections.abc import Mapping
from typing import Any

from server.errors import InvalidRequestError
from server.runs.run import Run


class NoSession:
    """See `server.workers.worker.SessionCalls`."""

    def do(self, what: str, given: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
        """Refuses everything."""
        raise InvalidRequestError("There are no jobs and there is no sandbox in these tests.")

    def jobs(self, run: Run) -> list[str]:
        """None."""
        return []

    def has_code(self, run: Run) -> bool:
        """None."""
        return False

    def has_documents(self, run: Run) -> bool:
        """None."""
        return False
