"""Responses of OpenAI's API, and the items that they were given and gave."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select

from server.errors import InvalidRequestError, ResponseNotFoundError
from server.store.database import Database
from server.store.tables import RESPONSE, RESPONSE_ITEM

LONGEST_CHAIN = 1000
"""The number of responses that may follow one another."""


@dataclass(frozen=True)
class SavedResponse:
    """A response. `body`: as the route shows it. `inputs`: its own items, without those of responses before it."""

    id: str
    workspace: str
    owner: str
    previous: str | None
    body: dict[str, Any]
    inputs: Sequence[dict[str, Any]]
    created: float


class ResponseStore:
    """All responses. Their items have ids of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, saved: SavedResponse) -> None:
        """Save a response with its items. Raises `StoreError`."""
        row = {
            "id": saved.id,
            "workspace": saved.workspace,
            "owner": saved.owner,
            "previous": saved.previous,
            "body": json.dumps(saved.body),
            "created": saved.created,
        }
        items = [*((0, one) for one in saved.inputs), *((1, one) for one in saved.body["output"])]
        rows = [
            {"response": saved.id, "number": number, "id": one["id"], "is_output": kind, "body": json.dumps(one)}
            for number, (kind, one) in enumerate(items)
        ]
        with self._database.writing() as connection:
            connection.execute(insert(RESPONSE).values(row))
            if rows:
                connection.execute(insert(RESPONSE_ITEM), rows)

    def get(self, response: str) -> dict[str, Any]:
        """A response as the route shows it. Raises `ResponseNotFoundError`, `StoreError`."""
        with self._database.reading() as connection:
            body = connection.execute(select(RESPONSE.c.body).where(RESPONSE.c.id == response)).scalar_one_or_none()
        if body is None:
            raise not_found(response)
        found: dict[str, Any] = json.loads(body)
        return found

    def delete(self, response: str) -> None:
        """Delete a response with its items. Raises `ResponseNotFoundError`, `StoreError`."""
        with self._database.writing() as connection:
            if not connection.execute(delete(RESPONSE).where(RESPONSE.c.id == response)).rowcount:
                raise not_found(response)

    def inputs(self, response: str, limit: int, after: str | None, latest_first: bool) -> list[dict[str, Any]]:
        """Up to `limit` of the items that a response was given, after the item `after`. Raises
        `ResponseNotFoundError`, `StoreError`."""
        self.get(response)
        number = RESPONSE_ITEM.c.number
        wanted = select(RESPONSE_ITEM.c.body).where(
            RESPONSE_ITEM.c.response == response, RESPONSE_ITEM.c.is_output == 0
        )
        if after is not None:
            place = select(number).where(RESPONSE_ITEM.c.id == after, RESPONSE_ITEM.c.response == response)
            before = number < place.scalar_subquery() if latest_first else number > place.scalar_subquery()
            wanted = wanted.where(before)
        with self._database.reading() as connection:
            found = connection.execute(wanted.order_by(number.desc() if latest_first else number).limit(limit))
            return [json.loads(body) for body in found.scalars()]

    def history(self, response: str) -> list[dict[str, Any]]:
        """The items of a response and of those before it, the oldest first. Raises `ResponseNotFoundError` if one was
        deleted, `InvalidRequestError` if there are too many, and `StoreError`."""
        parts: list[list[dict[str, Any]]] = []
        next_one: str | None = response
        with self._database.reading() as connection:
            while next_one is not None:
                if len(parts) == LONGEST_CHAIN:
                    raise InvalidRequestError(f"More than {LONGEST_CHAIN} responses follow one another. Begin anew.")
                row = connection.execute(select(RESPONSE.c.previous).where(RESPONSE.c.id == next_one)).one_or_none()
                if row is None:
                    raise not_found(next_one)
                items = select(RESPONSE_ITEM.c.body).where(RESPONSE_ITEM.c.response == next_one)
                found = connection.execute(items.order_by(RESPONSE_ITEM.c.number)).scalars()
                parts.append([json.loads(body) for body in found])
                next_one = row.previous
        return [item for part in reversed(parts) for item in part]

    def item(self, item: str) -> tuple[str, dict[str, Any]] | None:
        """The response of an item, and the item; None: there is none of that id."""
        wanted = select(RESPONSE_ITEM.c.response, RESPONSE_ITEM.c.body).where(RESPONSE_ITEM.c.id == item)
        with self._database.reading() as connection:
            row = connection.execute(wanted).one_or_none()
        return None if row is None else (row.response, json.loads(row.body))


def not_found(response: str) -> ResponseNotFoundError:
    """The error for a response that is not there."""
    return ResponseNotFoundError(
        f"There is no response {response!r}. Those that were asked for with store: false are not saved."
    )
