"""`/collections`: documents, which are added, read, searched and deleted."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from http import HTTPStatus
from itertools import chain
from typing import Any

from flask import Response, request
from flask_openapi3 import APIBlueprint
from pydantic import ValidationError

from server.documents.calls import passage_shown
from server.documents.reading import Content
from server.documents.search import Filters
from server.errors import DocumentNotFoundError, FileRefusedError, HearthError, InvalidRequestError, TooLargeError
from server.files.beneath import opened
from server.files.names import cleaned
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.body import refuse
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.document_schemas import (
    CollectionDeleted,
    CollectionPath,
    CollectionQuery,
    CollectionsListed,
    DocumentDeleted,
    DocumentDetails,
    DocumentFields,
    DocumentPath,
    DocumentsAdded,
    DocumentsListed,
    Found,
    ListQuery,
    NewDocument,
    PagePath,
    PageText,
    ReadablePagePath,
    SearchQuery,
    body,
)
from server.http.file_download import as_time
from server.http.multipart import is_form, read_form
from server.http.schemas import EVENTS, ErrorAnswer
from server.http.sse import PING, ServerSentEvent, event_stream, events_after, last_event_id
from server.store.document_types import Collection, Document, Scope


def blueprint(
    host: Host, transfers: ConcurrencyLimit, event_streams: ConcurrencyLimit, slow_requests: ConcurrencyLimit
) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("documents", __name__)
    documents = host.documents
    store = documents.store

    def answers(of: Any, *errors: int, status: int = 200) -> dict[int | str | HTTPStatus, Any]:
        return {status: of, **dict.fromkeys(errors, ErrorAnswer)}

    def scope_of(query: CollectionQuery) -> Scope:
        return Scope(host.workspaces.get(query.workspace).name, query.session or "")

    def collection_of(path: CollectionPath, query: CollectionQuery) -> Collection:
        return store.collection(scope_of(query), path.name)

    def page_of(collections: list[Collection], document_id: str, index: str) -> dict[str, Any]:
        document = store.document([one.key for one in collections], document_id)
        found = store.pages(document.key, int(index), int(index))
        if not found:
            raise DocumentNotFoundError(f"{document.name!r} has no page {index}: it has {document.pages}, from 0.")
        [page] = found
        shown = {"page": page.index, "page_label": page.label, "start": page.start, "text": page.text}
        return {"document_id": document.id, "name": document.name, "pages": document.pages, **shown}

    @routes.post(
        "/collections/<name>/documents",
        summary="Add documents to a collection, new or not; they are found by words at once",
        responses=answers(DocumentsAdded, 400, 404, 413, 415, 422, 429, 503, 507, status=201),
        openapi_extensions=body(),
    )
    @access("ask", "collection", body=NewDocument, takes_form=True)
    def add(path: CollectionPath, query: CollectionQuery) -> tuple[dict[str, Any], int]:
        scope = scope_of(query)
        with transfers.acquire():
            added, failed = (_add_form if is_form(request) else _add_one)(host, scope, path.name)
        shown = {"documents": [_shown(one) for one in added], "failed": failed}
        return {"collection": path.name, "workspace": scope.workspace, **shown}, HTTPStatus.CREATED

    @routes.get(
        "/collections",
        summary="List the collections that an agent reads: those of the session, of the workspace, and of main",
        responses=answers(CollectionsListed, 404),
    )
    @access("read", "collection")
    def list_collections(query: ListQuery) -> dict[str, Any]:
        found = store.collections(scope_of(query).readable(), query.limit + 1, int(query.after or 0))
        return {
            "collections": [
                {
                    "name": one.name,
                    "workspace": one.scope.workspace,
                    "session_id": one.scope.session or None,
                    "documents": one.documents,
                    "chunks": one.chunks,
                    "created_at": _as_text(one.created),
                }
                for one in found[: query.limit]
            ],
            "next": str(found[query.limit - 1].key) if len(found) > query.limit else None,
        }

    @routes.delete(
        "/collections/<name>",
        summary="Delete a collection with its documents",
        responses=answers(CollectionDeleted, 404),
    )
    @access("ask", "collection")
    def delete_collection(path: CollectionPath, query: CollectionQuery) -> dict[str, Any]:
        gone = documents.delete_collection(scope_of(query), path.name)
        host.audit.record(caller().actor, "collection.deleted", _place(gone), documents=gone.documents)
        return {"name": gone.name, "documents": gone.documents}

    @routes.get(
        "/collections/<name>/documents",
        summary="List the documents of a collection, in the order in which they were saved",
        responses=answers(DocumentsListed, 404),
    )
    @access("read", "collection")
    def list_documents(path: CollectionPath, query: ListQuery) -> dict[str, Any]:
        collection = collection_of(path, query)
        found = store.documents([collection.key], query.limit + 1, int(query.after or 0))
        return {
            "collection": collection.name,
            "workspace": collection.scope.workspace,
            "documents": [_shown(one) for one in found[: query.limit]],
            "next": str(found[query.limit - 1].key) if len(found) > query.limit else None,
        }

    @routes.get(
        "/collections/<name>/documents/<document_id>",
        summary="A document, with its pages",
        responses=answers(DocumentDetails, 404),
    )
    @access("read", "collection")
    def show(path: DocumentPath, query: CollectionQuery) -> dict[str, Any]:
        collection = collection_of(path, query)
        document = store.document([collection.key], path.document_id)
        pages = [
            {"page": index, "page_label": label, "characters": size}
            for index, label, size in store.page_sizes(document.key)
        ]
        return {**_shown(document), "collection": collection.name, "page_list": pages}

    @routes.get(
        "/collections/<name>/documents/<document_id>/pages/<index>",
        summary="The text of a page",
        responses=answers(PageText, 404),
    )
    @access("read", "collection")
    def show_page(path: PagePath, query: CollectionQuery) -> dict[str, Any]:
        return page_of([collection_of(path, query)], path.document_id, path.index)

    @routes.get(
        "/documents/<document_id>/pages/<index>",
        summary="The text of a page of any document that an agent reads, as citations name it",
        responses=answers(PageText, 404),
    )
    @access("read", "session")
    def show_readable_page(path: ReadablePagePath, query: CollectionQuery) -> dict[str, Any]:
        return page_of(store.collections(scope_of(query).readable()), path.document_id, path.index)

    @routes.delete(
        "/collections/<name>/documents/<document_id>",
        summary="Delete a document: the next search does not find it",
        responses=answers(DocumentDeleted, 404),
    )
    @access("ask", "collection")
    def delete_document(path: DocumentPath, query: CollectionQuery) -> dict[str, Any]:
        collection = collection_of(path, query)
        gone = documents.delete_document(collection, path.document_id)
        host.audit.record(caller().actor, "document.deleted", f"{_place(collection)}/{gone.id}", name=gone.name)
        return {"document_id": gone.id, "name": gone.name}

    @routes.get(
        "/collections/<name>/search",
        summary="Find passages, by words and by meaning",
        responses=answers(Found, 404, 422, 429, 503),
    )
    @access("read", "collection")
    def search(path: CollectionPath, query: SearchQuery) -> dict[str, Any]:
        collection = collection_of(path, query)
        filters = Filters(None if query.document is None else (query.document,), query.page, query.after)
        with slow_requests.acquire():
            found = documents.search([collection], query.query, query.limit, filters, query.rerank)
        return {"query": query.query, "passages": [passage_shown(one) for one in found]}

    @routes.get(
        "/collections/<name>/events",
        summary="The progress of a collection's documents, and their changes, as they come",
        responses={200: EVENTS, **dict.fromkeys((404, 422, 429), ErrorAnswer)},
    )
    @access("read", "collection")
    def follow(path: CollectionPath, query: CollectionQuery) -> Response:
        events, number = documents.events(collection_of(path, query)), last_event_id()
        held = ExitStack()
        held.enter_context(event_streams.acquire())

        def batches() -> Iterator[list[ServerSentEvent]]:
            for batch in events_after(events, number):
                yield batch
                if host.closing.is_set():
                    return

        return event_stream(lambda begun: chain([[PING]], batches()), when_left=held.close)

    return routes


def _add_one(host: Host, scope: Scope, collection: str) -> tuple[list[Document], list[dict[str, Any]]]:
    """Add what the JSON body names."""
    try:
        given = NewDocument.model_validate(request.get_json())
    except ValidationError as error:
        refuse(error)
    documents, owner = host.documents, caller().owner_in(scope.workspace)
    if given.text is not None:
        assert given.name is not None, "a text has a name"
        host.quotas.check_disk(owner, len(given.text.encode()))
        return [documents.add_text(scope, owner, collection, given.name, given.text, given.date)], []
    if given.url is not None:
        host.quotas.check_disk(owner, 0)  # nobody knows its size yet
        return [documents.add_url(scope, owner, collection, given.url, given.name, given.date)], []
    assert given.file is not None and given.session_id is not None, "one of three"
    file = host.session_files.open(scope.workspace, given.session_id, given.file)
    with opened(file.descriptor):
        name, place = given.name or given.file, f"{given.session_id}/{given.file}"
        content = Content(file.descriptor)
        host.quotas.check_disk(owner, file.status.st_size)
        return [documents.add(scope, owner, collection, name, content, place, given.date)], []


def _add_form(host: Host, scope: Scope, collection: str) -> tuple[list[Document], list[dict[str, Any]]]:
    """Add the files of a form. A refused one does not affect the others; if all are, raises the first error."""
    added: list[Document] = []
    failed: list[dict[str, Any]] = []
    first: HearthError | None = None
    with host.session_files.incoming() as upload:
        form = read_form(request, host.settings, upload, DocumentFields.model_fields)
        try:
            date = DocumentFields.model_validate(form.fields).date
        except ValidationError as error:
            refuse(error)
        if not upload.files:
            raise InvalidRequestError("The form has no file. Send each one as a part called 'files'.")
        owner = caller().owner_in(scope.workspace)
        host.quotas.check_disk(owner, sum(file.bytes for file in upload.files))
        for file in upload.files:
            name = cleaned(file.uploaded_as)
            try:
                content = Content(file.path)
                added.append(host.documents.add(scope, owner, collection, name, content, date=date))
            except (FileRefusedError, TooLargeError) as error:
                first = first or error
                failed.append({"name": name, "error": error.to_dict()["error"]})
    if first is not None and not added:
        raise first
    return added, failed


def _place(collection: Collection) -> str:
    """What the audit log calls it."""
    return "/".join(filter(None, (collection.scope.workspace, collection.scope.session, collection.name)))


def _shown(document: Document) -> dict[str, Any]:
    left_out = ("key", "id", "collection", "version", "chunker", "model", "created", "changed")
    return {
        "document_id": document.id,
        **{name: value for name, value in asdict(document).items() if name not in left_out},
        "created_at": _as_text(document.created),
        "changed_at": _as_text(document.changed),
    }


def _as_text(seconds: float) -> str:
    return as_time(seconds).isoformat(timespec="seconds").replace("+00:00", "Z")
