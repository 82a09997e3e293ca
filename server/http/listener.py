"""The socket and the HTTP server, waitress: one process, many threads."""

import json
import logging
import socket
import threading
import time
from typing import Any

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask

from constants import Settings
from server.errors import TooLargeError
from server.http.concurrency_limit import max_waiting

log = logging.getLogger(__name__)

QUICK_THREADS = 8
"""Threads for requests that never wait."""
MOST_CONNECTIONS = 1000
READ_AND_DROPPED_BYTES = 16 * 1024 * 1024
"""A body over the limit is read up to here, so that the client sees the error and not a broken connection."""
FLUSH_SECONDS = 2.0


class JsonErrorTask(ErrorTask):
    """waitress' own error responses, in the JSON shape of all errors."""

    def execute(self) -> None:
        problem = self.request.error
        kind = (
            TooLargeError.code if problem.code == TooLargeError.status else problem.reason.lower().replace(" ", "_")
        )
        body = json.dumps({"error": {"type": kind, "message": f"{problem.reason}: {problem.body}."}}).encode()
        self.status = f"{problem.code} {problem.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):
    """A connection."""

    error_task_class = JsonErrorTask


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound and not yet listened on. Raises `OSError`."""
    # An IPv4 address if there is one: `localhost` may be both, and is mostly meant, and tried, as this one.
    found = sorted(
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), key=lambda entry: entry[0] != socket.AF_INET
    )
    family, _, _, _, address = found[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


class Listener:
    """Serves an application on a bound socket, from threads of its own."""

    def __init__(self, app: Flask, bound: socket.socket, settings: Settings) -> None:
        self._server: Any = create_server(
            app,
            sockets=[bound],
            # The maximum that waits for runs, for something else, and for events, plus some that never wait.
            threads=settings.MAX_RUNS + 2 * max_waiting(settings) + QUICK_THREADS,
            # So that it is read, and noticed, when a client closes a connection that is being answered.
            channel_request_lookahead=1,
            connection_limit=MOST_CONNECTIONS,
            asyncore_use_poll=True,
            max_request_body_size=max(settings.MAX_BODY_BYTES, READ_AND_DROPPED_BYTES) + 1,
            ident=None,
        )
        self._server.channel_class = Channel

    def start(self) -> threading.Event:
        """Begin to serve. The event is set should serving end by itself."""
        ended = threading.Event()

        def serve() -> None:
            try:
                self._server.run()
            except Exception:  # boundary: the thread's end
                log.exception("the server's loop failed")
            ended.set()

        threading.Thread(target=serve, name="listener", daemon=True).start()
        return ended

    def stop(self) -> None:
        """Let the requests that are being answered end, and their answers leave."""
        self._server.task_dispatcher.shutdown()
        deadline = time.monotonic() + FLUSH_SECONDS
        while any(channel.total_outbufs_len for channel in list(self._server.active_channels.values())):
            if time.monotonic() > deadline:
                log.warning("some answers could not be sent")
                break
            # waitress does not report when a buffer is empty.
            time.sleep(0.01)
