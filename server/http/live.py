"""`GET /events`: everything that a browser follows, over one connection; and `GET /load`.

A browser opens few connections to a server. Its tabs share one stream, which carries the events of several topics.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
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
from server.people.principal import Principal
from server.runs import Events
from server.store.document_types import Scope

BATCH_SECONDS = 0.03
"""Minimum interval between two batches: text that a model writes is merged within it."""
MOST_TOPICS = 64
LOAD = "load"
OF_OTHERS = ("owner", "priority", "state", "position", "seconds", "tokens", "steps")
"""What a person sees of the runs of others."""

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


@dataclass
class _Followed:
    key: str
    after: int
    topic: str
    events: Events
    shown: Callable[[dict[str, Any]], dict[str, Any]]
    """An event's data as this reader may see them."""


def blueprint(host: Host, event_streams: ConcurrencyLimit) -> APIBlueprint:
    """The routes, over `host`."""
    routes = APIBlueprint("live", __name__)

    permissions = host.permissions

    def check(principal: Principal, topic: str) -> None:
        """Raises the error that the caller of `GET /runs/<id>` and so on would get."""
        match topic.split("/"):
            case ["run", run]:
                permissions.check_run(principal, run, writes=False)
            case ["job", job]:
                permissions.check_job(principal, job, writes=False)
            case ["comparison", comparison]:
                permissions.check_comparison(principal, comparison, writes=False)
            case ["session", workspace, session]:
                permissions.check_session(principal, workspace, session, writes=False)
            case ["collection", workspace, _]:
                permissions.check_workspace(principal, workspace)
            case ["collection", workspace, _, session]:
                permissions.check_session(principal, workspace, session, writes=False)

    def events_of(topic: str) -> Events:
        match topic.split("/"):
            case ["run", run]:
                return host.runs.get(run).events
            case ["job", job]:
                return host.jobs.events(job)
            case ["comparison", comparison]:
                return host.comparisons.events(comparison)
            case ["session", workspace, session]:
                return host.feeds.events(host.workspaces.get(workspace).name, session)
            case ["collection", workspace, name, *session] if len(session) <= 1:
                scope = Scope(host.workspaces.get(workspace).name, "".join(session))
                return host.documents.events(host.documents.store.collection(scope, name))
            case ["load"]:
                return host.load.events
        raise InvalidRequestError(
            f"There is no topic {topic!r}. There are run/ID, job/ID, comparison/ID, session/WORKSPACE/ID, "
            "collection/WORKSPACE/NAME, collection/WORKSPACE/NAME/SESSION and load."
        )

    @routes.get(
        "/events",
        summary="Follow several runs, jobs, sessions, collections or the server's load over one connection",
        responses={200: EVENTS, **dict.fromkeys((422, 429), ErrorAnswer)},
    )
    @access("read", "caller")
    def follow(query: FollowQuery) -> Response:
        principal = asker = caller()
        followed: list[_Followed] = []
        missing: list[ServerSentEvent] = []
        for wish in query.follow:
            key, after, topic = _read(wish)
            try:
                check(principal, topic)
                shown = (lambda sample: _load_shown(sample, principal)) if topic == LOAD else dict
                followed.append(_Followed(key, after, topic, events_of(topic), shown))
            except HearthError as error:
                # The others are followed all the same.
                missing.append(
                    (None, None, {"key": key, "id": 0, "kind": "missing", "data": error.to_dict()["error"]})
                )
        held = ExitStack()
        held.enter_context(event_streams.acquire())
        if any(one.events is host.load.events for one in followed):
            host.load.watch()
            held.callback(host.load.unwatch)

        seen = host.credentials.known.number

        def lost() -> list[_Followed]:
            """What the caller may not follow any more, since something has changed among people."""
            nonlocal seen, principal
            number = host.credentials.known.number
            if number == seen:
                return []
            # Their role may be another one too. The whole stream ends if their credential does.
            seen, principal = number, host.credentials.again(asker) or asker
            return [one for one in followed if not _is_allowed(partial(check, principal, one.topic))]

        batches = chain([[PING, *missing]], _batches(followed, lost, host.closing.is_set))
        return event_stream(lambda _: batches, when_left=held.close)

    @routes.get(
        "/load", summary="What runs and waits now, and the last hour's tokens a second", responses={200: LoadShown}
    )
    @access("read", "caller")
    def load(query: NoQuery) -> dict[str, Any]:
        return {"sample": _load_shown(host.load.now(), caller()), "history": host.load.history()}

    return routes


def _read(wish: str) -> tuple[str, int, str]:
    key, _, rest = wish.partition(":")
    after, _, topic = rest.partition(":")
    if not (key and topic and after.isascii() and after.isdigit() and len(after) <= 18):
        raise InvalidRequestError(f"follow: {wish[:100]!r} is not KEY:AFTER:TOPIC, like 1:0:load.")
    return key, int(after), topic


def _load_shown(sample: dict[str, Any], principal: Principal) -> dict[str, Any]:
    """A sample as a person may see it: that others ask, and not what; workers, whose names are those of workspaces,
    for admins only."""
    if principal.everything:
        return sample
    hidden = () if "admin" in principal.scopes else ("workers",)
    shown = {name: value for name, value in sample.items() if name not in hidden}
    shown["runs"] = [
        run if run["owner"] == principal.name else {name: run[name] for name in OF_OTHERS} for run in sample["runs"]
    ]
    return shown


def _is_allowed(check: Callable[[], None]) -> bool:
    try:
        check()
    except HearthError:
        return False
    return True


def _batches(
    followed: list[_Followed], lost: Callable[[], list[_Followed]], is_closing: Callable[[], bool]
) -> Iterator[list[ServerSentEvent]]:
    """The events of all topics in batches, with an empty batch now and then."""
    news = threading.Event()
    for one in followed:
        one.events.listen(news)
    try:
        news.set()
        while not is_closing():
            is_news = news.wait(LOOK_SECONDS)
            batch: list[ServerSentEvent] = []
            for one in lost():
                followed.remove(one)
                one.events.unlisten(news)
                batch.append((None, None, {"key": one.key, "id": 0, "kind": "missing", "data": {}}))
            if not is_news:
                yield batch
                continue
            news.clear()
            for one in followed:
                for event in one.events.since(one.after):
                    one.after = event.number
                    data = {"key": one.key, "id": event.number, "kind": event.kind, "data": one.shown(event.data)}
                    batch.append((None, None, data))
            yield batch
            time.sleep(BATCH_SECONDS)
    finally:
        for one in followed:
            one.events.unlisten(news)
