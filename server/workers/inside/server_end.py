"""The server as a worker sees it: what is asked of it, and what comes back."""

import itertools
import queue
import threading
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

from server import errors
from server.errors import HearthError, OutOfTokensError
from server.sdk.run import current_tool
from server.workers.messages import Channel

job: ContextVar[int | None] = ContextVar("job", default=None)
"""The job that this context works for; None where it is none's, as on a thread that a tool has started itself."""


class UnknownGrammarError(Exception):
    """The server has not got the grammar of that name, or not any more."""


class ServerEnd:
    """Any number of threads may ask; the thread that reads the channel hands the replies over."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._changing = threading.Lock()

    def send(self, kind: str, **fields: Any) -> None:
        """A message that has no reply."""
        self._channel.send({"kind": kind, **fields})

    def ask(self, what: str, **given: Any) -> dict[str, Any]:
        """The one reply. Raises the error that the server replies."""
        stream = self.stream(what, **given)
        while True:
            try:
                next(stream)
            except StopIteration as end:
                reply: dict[str, Any] = end.value
                return reply

    def stream(self, what: str, **given: Any) -> Generator[dict[str, Any], None, dict[str, Any]]:
        """Parts of the reply as they come, and its last part as the generator's value. Closing the generator leaves
        the call."""
        call = next(self._numbers)
        replies: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._changing:
            self._waiting[call] = replies
        over = False
        try:
            self.send("ask", call=call, job=job.get(), tool=current_tool(), what=what, given=given)
            while True:
                reply = replies.get()
                if reply["kind"] == "part":
                    yield reply["value"]
                    continue
                over = True
                if "error" in reply:
                    raise revived(reply["error"])
                value: dict[str, Any] = reply["value"]
                return value
        finally:
            with self._changing:
                self._waiting.pop(call, None)
            if not over:
                self.send("leave", call=call)

    def deliver(self, message: dict[str, Any]) -> None:
        """A reply, or a part of one, has come."""
        with self._changing:
            replies = self._waiting.get(message["call"])
        if replies is not None:
            replies.put(message)


def revived(error: dict[str, Any]) -> Exception:
    """The error that the server replied, as it was there."""
    kind = getattr(errors, error["type"], None)
    if isinstance(kind, type) and issubclass(kind, HearthError):
        return kind(error["message"], **error["details"])
    others = (UnknownGrammarError, OutOfTokensError, ValueError, TypeError)
    own = next((one for one in others if one.__name__ == error["type"]), RuntimeError)
    return own(error["message"])
