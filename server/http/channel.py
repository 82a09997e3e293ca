"""A connection, and its errors."""

import json
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask
from werkzeug.wrappers import Request

from constants import Settings
from server.errors import TooLargeError, UnauthorizedError
from server.http.browser import ALWAYS
from server.http.request_parser import RequestParser

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


class JsonErrorTask(ErrorTask):
    """waitress' own error responses, in the JSON shape of all errors."""

    def execute(self) -> None:
        problem = self.request.error
        codes = {kind.status: kind.code for kind in (TooLargeError, UnauthorizedError)}
        kind = codes.get(problem.code) or problem.reason.lower().replace(" ", "_")
        body = json.dumps({"error": {"type": kind, "message": f"{problem.reason}: {problem.body}."}}).encode()
        self.status = f"{problem.code} {problem.reason}"
        self.response_headers += [("Content-Type", "application/json"), *ALWAYS.items()]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):
    """A connection. A client that has sent its request may close its half (shutdown of TCP): it is answered.

    A client that has closed all of it looks the same, until something is sent to it: while it waits, an interim
    response, which clients ignore (https://www.rfc-editor.org/rfc/rfc9110#section-15.2.1), and later its answer.
    """

    error_task_class = JsonErrorTask

    def __init__(
        self,
        settings: Settings,
        spool: Path,
        may_send_body: Callable[[Request], bool],
        *arguments: Any,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.parser_class = partial(RequestParser, settings, spool, may_send_body)
        self._is_half_closed = False
        self._has_begun = False
        """Whether a part of the current answer was written."""
        self._was_probed = False

    def handle_read(self) -> None:
        """See `HTTPChannel`, whose `recv` closes the connection when its client has closed one half."""
        try:
            data = self.socket.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.handle_close()
            return
        if data:
            self.last_activity = 0.0
            self.received(data)
        elif self.requests:
            self._is_half_closed = True
        else:
            self.handle_close()

    def readable(self) -> bool:
        """See `HTTPChannel`. A half-closed connection has nothing more, and ends with its last answer."""
        if not self._is_half_closed:
            return bool(super().readable())
        if not self.requests:
            self.close_when_flushed = True
        return False

    def service(self) -> None:
        """See `HTTPChannel`."""
        self._has_begun = self._was_probed = False
        super().service()

    def write_soon(self, data: Any) -> Any:
        """See `HTTPChannel`."""
        self._has_begun = True
        return super().write_soon(data)

    def check_client_disconnected(self) -> bool:
        """See `HTTPChannel`. Called by the thread that answers, now and then."""
        if not self._is_half_closed or not self.connected:
            return not self.connected
        if not self._has_begun and not self._was_probed and self.requests[0].version == "1.1":
            self._was_probed = True
            with self.outbuf_lock, suppress(OSError):  # the connection has an error then, see below
                self.socket.send(INTERIM)
        return _is_broken(self.socket)

    @property
    def is_half_closed(self) -> bool:
        """Whether its client sends nothing more, and may be gone."""
        return self._is_half_closed

    def handle_close(self) -> None:
        """See `HTTPChannel`. What has come of an unfinished request is given back at once: it may be on disk."""
        super().handle_close()
        if self.request is not None:
            self.request.close()

    @property
    def last_activity(self) -> float:
        """In seconds of `time.monotonic()`. waitress sets it to the time of the wall clock; when that is set,
        connections would look idle for hours, and be closed with a request half read."""
        return self._last_activity

    @last_activity.setter
    def last_activity(self, _: float) -> None:
        self._last_activity = time.monotonic()


def _is_broken(connection: socket.socket) -> bool:
    """Whether its other end has refused what was sent, or is closed."""
    try:
        poll = select.poll()
        poll.register(connection, 0)
        return bool(poll.poll(0))
    except (OSError, ValueError):  # it was closed meanwhile
        return True
