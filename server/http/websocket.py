"""WebSocket, on a port of its own: ask, cancel and follow over one connection. https://www.rfc-editor.org/rfc/rfc6455

An adapter over the routes: questions and cancels are requests to the application within this process, and what is
followed are the topics of `GET /events`. So nobody may do more here. docs/websocket.md describes the messages.

waitress refuses upgrades, so the library websockets serves the port, from one thread with an event loop: an idle
connection costs a few kilobytes and no thread.
"""

import asyncio
import logging
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

from flask import Flask
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as Upgrade
from websockets.http11 import Response as Refusal

from server.host import Host
from server.http import auth
from server.http.listener import most_connections
from server.http.sse import LOOK_SECONDS
from server.http.websocket_conversation import (
    AUTH_BYTES,
    AUTH_SECONDS,
    GOODBYE_SECONDS,
    PATH,
    UNAUTHORIZED,
    Conversation,
)

log = logging.getLogger(__name__)

PING_SECONDS = 20.0
"""Interval of pings; a client that answers none for as long is gone."""
DESCRIPTORS = 4
"""One in so many of this process's connections may be one of these."""
THREADS = 16
"""Maximum number of messages that are answered at the same time."""
GOING_AWAY = 1001
USUAL_PORTS = {"http": 80, "https": 443}


class WebSocketServer:
    """Serves WebSocket clients at a bound socket, on a thread of its own."""

    def __init__(
        self, app: Flask, host: Host, bound: socket.socket, http_port: int, context: ssl.SSLContext | None
    ) -> None:
        """`http_port`: where the pages are. `context`: of TLS; None: none is spoken."""
        self._app = app
        self._host = host
        self._bound = bound
        self._http_port = http_port
        self._context = context
        self._pages = [auth.origin_pattern(origin) for origin in host.settings.CORS_ORIGINS]
        self._places = _Places(most_connections(DESCRIPTORS))
        self._conversations: set[Conversation] = set()
        self._threads = ThreadPoolExecutor(THREADS, "websocket")
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Begin to serve."""

        def run() -> None:
            try:
                self._loop.run_until_complete(self._serve())
            except Exception:  # boundary: the thread's end
                log.exception("the WebSocket server failed")

        self._thread = threading.Thread(target=run, name="websocket", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what there is to send, and close all connections."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(3 * GOODBYE_SECONDS)

    async def _serve(self) -> None:
        # What goes wrong with one connection before it is open is its client's trouble, and no line of the log.
        quiet = logging.getLogger("websockets.server")
        quiet.setLevel(logging.CRITICAL)
        of_tls: dict[str, Any] = {} if self._context is None else {"ssl_handshake_timeout": AUTH_SECONDS}
        async with serve(
            self._talk,
            sock=self._bound,
            ssl=self._context,
            **of_tls,
            process_request=self._admit,
            create_connection=cast(type[ServerConnection], partial(_Connection, places=self._places)),
            # It would hold memory for each connection, and a small message could become a large one.
            compression=None,
            server_header=None,
            open_timeout=AUTH_SECONDS,
            close_timeout=GOODBYE_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            max_size=AUTH_BYTES,
            max_queue=2,
            logger=quiet,
        ):
            looking = self._loop.create_task(self._look())
            await self._stopping.wait()
            looking.cancel()
            await asyncio.gather(*(one.end(GOING_AWAY, "The server ends.") for one in list(self._conversations)))

    def _admit(self, connection: ServerConnection, upgrade: Upgrade) -> Refusal | None:
        """Refuse a request before its connection is open; None: it is welcome."""
        if upgrade.path.partition("?")[0] != PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, f"WebSocket clients connect to {PATH}.\n")
        hosts, origins = upgrade.headers.get_all("Host"), upgrade.headers.get_all("Origin")
        if len(hosts) != 1 or len(origins) > 1:
            return connection.respond(
                HTTPStatus.BAD_REQUEST, "A request has the header Host once, and Origin once or not at all.\n"
            )
        for origin in origins:
            if not self._may_call(origin, hosts[0]):
                return connection.respond(
                    HTTPStatus.FORBIDDEN,
                    f"Pages of {origin[:200]} may not call the server. HEARTH_CORS_ORIGINS says which may.\n",
                )
        return None

    def _may_call(self, origin: str, host: str) -> bool:
        """Whether a page may: one of the server's own, whose port is another one, or one of HEARTH_CORS_ORIGINS."""
        if any(page.match(origin) for page in self._pages):
            return True
        try:
            page, ours = urlsplit(origin), urlsplit(f"//{host}")
            usual = USUAL_PORTS.get(page.scheme)
            is_ours = (page.port or usual) in (ours.port or usual, self._http_port)
        except ValueError:
            return False
        return is_ours and page.hostname is not None and page.hostname == ours.hostname

    async def _talk(self, connection: ServerConnection) -> None:
        try:
            conversation = Conversation(self._app, self._host, connection, self._threads)
            if not await conversation.begin():
                return
            self._places.know(connection)
            self._conversations.add(conversation)
            try:
                await conversation.run()
            finally:
                self._conversations.discard(conversation)
        except ConnectionClosed:
            pass  # its client has left
        except Exception:  # boundary: one connection
            log.exception("a WebSocket connection failed")

    async def _look(self) -> None:
        """Notice now and then who may not follow any more what they follow."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            conversations = list(self._conversations)
            try:
                # Not on the threads that answer messages, which may all be busy.
                allowed = await asyncio.to_thread(_look_at, conversations)
            except Exception:  # boundary: one look; without the next ones a revoked credential would count on
                log.exception("whether WebSocket clients may stay was not checked")
                continue
            for one, is_allowed in zip(conversations, allowed, strict=True):
                if not is_allowed:
                    # Not awaited: a client that does not read must not hold up the others.
                    one.end_soon(UNAUTHORIZED, "The credential was revoked, or has expired.")


def _look_at(conversations: list[Conversation]) -> list[bool]:
    return [one.look() for one in conversations]


class _Places:
    """The places for connections. Used by the event loop's thread alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[ServerConnection] = set()
        self._unknown: dict[ServerConnection, None] = {}
        """Those that have not said who they are, the oldest first."""

    def take(self, connection: ServerConnection) -> None:
        """Take a place for a new connection. If there is none, the oldest one is closed that has not said who it is:
        who has no credential must not keep the others out."""
        self._open.add(connection)
        self._unknown[connection] = None
        if len(self._open) > self._most:
            oldest = next(iter(self._unknown))
            self.leave(oldest)
            oldest.transport.abort()

    def know(self, connection: ServerConnection) -> None:
        """A connection has said who it is."""
        self._unknown.pop(connection, None)

    def leave(self, connection: ServerConnection) -> None:
        """The place is free. May be called again."""
        self._open.discard(connection)
        self._unknown.pop(connection, None)


class _Connection(ServerConnection):
    """A connection that takes a place."""

    def __init__(self, *arguments: Any, places: _Places, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._places = places

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._places.take(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._places.leave(self)
        super().connection_lost(exc)
