"""What people's code in a worker asks of its session."""

from collections.abc import Mapping
from typing import Any

from server.documents.calls import DocumentCalls
from server.jobs.calls import JobCalls
from server.runs.run import Run
from server.sandbox.calls import CodeCalls


class SessionCalls:
    """See `server.workers.worker.SessionCalls`."""

    def __init__(self, jobs: JobCalls, code: CodeCalls, documents: DocumentCalls) -> None:
        self._calls = {"jobs": jobs.do, "code": code.do, "documents": documents.do}
        self.jobs = jobs.names
        self.has_code = code.is_of_use
        self.has_documents = documents.are_of_use

    def do(self, what: str, given: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
        """See `server.workers.worker.SessionCalls`."""
        return self._calls[what](given, run)
