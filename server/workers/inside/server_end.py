"""The server, seen from a worker: requests to it, and its replies."""

import itertools
import queue
import threading
from collections.abc import Generator
from typing import Any

from server import errors
from server.bounds import bounded
from server.errors import HearthError, OutOfTokensError
from server.sdk import context
from server.workers.messages import Channel, UnknownGrammarError


class ServerEnd:
    """Any number of threads may ask. The thread that reads the channel calls `deliver` for each reply."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._changing = threading.Lock()

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message that has no reply. Its texts are shortened, except in model calls."""
        self._channel.send({"kind": kind, **(fields if kind == "ask" else bounded(fields))})

    def ask(self, what: str, **given: Any) -> dict[str, Any]:
        """Ask, and return the one reply. Raises the error that the server replies."""
        stream = self.stream(what, **given)
        while True:
            try:
                next(stream)
            except StopIteration as end:
                reply: dict[str, Any] = end.value
                return reply

    def stream(self, what: str, **given: Any) -> Generator[dict[str, Any], None, dict[str, Any]]:
        """Parts of the reply as they come, and its last part as the generator's value. Closing the generator
        cancels the call."""
        call, within = next(self._numbers), context.current()
        replies: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._changing:
            self._waiting[call] = replies
        over = False
        try:
            asked_by = {"task": within.task, "tool": within.tool, "tool_call": within.tool_call}
            self.send("ask", call=call, **asked_by, what=what, given=given)
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
        """Give a reply, or a part of one, to the thread that waits for it."""
        with self._changing:
            replies = self._waiting.get(message["call"])
        if replies is not None:
            replies.put(message)


def revived(error: dict[str, Any]) -> Exception:
    """The error that the server replied, of the same class as there."""
    kind = getattr(errors, error["type"], None)
    if isinstance(kind, type) and issubclass(kind, HearthError):
        return kind(error["message"], **error["details"])
    others = (UnknownGrammarError, OutOfTokensError, ValueError, TypeError)
    own = next((one for one in others if one.__name__ == error["type"]), RuntimeError)
    return own(error["message"])
