"""Documents, for tools and agents: search, pages, and what there is.

A run reads the collections of its session, of its workspace, and of `main`. Text of documents comes from outside:
show it to a model as text to be read, and never as instructions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from server.sdk import context


@dataclass(frozen=True)
class Passage:
    """A passage that a search has found. `page`, `last_page`: from 0, the pages that it begins and ends on;
    `page_label`: as printed there, None where there are no pages. `start`, `end`: its place in the document's text,
    in characters. `score`: compares the passages of one search. `similarity`: the cosine of its vector and the
    query's; None: it has none yet."""

    id: str
    document: str
    document_id: str
    page: int
    page_label: str | None
    text: str
    start: int
    end: int
    score: float
    last_page: int = 0
    collection: str = ""
    similarity: float | None = None


@dataclass(frozen=True)
class DocumentPage:
    """A page. `start`: the place of its first character in the document's text."""

    page: int
    page_label: str | None
    start: int
    text: str


@dataclass(frozen=True)
class ListedDocument:
    """A document that the run may read. `characters`: the length of its text. `skipped`: what could not be read."""

    document_id: str
    document: str
    collection: str
    pages: int
    characters: int
    date: str | None
    skipped: list[str]


def search_documents(query: str, limit: int = 8, collections: Sequence[str] | None = None) -> list[Passage]:
    """The best passages for `query` in the documents of the run, the best first; at most `limit`, and 100.
    `collections`: only in those of these names. Raises `InvalidRequestError`, `DocumentsUnavailableError`."""
    reply = _ask("search", query=query, limit=limit, collections=None if collections is None else list(collections))
    names = Passage.__dataclass_fields__
    return [Passage(**{name: value for name, value in one.items() if name in names}) for one in reply["passages"]]


def read_pages(document_id: str, first: int = 0, last: int | None = None) -> list[DocumentPage]:
    """The pages of a document from index `first` to `last`, the same by default. At most 50 pages and 200,000
    characters: ask again from the page after the last one that came. Raises `DocumentNotFoundError`."""
    reply = _ask("read", document_id=document_id, first=first, last=first if last is None else last)
    return [DocumentPage(**one) for one in reply["pages"]]


def list_documents() -> list[ListedDocument]:
    """The documents that the run may read, at most 1,000."""
    return [ListedDocument(**one) for one in _ask("list")["documents"]]


def has_documents() -> bool:
    """Whether there is a document that the run may read."""
    return context.current().has_documents


def _ask(do: str, **given: Any) -> dict[str, Any]:
    listener = context.current().listener
    if listener is None:
        raise RuntimeError("Documents are read in a run, and this code runs outside of one.")
    return listener.ask("documents", do, given)
