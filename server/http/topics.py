"""Topics: what can be followed and by whom, and the events of several of them for one reader."""

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from server.errors import HearthError, InvalidRequestError
from server.host import Host
from server.people.principal import Principal
from server.runs import Events
from server.store.document_types import Scope

MOST_TOPICS = 64
"""Maximum number of topics of a reader."""
BATCH_SECONDS = 0.03
"""Minimum interval between two batches: text that a model writes is merged within it."""
LOAD = "load"
OF_OTHERS = ("owner", "priority", "state", "position", "seconds", "tokens", "steps")
"""What a person sees of the runs of others."""
MISSING = "missing"
"""The kind of the event that says that a reader can't follow a topic, or can't any more."""


@dataclass(frozen=True)
class TopicEvent:
    """An event of a topic. `key`: the reader's name for the topic. `id`: the number of the event within it."""

    key: str
    id: int
    kind: str
    data: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """As readers get it."""
        return asdict(self)


@dataclass
class Followed:
    """A topic of a reader, read up to the event `after`."""

    key: str
    after: int
    topic: str
    events: Events


class Following:
    """The topics of one reader. Not safe for several threads at once, but for `open`, `lost` and `renew`. The
    first two may take a while: they ask the database."""

    def __init__(self, host: Host, principal: Principal, notify: Callable[[], object]) -> None:
        """`notify` is called, on any thread, when there may be something to read."""
        self._host = host
        self._asker = self._principal = principal
        self._notify = notify
        self._followed: list[Followed] = []
        self._seen: tuple[int, frozenset[str]] | None = host.credentials.rights_now(principal)
        self._renewing = threading.Lock()

    def __len__(self) -> int:
        return len(self._followed)

    def __contains__(self, key: str) -> bool:
        return any(one.key == key for one in self._followed)

    def open(self, key: str, after: int, topic: str) -> Followed:
        """A topic, for `add`. Raises the error that the caller of `GET /runs/<id>` and so on would get."""
        self._check(self._principal, topic)
        return Followed(key, after, topic, self._events_of(topic))

    def add(self, topic: Followed) -> None:
        """Follow a topic."""
        self._followed.append(topic)
        topic.events.listen(self._notify)
        if topic.topic == LOAD:
            self._host.load.watch()
        self._notify()

    def remove(self, key: str) -> bool:
        """Follow the topics of that key no longer. Returns whether there were any."""
        removed = [one for one in self._followed if one.key == key]
        for one in removed:
            self._drop(one)
        return bool(removed)

    def read(self) -> tuple[list[TopicEvent], list[str]]:
        """The events since the last call, and the keys of topics that have ended with them: these are removed."""
        found: list[TopicEvent] = []
        ended: list[str] = []
        for one in list(self._followed):
            # Before the events are read: the last one may come right after.
            is_last = one.events.ended
            for event in one.events.since(one.after):
                one.after = event.number
                data = load_shown(event.data, self._principal) if one.topic == LOAD else event.data
                found.append(TopicEvent(one.key, event.number, event.kind, data))
            if is_last:
                ended.append(one.key)
                self._drop(one)
        return found, ended

    def renew(self, principal: Principal) -> None:
        """The reader is the same person, with another credential. Its rights count from now on."""
        with self._renewing:
            self._asker = self._principal = principal
            self._seen = None

    def lost(self) -> list[str]:
        """The keys of topics that the reader may not follow any more, since something has changed among people, or
        what an admin has opened is closed again."""
        credentials, asker = self._host.credentials, self._asker
        rights = credentials.rights_now(asker)
        if rights == self._seen:
            return []
        # Their role may be another one too. What follows ends as a whole if their credential does.
        principal = credentials.again(asker) or asker
        with self._renewing:
            if self._asker is asker:
                self._seen, self._principal = rights, principal
        return [one.key for one in list(self._followed) if not self._is_allowed(one.topic)]

    def close(self) -> None:
        """Follow nothing any more."""
        for one in list(self._followed):
            self._drop(one)

    def _drop(self, one: Followed) -> None:
        self._followed.remove(one)
        one.events.unlisten(self._notify)
        if one.topic == LOAD:
            self._host.load.unwatch()

    def _is_allowed(self, topic: str) -> bool:
        try:
            self._check(self._principal, topic)
        except HearthError:
            return False
        return True

    def _check(self, principal: Principal, topic: str) -> None:
        permissions = self._host.permissions
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

    def _events_of(self, topic: str) -> Events:
        host = self._host
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
            f"There is no topic {topic[:200]!r}. There are run/ID, job/ID, comparison/ID, session/WORKSPACE/ID, "
            "collection/WORKSPACE/NAME, collection/WORKSPACE/NAME/SESSION and load."
        )


def load_shown(sample: dict[str, Any], principal: Principal) -> dict[str, Any]:
    """A sample of the load as a person may see it: that others ask, and not what; workers, whose names are those of
    workspaces, for admins only."""
    if principal.everything:
        return sample
    hidden = () if "admin" in principal.scopes else ("workers",)
    shown = {name: value for name, value in sample.items() if name not in hidden}
    shown["runs"] = [
        run if run["owner"] == principal.name else {name: run[name] for name in OF_OTHERS} for run in sample["runs"]
    ]
    return shown
