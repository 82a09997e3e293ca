"""The socket and the HTTP server, waitress: one process, many threads."""

import logging
import math
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from heapq import nsmallest
from pathlib import Path
from typing import Any

from flask import Flask
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher
from werkzeug.wrappers import Request

from constants import Settings
from server.http.channel import Channel
from server.http.concurrency_limit import max_waiting
from server.http.proxies import Proxied
from server.http.request_parser import READ_AND_DROPPED_BYTES
from server.http.tls import DESCRIPTORS, TlsFront

log = logging.getLogger(__name__)

QUICK_THREADS = 8
"""Threads for requests that never wait."""
RECEIVED_BYTES = 64 * 1024
"""Maximum size of what is read from a connection at once."""
UNSENT_BYTES = 1024 * 1024
"""Size of unsent data of a connection from which its writer waits. waitress holds in memory what it has sent, up to
this size: with its own default of 16 MiB, some downloads at once would take hundreds of megabytes."""
MOST_CONNECTIONS = 1000
"""Above it the connection that has been idle for longest is closed."""
FEWEST_CONNECTIONS = 32
PAUSE_SECONDS = 0.5
"""Pause after a connection could not be accepted."""
CLOSED_AT_ONCE = 16
"""Maximum number of idle connections that are closed then."""
REPORT_SECONDS = 60.0
"""Interval of the log lines about it."""
FLUSH_SECONDS = 2.0


class Server(TcpWSGIServer):
    """Accepts connections. Makes room for a new one by closing one that is idle."""

    next_channel_cleanup = math.inf
    """waitress' own time for it, of the wall clock."""

    def __init__(
        self,
        app: Proxied,
        bound: socket.socket,
        channel: Callable[..., Channel],
        threads: int,
        adj: Adjustments,
        is_fed: bool,
    ) -> None:
        """`is_fed`: connections come by `admit` alone."""
        self._is_fed = is_fed
        self._most = most_connections(DESCRIPTORS if is_fed else 1)
        self._accepts_from = self._reports_from = self._cleans_from = 0.0
        self.channel_class = channel
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(threads)
        address = (bound.family, bound.type, bound.proto, bound.getsockname())
        super().__init__(app, {}, True, bound, dispatcher, adj, address, bind_socket=False)

    def readable(self) -> bool:
        """Whether a connection may be accepted. Closes idle ones now and then."""
        now = time.monotonic()
        if now >= self._cleans_from:
            self._cleans_from = now + self.adj.cleanup_interval
            self.maintenance(now)
        return bool(super().readable()) and time.monotonic() >= self._accepts_from and not self._is_fed

    def admit(self, connection: socket.socket, address: Any) -> None:
        """Serve a connection that another thread has accepted. `address`: of its client."""

        def begin() -> None:
            connection.setblocking(False)
            self.channel_class(self, connection, self.fix_addr(address), self.adj, map=self._map)
            self._make_room()

        # Only the loop's own thread may add to what it polls.
        self.trigger.pull_trigger(begin)

    def accept(self) -> Any:
        """See `wasyncore.dispatcher`. Without a descriptor for the connection it waits a while."""
        try:
            accepted = super().accept()
        except OSError as error:
            now = time.monotonic()
            self._accepts_from = now + PAUSE_SECONDS
            if now >= self._reports_from:
                self._reports_from = now + REPORT_SECONDS
                log.error("connections can't be accepted: %s. Idle ones are closed.", error)
            self._close_idle(CLOSED_AT_ONCE)
            return None
        return accepted

    def handle_accept(self) -> None:
        """See `wasyncore.dispatcher`, which would end the server after an error."""
        try:
            super().handle_accept()
        except Exception:  # boundary: one connection
            log.exception("a connection could not be accepted")
        self._make_room()

    def _make_room(self) -> None:
        if sum(not channel.will_close for channel in self.active_channels.values()) > self._most:
            self._close_idle(1)

    def _close_idle(self, most: int) -> None:
        idle = [one for one in self.active_channels.values() if not one.requests and not one.will_close]
        for channel in nsmallest(most, idle, key=lambda one: one.last_activity):
            channel.will_close = True


def most_connections(descriptors: int = 1) -> int:
    """As many as fill half of the descriptors that this process may have, and `MOST_CONNECTIONS` at most."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, limit // 2 // descriptors))


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

    def __init__(
        self,
        app: Flask,
        bound: socket.socket,
        settings: Settings,
        spool: Path,
        may_send_body: Callable[[Request], bool],
        context: ssl.SSLContext | None = None,
    ) -> None:
        """`spool`: the folder for uploads as they arrive. `may_send_body`: see `RequestParser`. `context`: of TLS;
        None: none is spoken."""
        adjustments = Adjustments(
            sockets=[bound],
            # So that it is read, and noticed, when a client closes a connection that is being answered.
            channel_request_lookahead=1,
            # Only when none of them is idle.
            connection_limit=most_connections() + FEWEST_CONNECTIONS,
            asyncore_use_poll=True,
            # So that an upload of 1 GB takes thousands of turns of the loop and not hundreds of thousands.
            recv_bytes=RECEIVED_BYTES,
            outbuf_high_watermark=UNSENT_BYTES,
            max_request_body_size=max(settings.MAX_BODY_BYTES, READ_AND_DROPPED_BYTES) + 1,
            ident=None,
            url_scheme="http" if context is None else "https",
            # `Proxied` does it.
            clear_untrusted_proxy_headers=False,
        )
        # The maximum that waits for runs, for something else, for events, and for files, plus some that never wait.
        threads = settings.MAX_RUNS + 3 * max_waiting(settings) + QUICK_THREADS
        self._server = Server(
            Proxied(app, settings.TRUSTED_PROXIES),
            bound,
            partial(Channel, settings, spool, may_send_body),
            threads,
            adjustments,
            is_fed=context is not None,
        )
        self._front = (
            None
            if context is None
            # Some more than waitress serves: those whose TLS begins or ends.
            else TlsFront(bound, context, most_connections(DESCRIPTORS) + FEWEST_CONNECTIONS, self._server.admit)
        )

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
        if self._front is not None:
            self._front.start()
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
        if self._front is not None:
            for channel in list(self._server.active_channels.values()):
                with suppress(OSError):  # it has just ended
                    channel.socket.shutdown(socket.SHUT_WR)
            if not self._front.stop(max(deadline - time.monotonic(), 0.1)):
                log.warning("some answers could not be sent over TLS")
