"""Who acts, in the code that an event comes from."""

from contextvars import ContextVar

SERVER = "server"
"""The actor of what the server does by itself: at its start, and when it loads files that somebody has saved."""

actor: ContextVar[str] = ContextVar("actor", default=SERVER)
"""The name of who has sent the request of this context."""
