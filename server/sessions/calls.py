"""Answers what people's code in a worker asks the server for, besides the model.

That is jobs, code in the sandbox, documents, the web, pictures, and how near in meaning tools are to a question.
"""

from collections.abc import Mapping
from typing import Any

from server.documents.calls import DocumentCalls
from server.documents.tool_vectors import ToolVectors
from server.images.calls import ImageCalls
from server.internet.calls import InternetCalls
from server.jobs.calls import JobCalls
from server.runs.run import Run
from server.sandbox.calls import CodeCalls


class SessionCalls:
    """See `server.workers.worker.SessionCalls`."""

    def __init__(
        self,
        jobs: JobCalls,
        code: CodeCalls,
        documents: DocumentCalls,
        internet: InternetCalls,
        images: ImageCalls,
        tools: ToolVectors,
    ) -> None:
        self._calls = {
            "jobs": jobs.do,
            "code": code.do,
            "documents": documents.do,
            "internet": internet.do,
            "images": images.do,
            "tools": tools.do,
        }
        self.absent_internet = internet.absent
        self.jobs = jobs.names
        self.has_code = code.is_of_use
        self.has_documents = documents.are_of_use
        self.has_images = images.has_images

    def do(self, what: str, given: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
        """See `server.workers.worker.SessionCalls`."""
        return self._calls[what](given, run)
