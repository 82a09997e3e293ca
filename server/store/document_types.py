"""What is saved of documents: collections, documents, passages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from server.documents.chunks import Chunk
from server.documents.text import Page

State = Literal["embedding", "ready", "words_only"]
Source = Literal["file", "url", "text"]
MAIN = "main"
"""The workspace whose collections everybody's agents read."""


@dataclass(frozen=True)
class Scope:
    """Whose collections: of a workspace or, with `session`, of one of its sessions."""

    workspace: str
    session: str = ""

    def readable(self) -> list["Scope"]:
        """The scopes whose collections an agent here reads: the session's, the workspace's, and main's."""
        scopes = [self, Scope(self.workspace), Scope(MAIN)]
        return list(dict.fromkeys(scopes))


@dataclass(frozen=True)
class Collection:
    """A collection. `created`: seconds since 1970."""

    key: int
    scope: Scope
    name: str
    created: float
    documents: int
    chunks: int


@dataclass(frozen=True)
class NewDocument:
    """A document that was read. `source`: file, url or text; `place`: where it is from. `kind`: pdf, docx, ...
    `chunker`: what made its chunks. `date`: ISO 8601. `skipped`: what was not read, and why."""

    name: str
    source: Source
    place: str
    sha256: str
    bytes: int
    media_type: str
    kind: str
    date: str | None
    skipped: list[str]
    chunker: str
    pages: Sequence[Page]
    chunks: Sequence[Chunk]


@dataclass(frozen=True)
class Document:
    """A saved document. `error`: why its state is words_only. `version`: changes with its text. Times: seconds since
    1970."""

    key: int
    id: str
    collection: int
    name: str
    source: str
    place: str
    sha256: str
    bytes: int
    media_type: str
    kind: str
    date: str | None
    state: State
    error: str | None
    version: str
    pages: int
    chunks: int
    vectors: int
    characters: int
    skipped: list[str]
    chunker: str
    model: str | None
    created: float
    changed: float


@dataclass(frozen=True)
class StoredChunk:
    """A passage as it is saved. `vector`: of the wanted model, float32; None: it has none."""

    key: int
    number: int
    start: int
    end: int
    first_page: int
    last_page: int
    text: str
    vector: bytes | None = None


@dataclass(frozen=True)
class FoundPassage:
    """A passage of a live document. `page`: the index of its first page. `page_label`: as printed there."""

    chunk: int
    collection: str
    document: str
    document_id: str
    page: int
    last_page: int
    page_label: str | None
    last_page_label: str | None
    start: int
    end: int
    text: str
