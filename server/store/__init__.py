"""The database: one SQLite file in the data folder, or a PostgreSQL database.

The rule of this folder: every change is one transaction, so that a crash at any moment leaves the state before it or
the state after it. Nothing here knows what code or answers mean; it stores bytes and records by their names.
"""

from server.store.database import Database
from server.store.generations import GenerationStore, WentLive
from server.store.runs import RunStore
from server.store.sessions import Exchange, SessionShown, SessionStore

__all__ = ["Database", "Exchange", "GenerationStore", "RunStore", "SessionShown", "SessionStore", "WentLive"]
