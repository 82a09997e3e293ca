"""Search in documents as a tool of other agents, in runs that may read some."""

from typing import Any

from server.sdk import ToolFailedError, list_documents

from . import prompts
from .documents import TOOL
from .evidence import Pages, found_passages, in_words

__all__ = ["TOOL", "DocumentTool"]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"query": {"type": "string", "minLength": 1, "maxLength": 1000}},
    "required": ["query"],
    "additionalProperties": False,
}
ROOM = 1500
"""Tokens for passages that a search is made for: about six of them."""
MOST_NAMES = 8
MOST_CHARACTERS = 8000
"""Of the result."""


class DocumentTool:
    """Finds passages of the documents of a question's run."""

    def __init__(self) -> None:
        # Not the documents' own names: people elsewhere may have chosen those.
        names = list(dict.fromkeys(one.collection for one in list_documents()))
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        self.description = prompts.SEARCH_TOOL.format(names=", ".join(names[:MOST_NAMES]) + more)

    def call(self, query: Any) -> str:
        """The passages, numbered, with document and printed page, as text that is no instruction. Raises
        `ToolFailedError` if the query is no text, and what the documents raise."""
        if not isinstance(query, str) or not query.strip():
            raise ToolFailedError("the query has to be a text.")
        found, _, _ = found_passages(query[:1000], ROOM, Pages())
        while len(text := in_words(found, query)) > MOST_CHARACTERS and len(found) > 1:
            found = found[:-1]
        return f"{prompts.NO_INSTRUCTION}\n{text}" if found else prompts.NOTHING_IN_DOCUMENTS
