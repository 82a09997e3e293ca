"""TLS in front of waitress, which has none: an event loop accepts and decrypts connections, and hands each one to
waitress as one end of a pair of sockets.

The encryption and its flow control are asyncio's. A client that leaves closes its pair, so waitress sees that as it
does without TLS."""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
GOODBYE_SECONDS = 30.0
"""Maximum time for what is left to send, and for the end of TLS, which many clients never answer."""
PAUSE_SECONDS = 0.5
"""Pause after a connection could not be accepted."""
CHUNK_BYTES = 64 * 1024
DESCRIPTORS = 3
"""Of this process, for each connection."""

Admit = Callable[[socket.socket, Any], None]
"""Gets a plain connection and the address of its client."""


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What servers of this certificate speak: TLS 1.2 and 1.3. Raises `OSError` with a message for the person who
    starts the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])

    def refuse() -> str:
        # Otherwise OpenSSL would ask for it at the console.
        raise OSError("the key is encrypted; `openssl pkey -in KEY -out PLAIN_KEY` decrypts it")

    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, ssl.SSLError):
            reason = f"they are no certificate in PEM and its key ({error.reason or error})"
        raise OSError(
            f"TLS can't be used with HEARTH_TLS_CERT={certificate} and HEARTH_TLS_KEY={key}: {reason}."
        ) from error
    return context


class TlsFront:
    """Accepts TLS connections at a bound socket, on a thread of its own."""

    def __init__(self, bound: socket.socket, context: ssl.SSLContext, most: int, admit: Admit) -> None:
        """`most`: the maximum number of connections. A new one above it takes the place of one whose TLS begins or
        ends, and else is closed at once."""
        self._bound = bound
        self._context = context
        self._most = most
        self._admit = admit
        self._connections: set[asyncio.Task[None]] = set()
        self._expendable: dict[asyncio.Task[None], None] = {}
        """Of these, those whose TLS begins or ends: nothing is asked or answered over them. The oldest come first."""
        self._sending: set[asyncio.Task[None]] = set()
        """Of each connection, what sends the server's answers."""
        self._loop = asyncio.new_event_loop()

    def start(self) -> None:
        """Begin to accept."""

        def serve() -> None:
            self._loop.set_exception_handler(_report)
            self._loop.run_until_complete(self._accept())

        threading.Thread(target=serve, name="tls", daemon=True).start()

    def stop(self, seconds: float) -> bool:
        """Wait until all answers are sent; waitress' ends of the connections are closed. Returns whether they are."""

        async def wait() -> bool:
            return not self._sending or not (await asyncio.wait(list(self._sending), timeout=seconds))[1]

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result()

    async def _accept(self) -> None:
        self._bound.setblocking(False)
        while True:
            try:
                connection, address = await self._loop.sock_accept(self._bound)
            except OSError as error:
                log.error("TLS connections can't be accepted: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if len(self._connections) >= self._most:
                oldest = next(iter(self._expendable), None)
                if oldest is None:
                    connection.close()
                    continue
                oldest.cancel()
                self._forget(oldest)
            task = self._loop.create_task(self._serve(connection, address))
            self._connections.add(task)
            self._expendable[task] = None
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._expendable.pop(task, None)

    async def _serve(self, connection: socket.socket, address: Any) -> None:
        """Serve a connection to its end."""
        task = asyncio.current_task()
        assert task is not None, "it is one"
        reader = asyncio.StreamReader(CHUNK_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=GOODBYE_SECONDS,
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
            self._expendable.pop(task, None)
            try:
                await self._relay(reader, writer, address)
            finally:
                self._expendable[task] = None
                try:
                    writer.close()
                    await writer.wait_closed()
                finally:
                    # Its place may be needed before its client has answered the end of TLS.
                    transport.abort()
        except OSError as error:
            # Such as a client that speaks no TLS.
            log.debug("the TLS connection of %s has ended: %s", address, error)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: Any) -> None:
        """Copy in both directions, until either side has closed."""
        ours, theirs = socket.socketpair()
        try:
            inner_reader, inner_writer = await asyncio.open_connection(sock=ours, limit=CHUNK_BYTES)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        self._admit(theirs, address)
        receiving = self._loop.create_task(_copy(reader, inner_writer))
        sending = self._loop.create_task(_copy(inner_reader, writer))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        try:
            # In HTTP no client closes its half and reads on.
            await asyncio.wait([receiving, sending], return_when=asyncio.FIRST_COMPLETED)
            receiving.cancel()
            sending.cancel()
            await asyncio.wait([receiving, sending])
        finally:
            inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy to the end, and return when all is sent."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        # Then `drain` waits for the last byte. With 0, TLS would wait for ever.
        writer.transport.set_write_buffer_limits(high=1, low=0)
        await writer.drain()
    except OSError as error:
        log.debug("a TLS connection has ended: %s", error)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What goes wrong with one connection is its client's trouble."""
    log.debug("TLS: %s", context.get("exception") or context["message"])
