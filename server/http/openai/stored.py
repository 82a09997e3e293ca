"""The responses that are saved: as input of later ones, and by their ids."""

import logging
import secrets
from collections.abc import Sequence
from typing import Any, Literal

from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from server.errors import ResponseNotFoundError, StoreError
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.openai.errors import invalid
from server.http.openai.responses_schemas import ResponsesAnswer, ResponsesItem, ResponsesRequest
from server.http.openai.schemas import OpenAIError
from server.http.schemas import StrictRequest
from server.store.responses import SavedResponse

log = logging.getLogger(__name__)

PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}
"""The beginnings of the ids of items, by their types."""


class ResponseId(StrictRequest):
    response_id: str = Field(min_length=1, max_length=100)


class ItemsQuery(StrictRequest):
    limit: int = Field(20, ge=1, le=100, strict=False)
    order: Literal["asc", "desc"] = "desc"
    after: str | None = Field(None, max_length=100, description="the id of the last item that was read")


class ItemList(BaseModel):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    id: str
    object: Literal["response"]
    deleted: bool


def blueprint(host: Host) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("openai_stored_responses", __name__)
    store = host.responses

    @routes.get(
        "/v1/responses/<response_id>",
        summary="OpenAI: a response that was saved",
        responses={200: ResponsesAnswer, 404: OpenAIError},
    )
    @access("read", "response")
    def show_response(path: ResponseId) -> dict[str, Any]:
        return store.get(path.response_id)

    @routes.delete(
        "/v1/responses/<response_id>",
        summary="OpenAI: delete a response",
        responses={200: Deleted, 404: OpenAIError},
    )
    @access("ask", "response")
    def delete_response(path: ResponseId) -> dict[str, Any]:
        store.delete(path.response_id)
        return {"id": path.response_id, "object": "response", "deleted": True}

    @routes.get(
        "/v1/responses/<response_id>/input_items",
        summary="OpenAI: the items that a response was given",
        responses={200: ItemList, 404: OpenAIError},
    )
    @access("read", "response")
    def list_input_items(path: ResponseId, query: ItemsQuery) -> dict[str, Any]:
        found = store.inputs(path.response_id, query.limit + 1, query.after, query.order == "desc")
        shown = found[: query.limit]
        ends = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
        return {
            "object": "list",
            "data": shown,
            "first_id": ends[0],
            "last_id": ends[1],
            "has_more": len(found) > query.limit,
        }

    return routes


def earlier_items(host: Host, previous: str | None) -> list[ResponsesItem]:
    """The items of the response `previous` and of those before it; None: there are none. Raises
    `ResponseNotFoundError`, `InvalidRequestError`, `StoreError`."""
    if previous is None:
        return []
    return [ResponsesItem.model_validate(one) for one in host.responses.history(previous)]


def resolved(host: Host, items: Sequence[ResponsesItem]) -> list[ResponsesItem]:
    """The items of a request, with those in place of their references. Raises `ResponseNotFoundError` for one that is
    not there, or somebody else's, and `InvalidRequestError`."""
    found = []
    for number, item in enumerate(items):
        if item.type != "item_reference":
            found.append(item)
            continue
        if item.id is None:
            raise invalid("An item_reference needs the id of an item.", "input", number, "id")
        saved = host.responses.item(item.id)
        missing = ResponseNotFoundError(
            f"There is no item {item.id!r}. Those of responses that were asked for with store: false are not saved."
        )
        if saved is None:
            raise missing
        response, body = saved
        try:
            host.permissions.check_response(caller(), response, writes=False)
        except ResponseNotFoundError:
            raise missing from None
        found.append(ResponsesItem.model_validate(body))
    return found


class Keeper:
    """Saves the response of one request."""

    def __init__(self, host: Host, asked: ResponsesRequest, items: Sequence[ResponsesItem]) -> None:
        """`items`: the request's own. Made while the request is there; `save` needs it no more."""
        self._store = host.responses
        self._previous = asked.previous_response_id
        self._workspace = asked.x_workspace
        self._owner = caller().owner_in(asked.x_workspace)
        self._inputs = [_shown(one) for one in items]

    def save(self, response: dict[str, Any]) -> dict[str, Any]:
        """Save a response before it is sent. Returns it; with `store` false if that failed, since its client gets it
        all the same."""
        try:
            self._store.add(
                SavedResponse(
                    response["id"],
                    self._workspace,
                    self._owner,
                    self._previous,
                    response,
                    self._inputs,
                    float(response["created_at"]),
                )
            )
        except StoreError as error:
            log.warning("the response %s was not saved: %s", response["id"], error.message)
            return {**response, "store": False}
        return response


def _shown(item: ResponsesItem) -> dict[str, Any]:
    """An item as it is saved and shown, with an id of its own."""
    shown = item.model_dump(exclude_none=True)
    shown["id"] = f"{PREFIXES[item.type]}_{secrets.token_hex(12)}"
    shown["status"] = "completed"
    if item.type == "message":
        kind = "output_text" if item.role == "assistant" else "input_text"
        for part in shown.get("content", ()):
            if part["type"] in ("text", "input_text", "output_text"):
                part["type"] = kind
                if kind == "output_text":
                    part["annotations"] = []
    if item.type == "reasoning":
        shown.setdefault("summary", [])
    return shown
