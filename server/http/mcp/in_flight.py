"""The calls that a notification may cancel.

The current protocol has no such notification: its clients close the connection. Ids of requests are unique for one
client alone, and a session tells two clients of a person apart.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from server.jobs.live_call import LiveCall

Key = tuple[str, str, str, str | int]
"""Who calls, in which workspace, the client's session, and the request's id."""


class CallsInFlight:
    """The calls that a notification may cancel. Safe for any number of threads."""

    def __init__(self) -> None:
        self._calls: dict[Key, LiveCall] = {}
        self._changing = threading.Lock()

    @contextmanager
    def known(self, key: Key, call: LiveCall) -> Iterator[None]:
        """Within this block the call can be cancelled."""
        with self._changing:
            self._calls[key] = call
        try:
            yield
        finally:
            with self._changing:
                if self._calls.get(key) is call:
                    del self._calls[key]

    def cancel(self, key: Key) -> None:
        """Cancel a call, unless it has ended."""
        with self._changing:
            call = self._calls.get(key)
        if call is not None:
            call.stop("its client has cancelled it")
