"""What agents and tools ask of documents, over the worker's channel."""

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from server.documents.documents import Documents
from server.documents.search import Filters, Passage
from server.errors import StoreError
from server.runs.run import Run
from server.sessions.asked import Asked, read
from server.store.document_types import Collection, Scope

log = logging.getLogger(__name__)

MOST_LISTED = 1000
MOST_PAGES = 50
"""That are read at once."""
MOST_CHARACTERS = 200_000
"""Of the pages that are read at once."""

_Name = Annotated[str, Field(max_length=200)]


class _Search(Asked):
    do: Literal["search"]
    query: Annotated[str, Field(max_length=10_000)]
    limit: Annotated[int, Field(ge=1, le=100)] = 8
    collections: Annotated[list[_Name], Field(max_length=100)] | None = None


class _Read(Asked):
    do: Literal["read"]
    document_id: _Name
    first: Annotated[int, Field(ge=0, le=1_000_000)]
    last: Annotated[int, Field(ge=0, le=1_000_000)]


class _List(Asked):
    do: Literal["list"]


_any_call: TypeAdapter[Any] = TypeAdapter(Annotated[_Search | _Read | _List, Field(discriminator="do")])


class DocumentCalls:
    """What a run asks of the documents that it may read: those of its session, of its workspace, and of main. Safe
    for any number of threads."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._store = documents.store

    def do(self, given: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
        """The answer to a call. Raises `InvalidRequestError`, `DocumentNotFoundError`, what `Documents` raises."""
        call, run = read(_any_call, given, run, "the documents")
        match call:
            case _Search():
                return self._search(call, run)
            case _Read():
                return self._read(call, run)
        return self._list(run)

    def are_of_use(self, run: Run) -> bool:
        """Whether there is a document that the run may read. Without the database there is none: a question is
        answered all the same."""
        try:
            return self._store.any_document(_scopes(run))
        except StoreError as error:
            log.warning("run %s reads no documents: %s", run.id, error.message)
            return False

    def _search(self, call: _Search, run: Run) -> dict[str, Any]:
        readable = self._readable(run, call.collections)
        found = self._documents.search(readable, call.query, call.limit, Filters()) if readable else []
        return {"passages": [passage_shown(one) for one in found]}

    def _read(self, call: _Read, run: Run) -> dict[str, Any]:
        document = self._store.document([one.key for one in self._readable(run)], call.document_id)
        pages: list[dict[str, Any]] = []
        room = MOST_CHARACTERS
        for page in self._store.pages(document.key, call.first, call.last, MOST_PAGES):
            if pages and len(page.text) > room:
                break  # the caller sees which pages it has got
            room -= len(page.text)
            shown = {"page": page.index, "page_label": page.label, "start": page.start}
            pages.append({**shown, "text": page.text[:MOST_CHARACTERS]})
        return {"document": document.name, "pages": pages}

    def _list(self, run: Run) -> dict[str, Any]:
        collections = {one.key: one for one in self._readable(run)}
        found = self._store.documents(list(collections), MOST_LISTED)
        return {
            "documents": [
                {
                    "document_id": one.id,
                    "document": one.name,
                    "collection": collections[one.collection].name,
                    "pages": one.pages,
                    "characters": one.characters,
                    "date": one.date,
                    "skipped": one.skipped,
                }
                for one in found
            ]
        }

    def _readable(self, run: Run, names: list[str] | None = None) -> list[Collection]:
        return self._store.collections(_scopes(run), names=names)


def passage_shown(passage: Passage) -> dict[str, Any]:
    """A passage as JSON."""
    found = passage.found
    return {
        "id": str(found.chunk),
        "collection": found.collection,
        "document": found.document,
        "document_id": found.document_id,
        "page": found.page,
        "page_label": found.page_label,
        "last_page": found.last_page,
        "last_page_label": found.last_page_label,
        "text": found.text,
        "start": found.start,
        "end": found.end,
        "score": passage.score,
        "ranks": passage.ranks,
        "similarity": passage.similarity,
    }


def _scopes(run: Run) -> list[Scope]:
    return Scope(run.workspace, run.session_id or "").readable()
