"""The requests and responses of the routes for documents."""

import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator
from pydantic.functional_validators import AfterValidator
from pydantic_core import PydanticCustomError

from server.http.description import REF
from server.http.file_schemas import form_of
from server.http.schemas import LongName, Name, SessionId, StrictRequest, WorkspaceQuery

CollectionName = SessionId
"""Letters, digits, dots, dashes and underscores."""


def _check_date(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise PydanticCustomError("date", "A date is like 2024-05-31") from None


Date = Annotated[str, StringConstraints(max_length=10), AfterValidator(_check_date)]
Query = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
PageIndex = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$"), Field(description="from 0")]
Cursor = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}$")]


class CollectionQuery(WorkspaceQuery):
    """Whose collections: of a workspace, or of one of its sessions."""

    session: SessionId | None = Field(None, description="a session of the workspace; default: the workspace's own")


class ListQuery(CollectionQuery):
    """Whose, and which part of the list."""

    limit: int = Field(100, ge=1, le=1000, strict=False)
    after: Cursor | None = Field(None, description="`next` of the part before")


class SearchQuery(CollectionQuery):
    """What to find."""

    query: Query
    limit: int = Field(8, ge=1, le=100, strict=False)
    rerank: bool = Field(False, strict=False, description="rank the best passages again, by HEARTH_RERANK_MODEL")
    document: Name | None = Field(None, description="the id of the only document to search")
    page: Name | None = Field(None, description="the only page to search, as printed; with `document`")
    after: Date | None = Field(None, description="search documents with a later date only")


class CollectionPath(StrictRequest):
    name: CollectionName


class DocumentPath(CollectionPath):
    document_id: Name


class PagePath(DocumentPath):
    index: PageIndex


class ReadablePagePath(StrictRequest):
    document_id: Name
    index: PageIndex


class DocumentFields(StrictRequest):
    """The fields of a form with documents."""

    date: Date | None = Field(None, description="of their content, like 2024-05-31: a search can ask for later ones")


class NewDocument(DocumentFields):
    """A document: one of `file`, `url` and `text`."""

    file: LongName | None = Field(None, description="the name of a file of the session `session_id`")
    session_id: SessionId | None = None
    url: LongName | None = Field(None, description="a page of the web, or a file that is there")
    text: str | None = Field(None, min_length=1)
    name: Name | None = Field(None, description="what the document is called; needed with `text`")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(one is not None for one in (self.file, self.url, self.text)) != 1:
            raise PydanticCustomError("source", "Send one of file, url and text")
        if (self.file is None) != (self.session_id is None):
            raise PydanticCustomError("session", "session_id is of the file, and a file needs it")
        if self.text is not None and self.name is None:
            raise PydanticCustomError("name", "A text needs a name")
        return self


class DocumentShown(BaseModel):
    document_id: str
    name: str
    source: Literal["file", "url", "text"]
    place: str = Field(description="the URL, or session and name of the file; empty: it came with the request")
    state: Literal["embedding", "ready", "words_only"] = Field(
        description="embedding: found by words, and soon by meaning too; ready: by both; words_only: see `error`"
    )
    error: str | None
    kind: str = Field(description="like pdf, docx, html: by the content")
    media_type: str
    bytes: int
    sha256: str
    pages: int
    characters: int
    chunks: int = Field(description="passages")
    vectors: int = Field(description="passages that are found by meaning")
    skipped: list[str] = Field(description="what could not be read, such as pages without text, and why")
    date: str | None
    created_at: str
    changed_at: str


class RefusedDocument(BaseModel):
    name: str
    error: dict[str, Any]


class DocumentsAdded(BaseModel):
    collection: str
    workspace: str
    documents: list[DocumentShown]
    failed: list[RefusedDocument] = Field(description="files of the upload that were refused")


class CollectionShown(BaseModel):
    name: str
    workspace: str
    session_id: str | None
    documents: int
    chunks: int
    created_at: str


class CollectionsListed(BaseModel):
    collections: list[CollectionShown] = Field(description="all that an agent there reads")
    next: str | None


class DocumentsListed(BaseModel):
    collection: str
    workspace: str
    documents: list[DocumentShown]
    next: str | None


class PageShown(BaseModel):
    page: int = Field(description="from 0")
    page_label: str | None = Field(description="as printed on the page; null: the document has no pages")
    characters: int


class DocumentDetails(DocumentShown):
    collection: str
    page_list: list[PageShown]


class PageText(BaseModel):
    document_id: str
    name: str
    pages: int = Field(description="of the document")
    page: int
    page_label: str | None
    start: int = Field(description="the place of the page's first character in the document's text")
    text: str


class PassageShown(BaseModel):
    id: str
    collection: str
    document: str
    document_id: str
    page: int = Field(description="of its beginning, from 0")
    page_label: str | None
    last_page: int
    last_page_label: str | None
    text: str
    start: int = Field(description="in the document's text, in characters")
    end: int
    score: float
    ranks: dict[str, int] = Field(description="its place by words, by vectors, and in the re-ranking")
    similarity: float | None = Field(description="cosine of its vector and the query's; null: it has none yet")


class Found(BaseModel):
    query: str
    passages: list[PassageShown]


class DocumentDeleted(BaseModel):
    document_id: str
    name: str


class CollectionDeleted(BaseModel):
    name: str
    documents: int


def body() -> dict[str, Any]:
    """The OpenAPI description of the body that adds documents: JSON, or a form."""
    json_schema = NewDocument.model_json_schema(ref_template=REF)
    content = {
        "application/json": {"schema": json_schema},
        **form_of({"date": {"type": "string", "format": "date"}}, ["files"]),
    }
    return {"requestBody": {"required": True, "content": content}}
