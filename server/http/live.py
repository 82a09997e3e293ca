"""`GET /events`: everything that a browser follows, over one connection; and `GET /load`.

A browser opens few connections to a server. Its tabs share one stream, which carries the events of several topics.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from itertools import chain
from typing import Annotated, Any

from flask import Response
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field

from server.errors import HearthError, InvalidRequestError
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.schemas import EVENTS, ErrorAnswer, NoQuery
from server.http.sse import LOOK_SECONDS, PING, ServerSentEvent, event_stream
from server.http.topics import BATCH_SECONDS, MISSING, MOST_TOPICS, Following, TopicEvent, load_shown

Answers = dict[int | str | HTTPStatus, Any]


class FollowQuery(BaseModel):
    """What to follow."""

    model_config = ConfigDict(extra="forbid")

    follow: Annotated[list[str], Field(min_length=1, max_length=MOST_TOPICS)] = Field(
        description="`KEY:AFTER:TOPIC` for each topic. KEY: a name that its events carry; AFTER: the id of the last "
        "event that was read, 0 for all; TOPIC: `run/ID`, `job/ID`, `comparison/ID`, `session/WORKSPACE/ID`, "
        "`collection/WORKSPACE/NAME`, `collection/WORKSPACE/NAME/SESSION` or `load`."
    )


class LoadShown(BaseModel):
    """The server's load."""

    model_config = ConfigDict(extra="allow")

    sample: dict[str, Any]
    history: list[dict[str, float]]


def blueprint(host: Host, event_streams: ConcurrencyLimit) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("live", __name__)

    @routes.get(
        "/events",
        summary="Follow several runs, jobs, sessions, collections or the server's load over one connection",
        responses={200: EVENTS, **dict.fromkeys((422, 429), ErrorAnswer)},
    )
    @access("read", "caller")
    def follow(query: FollowQuery) -> Response:
        wishes = [_read(wish) for wish in query.follow]
        news = threading.Event()
        following = Following(host, caller(), news.set)
        held = ExitStack()
        held.enter_context(event_streams.acquire())
        held.callback(following.close)
        missing: list[ServerSentEvent] = []
        for key, after, topic in wishes:
            try:
                following.add(following.open(key, after, topic))
            except HearthError as error:
                # The others are followed all the same.
                missing.append(_written(TopicEvent(key, 0, MISSING, error.to_dict()["error"])))
        batches = chain([[PING, *missing]], _batches(following, news, host.closing.is_set))
        return event_stream(lambda _: batches, when_left=held.close)

    @routes.get(
        "/load", summary="What runs and waits now, and the last hour's tokens a second", responses={200: LoadShown}
    )
    @access("read", "caller")
    def load(query: NoQuery) -> dict[str, Any]:
        return {"sample": load_shown(host.load.now(), caller()), "history": host.load.history()}

    return routes


def _read(wish: str) -> tuple[str, int, str]:
    key, _, rest = wish.partition(":")
    after, _, topic = rest.partition(":")
    if not (key and topic and after.isascii() and after.isdigit() and len(after) <= 18):
        raise InvalidRequestError(f"follow: {wish[:100]!r} is not KEY:AFTER:TOPIC, like 1:0:load.")
    return key, int(after), topic


def _written(event: TopicEvent) -> ServerSentEvent:
    return None, None, event.as_json()


def _batches(
    following: Following, news: threading.Event, is_closing: Callable[[], bool]
) -> Iterator[list[ServerSentEvent]]:
    """The events of all topics in batches, with an empty batch now and then."""
    while not is_closing():
        is_news = news.wait(LOOK_SECONDS)
        batch: list[ServerSentEvent] = []
        for key in following.lost():
            following.remove(key)
            batch.append(_written(TopicEvent(key, 0, MISSING, {})))
        if not is_news:
            yield batch
            continue
        news.clear()
        batch += [_written(event) for event in following.read()[0]]
        yield batch
        time.sleep(BATCH_SECONDS)
