"""What happens in a collection, for those who follow it: progress, and changes of its documents."""

import threading
import time
from collections import OrderedDict
from typing import Any
from weakref import WeakValueDictionary

from server.runs.events import Events, Kind
from server.store.document_types import Document

MOST_CHARACTERS = 400_000
"""Maximum length of the events of a collection that are kept."""
MOST_COLLECTIONS = 256
"""Maximum number of collections whose events are kept, in addition to those that somebody follows."""


class CollectionFeeds:
    """The events of collections, by their keys, in memory. Safe for any number of threads."""

    def __init__(self) -> None:
        self._followed: WeakValueDictionary[int, Events] = WeakValueDictionary()
        self._recent: OrderedDict[int, Events] = OrderedDict()
        self._changing = threading.Lock()

    def events(self, collection: int) -> Events:
        """The events of a collection. They end when it is deleted."""
        with self._changing:
            found = self._followed.get(collection)
            if found is None:
                # Numbers that are higher than those before a restart, so that Last-Event-ID stays meaningful.
                found = Events(last=("end",), first=int(time.time() * 1000), longest=MOST_CHARACTERS)
                self._followed[collection] = found
            self._recent[collection] = found
            self._recent.move_to_end(collection)
            while len(self._recent) > MOST_COLLECTIONS:
                self._recent.popitem(last=False)
        return found

    def on_progress(self, document: Document, vectors: int) -> None:
        """A document has so many vectors now."""
        self._publish("progress", document, {"vectors": vectors, "chunks": document.chunks})

    def on_state(self, document: Document, state: str, error: str | None = None) -> None:
        """A document has another state: `embedding`, `ready`, `words_only` or `deleted`."""
        self._publish("state", document, {"state": state, "error": error})

    def on_deleted(self, collection: int) -> None:
        """The collection is gone."""
        self.events(collection).publish("end", {})

    def _publish(self, kind: Kind, document: Document, data: dict[str, Any]) -> None:
        self.events(document.collection).publish(kind, {"document_id": document.id, "name": document.name, **data})
